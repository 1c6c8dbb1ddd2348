package pho

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/windows"
)

// The paper's budget, of which stage 2 takes fewer where stage 1 measures.
const (
	DefaultTrials = 60
	DefaultTop    = 10
	measuredTop   = 3
)

// TopOf returns the default of Options.Top for an objective.
func TopOf(objective string) int {
	if measures(objective) {
		return measuredTop
	}
	return DefaultTop
}

// MaxTrials is more candidates than anybody waits for.
const MaxTrials = 1 << 16

// DefaultKernel is crepe's.
var DefaultKernel = score.CRePE.Defaults().Whole("kernel")

// SamplerOf returns the default sampler of an objective: the paper's for proxies, and
// steps along one axis after the other where the axes are many.
func SamplerOf(objective string) string {
	if measures(objective) {
		return "descent"
	}
	return "cmaes"
}

// Options of a search.
type Options struct {
	Recipe    recipe.Recipe // what to prune by, but for the coefficients; without steps after the method
	Objective string        // one of Objectives
	Sampler   string
	Trials    int
	Top       int
	Kernels   []int // of several, each trial chooses one
	Seed      uint64
	Known     []Known // take part too

	Calibration *windows.Set
	Verify      *windows.Set
	Store       search.Store
	Name        string // of the study in Store
	Model       string // identifies the weights: a hash
	ModelName   string // of a Store that is a search.Queue: where workers may have the model from
	ModelBytes  int64  // and the size of its weights

	States   engine.Place // of the hidden states between blocks
	Ahead    bool         // as in model.Options
	KeepHead bool         // the same

	Progress progress.Func
	Warn     func(format string, args ...any) // may be nil
	Leaders  func(stage int, c []Candidate)   // may be nil; is called after each, the best first
}

// Known is a candidate that was found elsewhere.
type Known struct {
	Name string
	Coefficients
}

// Validate checks what can be checked without the model.
func (o *Options) Validate() error {
	if err := search.Check(o.Sampler); err != nil {
		return err
	}
	if err := checkObjective(o.Objective); err != nil {
		return err
	}
	switch {
	case o.Trials < 1:
		return fmt.Errorf("trials: %d, want at least 1", o.Trials)
	case o.Top < 1:
		return fmt.Errorf("top: %d, want at least 1", o.Top)
	case o.Trials > MaxTrials:
		return fmt.Errorf("trials: %d, want at most %d", o.Trials, MaxTrials)
	case o.Trials < o.Top:
		return fmt.Errorf("trials: %d, want at least the %d that --top verifies", o.Trials, o.Top)
	case len(o.Kernels) == 0:
		return fmt.Errorf("kernels: none, want at least one")
	}
	if steps := o.RecipeOf(Equal(o.Kernels[0])).Spec(); steps != "crepe" {
		return fmt.Errorf("recipe: %s, want no step after the method: the search finds coefficients for crepe alone", steps)
	}
	for _, k := range o.Kernels {
		if _, err := o.RecipeOf(Equal(k)).Resolve(); err != nil {
			return err
		}
	}
	return nil
}

// RecipeOf returns the recipe of a candidate.
func (o *Options) RecipeOf(c Coefficients) recipe.Recipe { return c.Of(o.Recipe) }

// basis is the recipe by whose norms candidates are tried. By those of the dense model,
// what suits them alone would win: at 2:4 on SmolLM2-135M full prunings come out in
// another order.
func (o *Options) basis() recipe.Recipe {
	return o.RecipeOf(o.grouped(Default(DefaultKernel)))
}

// grouped returns c without a group in which weights compete, if the pattern fixes that.
func (o *Options) grouped(c Coefficients) Coefficients {
	if o.Recipe.Pattern != "" {
		c.Compare = ""
	}
	return c
}

// Provenance is what a study of m depends on: to go on with one in a store, it
// must agree.
func (o *Options) Provenance(m *model.Model) (provenance.Record, error) {
	rec, err := provenance.New(m.Engine().ID())
	if err != nil {
		return nil, err
	}
	pruned := o.RecipeOf(Equal(o.Kernels[0])).WithDefaults()
	used, err := pruned.Provenance()
	if err != nil {
		return nil, err
	}
	rec = append(rec, provenance.Record{
		{Name: "model", Value: o.Model},
		{Name: "pattern", Value: cmp.Or(pruned.Pattern, pruned.Sparsity)},
		{Name: "objective", Value: o.Objective},
		{Name: "sampler", Value: o.Sampler},
		{Name: "kernels", Value: fmt.Sprint(o.Kernels)},
		{Name: "seed", Value: fmt.Sprint(o.Seed)},
		{Name: "calibration", Value: fmt.Sprintf("%s %.12s", o.Calibration.Source, o.Calibration.SHA256())},
		{Name: "verification", Value: fmt.Sprintf("%s %.12s", o.Verify.Source, o.Verify.SHA256())},
	}...)
	for _, k := range o.Known {
		rec = append(rec, provenance.Field{Name: "known " + k.Name, Value: k.Key()})
	}
	// Coefficients are the candidates'; the rest is said above.
	return append(rec, used.Without("recipe alpha", "recipe beta", "recipe gamma", "recipe delta", "recipe kernel", "recipe power",
		"recipe compare", "recipe sparsity", "recipe pattern", "recipe calibration", "recipe eval")...), nil
}

