package pho

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/windows"
)

// IsKind reports whether orders of a kind are a search's or a study's.
func IsKind(kind string) bool {
	return slices.Contains([]string{denseKind, fullKind, screenKind, configKind}, kind)
}

// Work is what an order of a search or a study asks for.
type Work struct {
	Setting
	Candidate Coefficients `json:"candidate"`
	Lo        int          `json:"lo,omitempty"` // of a screening: the windows from Lo to Hi
	Hi        int          `json:"hi,omitempty"`
}

// Setting is what all orders of one search have in common.
type Setting struct {
	Recipe      recipe.Recipe `json:"recipe"` // but for the coefficients
	Calibration windows.Ref   `json:"calibration"`
	Verify      windows.Ref   `json:"verify"`
}

// ParseWork reads the arguments of an order.
func ParseWork(args json.RawMessage) (*Work, error) {
	var w Work
	if err := json.Unmarshal(args, &w); err != nil {
		return nil, fmt.Errorf("order for a candidate: %w", err)
	}
	return &w, nil
}

// desk orders what a search needs of those who work for its store.
type desk struct {
	q       search.Queue
	study   string
	model   search.Weights
	setting Setting
}

// newDesk keeps the texts where workers find them; nil if the store is no Queue.
func (o *Options) newDesk(ctx context.Context, m *model.Model) (*desk, error) {
	q, ok := o.Store.(search.Queue)
	if !ok {
		return nil, nil
	}
	rec, err := o.Provenance(m)
	if err != nil {
		return nil, err
	}
	for _, s := range []*windows.Set{o.Calibration, o.Verify} {
		if err := q.Keep(ctx, s.SHA256(), s.Bytes()); err != nil {
			return nil, err
		}
	}
	return &desk{
		q: q, study: o.sharedName(rec), model: search.Weights{Name: o.ModelName, ID: o.Model, Bytes: o.ModelBytes},
		setting: Setting{o.Recipe, o.Calibration.Ref(), o.Verify.Ref()},
	}, nil
}

// sharedName is the name of a study in a store of many studies: it says what is asked
// for, whoever computes it.
func (o *Options) sharedName(rec provenance.Record) string {
	return fmt.Sprintf("%s %.24s", o.Name, rec.Asked().Key())
}

func (d *desk) order(kind, key, what string, w Work) (search.Order, error) {
	w.Setting = d.setting
	args, err := json.Marshal(w)
	return search.Order{Study: d.study, Kind: kind, Key: key, What: d.model.Name + ", " + what, Model: d.model, Args: args}, err
}

// ask waits for one answer.
func (d *desk) ask(ctx context.Context, o search.Order) (value string, err error) {
	err = d.q.Ask(ctx, []search.Order{o}, func(_ int, v string) error { value = v; return nil })
	return value, err
}

// Bench is what a worker keeps from one order of a search to the next: the norms
// above all, which take a calibration.
type Bench struct {
	setting string
	m       *model.Model
	opt     Options
	v       verifier
	first   *firstLinear
	work    []float32
}

// NewBench returns one for orders of a setting, or was, if it is.
func (w *Work) NewBench(ctx context.Context, was *Bench, q search.Queue, m *model.Model, memory int64, spill string, bar progress.Func, warn func(string, ...any)) (*Bench, error) {
	text, err := json.Marshal(w.Setting)
	if err != nil {
		return nil, err
	}
	if was != nil && was.setting == string(text) && was.m == m {
		return was, nil
	}
	b := &Bench{setting: string(text), m: m, opt: Options{Recipe: w.Recipe, Kernels: []int{DefaultKernel}, Progress: bar, Warn: warn}}
	for _, s := range []struct {
		ref windows.Ref
		set **windows.Set
	}{{w.Calibration, &b.opt.Calibration}, {w.Verify, &b.opt.Verify}} {
		tokens, err := q.Text(ctx, s.ref.SHA256)
		if err != nil {
			return nil, err
		}
		if *s.set, err = s.ref.Set(tokens, m.Config.Vocab); err != nil {
			return nil, err
		}
	}
	if err := b.opt.Fit(m, memory, spill); err != nil {
		return nil, err
	}
	b.v = newVerifier(m, b.opt)
	return b, nil
}

// Do carries out an order of a kind and returns the record's value.
func (b *Bench) Do(ctx context.Context, kind string, w *Work) (string, error) {
	by, err := provenance.New(b.m.Engine().ID())
	if err != nil {
		return "", err
	}
	if kind == configKind {
		c := Config{Coefficients: w.Candidate, By: by}
		if err := b.config(ctx, &c); err != nil {
			return "", err
		}
		text, err := json.Marshal(c)
		return string(text), err
	}
	j := job{kind, w.Candidate, w.Lo, w.Hi}
	if kind == screenKind && (j.lo < 0 || j.hi <= j.lo || j.hi > len(b.v.windows)) {
		return "", fmt.Errorf("windows %d to %d, want some of %d", j.lo, j.hi, len(b.v.windows))
	}
	m, err := b.v.do(ctx, j, b.opt.RecipeOf(w.Candidate))
	if err != nil {
		return "", err
	}
	m.By = by
	text, err := json.Marshal(m)
	return string(text), err
}

// config measures a configuration of a study.
func (b *Bench) config(ctx context.Context, c *Config) error {
	if b.first == nil {
		first, err := newFirstLinear(ctx, b.m, &b.opt, true)
		if err != nil {
			return err
		}
		b.first, b.work = first, make([]float32, first.l.Rows*first.l.Cols)
	}
	var err error
	if c.Proxies, err = b.first.proxies(b.work, c.Coefficients); err != nil {
		return err
	}
	m, err := b.v.measure(ctx, fmt.Sprintf("configuration: %s", c.Coefficients), b.opt.RecipeOf(c.Coefficients))
	if err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	c.NLL = mean(m.NLL)
	c.Perplexity = eval.Number(math.Exp(c.NLL))
	return nil
}

// mixed says in a warning if measurements come from different engines or programs.
func (o *Options) mixed(by map[string]int) {
	if len(by) < 2 || o.Warn == nil {
		return
	}
	text := ""
	for _, who := range slices.Sorted(maps.Keys(by)) {
		text += fmt.Sprintf("; %s: %d", who, by[who])
	}
	o.Warn("measurements come from different engines or programs, whose last bits differ%s", text)
}