// openStudy finds or makes the study in the store. If the one of its name was made
// by another program or engine, this one's is kept beside it: neither continues with
// numbers that it would not compute itself, and neither is lost.
//
// In a store that is a search.Queue a study says what is asked for, and each record who
// answered: all measure for the same.
func (o *Options) openStudy(ctx context.Context, m *model.Model) (search.Study, error) {
	rec, err := o.Provenance(m)
	if err != nil {
		return nil, err
	}
	if _, ok := o.Store.(search.Queue); ok {
		return o.Store.Study(ctx, o.sharedName(rec), rec.Asked())
	}
	s, err := o.Store.Study(ctx, o.Name, rec)
	var other *search.MismatchError
	if !errors.As(err, &other) || !other.Have.Asks(rec) {
		return s, err
	}
	if o.Warn != nil {
		o.Warn("%s: the %s there is another program's or engine's; this one is kept beside it: %s", other.Store, o.Name, provenance.Differences(other.Have, rec))
	}
	return o.Store.Study(ctx, o.Name+" "+rec.Key(), rec)
}

// Candidate is what is known of one.
type Candidate struct {
	Coefficients
	Name       string      `json:"name,omitempty"`       // of one that always takes part
	Rating     float64     `json:"rating,omitempty"`     // of stage 1: nats per token, or the proxy
	Perplexity eval.Number `json:"perplexity,omitempty"` // of the model pruned in full, all windows; 0: not known
	Screened   *Screening  `json:"screened,omitempty"`   // nil if it was not
	GivenUp    bool        `json:"given_up,omitempty"`   // it cannot win with Confidence: not pruned in full
	Blocks     []float64   `json:"blocks,omitempty"`     // of the model pruned in full: the share of zeros in each block
}

// Screening is what is known of a candidate before it is pruned in full.
type Screening struct {
	Windows    int         `json:"windows"`          // that it was screened on
	Perplexity eval.Number `json:"perplexity"`       // of these; compares with what was screened on as many
	Chance     float64     `json:"chance,omitempty"` // of being the best, in full
}

// Result is a finished search.
type Result struct {
	Best     Candidate   `json:"best"`
	Dense    eval.Number `json:"dense"` // perplexity of the dense model
	Trials   int         `json:"trials"`
	Verified []Candidate `json:"-"` // the best first, those given up last

	Objective string      `json:"objective"`             // that was followed
	Check     *ProxyCheck `json:"proxy_check,omitempty"` // nil: none was asked for
}

type searcher struct {
	opt       Options
	objective string
	study     search.Study
	first     *firstLinear
	space     *space
	proxy     *Proxy    // nil before it is asked for
	work      []float32 // for other proxies
	check     *ProxyCheck
	v         verifier
	done      map[string]measurement // of the study, by kind and key
	fixed     []Candidate
	rated     []Candidate

	desk    *desk          // nil: all is measured here
	guessed []search.Order // what was ordered on the guess that it will be needed
	by      map[string]int // how many measurements each engine has made, of a desk's
}

// Search finds the coefficients for m. What the store has is not done again.
func Search(ctx context.Context, m *model.Model, opt Options) (*Result, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	s := &searcher{opt: opt, objective: opt.Objective, done: map[string]measurement{}, by: map[string]int{}, v: newVerifier(m, opt)}
	var err error
	if s.desk, err = opt.newDesk(ctx, m); err != nil {
		return nil, err
	}
	if s.study, err = opt.openStudy(ctx, m); err != nil {
		return nil, err
	}
	if err := s.recall(ctx); err != nil {
		return nil, err
	}
	if s.first, err = newFirstLinear(ctx, m, &opt, !measures(opt.Objective)); err != nil {
		return nil, err
	}
	s.space, s.fixed = &space{kernels: opt.Kernels}, s.always()
	if !measures(s.objective) {
		if err := s.checkProxy(ctx); err != nil {
			return nil, err
		}
		if !s.check.Followed {
			s.objective = Perplexity
		}
	}
	if measures(s.objective) {
		if err := s.widen(ctx, m); err != nil {
			return nil, err
		}
	}
	if err := s.rate(ctx); err != nil {
		return nil, err
	}
	s.first, s.proxy, s.work = nil, nil, nil // stage 2 needs the memory
	m.Trim()
	res, err := s.verify(ctx)
	s.opt.mixed(s.by)
	return res, err
}

// always returns the candidates that take part whatever stage 1 finds.
func (s *searcher) always() []Candidate {
	k := s.opt.Kernels[0]
	list := []Candidate{{Coefficients: Default(k), Name: "default"}, {Coefficients: Wanda(k), Name: "wanda"}, {Coefficients: RIA(k), Name: "ria"}}
	for _, known := range s.opt.Known {
		list = append(list, Candidate{Coefficients: known.Coefficients, Name: known.Name})
	}
	if !measures(s.objective) {
		list = append(list, Candidate{Coefficients: Equal(k), Name: "equal"})
	}
	for i := range list {
		list[i].Coefficients = s.opt.grouped(list[i].Coefficients)
	}
	return list
}

// widen takes the wide family for stage 1, around the best of those that always take
// part.
func (s *searcher) widen(ctx context.Context, m *model.Model) error {
	var needed []job
	for _, c := range s.fixed {
		needed = append(needed, s.ratingJobs(c.Coefficients)...)
	}
	if err := s.ahead(ctx, needed...); err != nil {
		return err
	}
	for i := range s.fixed {
		rated, err := s.rating(ctx, s.fixed[i].Coefficients)
		if err != nil {
			return err
		}
		rated.Name = s.fixed[i].Name
		s.fixed[i] = rated
	}
	best := slices.MinFunc(s.fixed, func(a, b Candidate) int { return cmp.Compare(a.Rating, b.Rating) })
	s.space = wideSpace(m, s.opt.Kernels, s.first, best.Coefficients)
	return nil
}

// rate is stage 1.
func (s *searcher) rate(ctx context.Context) error {
	sampler, err := search.New(s.opt.Sampler, search.Options{Seed: s.opt.Seed, Start: s.space.start()})
	if err != nil {
		return err
	}
	trials, err := search.Trials(ctx, s.study)
	if err != nil {
		return err
	}
	if len(trials) > s.opt.Trials {
		trials = trials[:s.opt.Trials]
	}
	if err := search.Replay(sampler, trials); err != nil {
		return err
	}
	for _, t := range trials {
		if err := s.rateAt(ctx, t.X); err != nil {
			return err
		}
	}
	bar := s.opt.Progress.Start("stage 1: rate candidates", int64(s.opt.Trials-len(trials)), "trials")
	for n := len(trials); n < s.opt.Trials; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		x, err := sampler.Ask()
		if err != nil {
			return err
		}
		if err := s.guess(ctx, trials, x); err != nil {
			return err
		}
		if err := s.rateAt(ctx, x); err != nil {
			return err
		}
		value := s.rated[n].Rating
		trials = append(trials, search.Trial{Number: n, X: x, Value: value, Of: s.label(n)})
		if err := search.AddTrial(context.WithoutCancel(ctx), s.study, trials[n]); err != nil {
			return err
		}
		if err := sampler.Tell(x, value); err != nil {
			return err
		}
		bar.Add(1)
		s.show(1, s.rated)
	}
	return s.withdraw(ctx, nil)
}

// label says what trial n was of.
func (s *searcher) label(n int) json.RawMessage {
	text, err := json.Marshal(label{s.objective, s.rated[n].Coefficients})
	if err != nil {
		panic(fmt.Sprintf("pho: trial %d has no JSON: %v", n, err)) // numbers are finite
	}
	return text
}

// label is what a study says of a trial.
type label struct {
	Objective string `json:"objective"`
	Coefficients
}

// rateAt rates the candidate at x of the cube.
func (s *searcher) rateAt(ctx context.Context, x []float64) error {
	c, err := s.rating(ctx, s.space.at(x))
	if err != nil {
		return err
	}
	s.rated = append(s.rated, c)
	return nil
}

func (s *searcher) show(stage int, c []Candidate) {
	if s.opt.Leaders != nil {
		c = slices.Clone(c)
		sortCandidates(c)
		s.opt.Leaders(stage, c)
	}
}

// sortCandidates orders by perplexity where it is known, then by what they were
// screened at, then by the rating.
func sortCandidates(c []Candidate) {
	full := func(c Candidate) float64 {
		if c.Perplexity == 0 {
			return math.Inf(1)
		}
		return float64(c.Perplexity)
	}
	screened := func(c Candidate) float64 {
		if c.Screened == nil {
			return math.Inf(1)
		}
		return float64(c.Screened.Perplexity)
	}
	slices.SortStableFunc(c, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(full(a), full(b)), cmp.Compare(screened(a), screened(b)), cmp.Compare(a.Rating, b.Rating))
	})
}
