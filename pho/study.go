package pho

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/search"
)

// DefaultConfigs of a study of proxies.
const DefaultConfigs = 40

// LeastConfigs are the fewest that a correlation is computed of.
const LeastConfigs = 3

// Config is one random candidate of a study: its proxies at the first Linear,
// and the perplexity of the model pruned by it.
type Config struct {
	Coefficients
	Proxies
	NLL        float64     `json:"nll"` // nats per token
	Perplexity eval.Number `json:"perplexity"`

	By provenance.Record `json:"by,omitempty"` // who measured; in a study of this program's own it is known
}

// StudyResult is a finished study of proxies.
type StudyResult struct {
	Linear  string        `json:"linear"` // that the proxies are measured at
	Windows int           `json:"windows"`
	SeqLen  int           `json:"seqlen"`
	Proxies []ProxyResult `json:"proxies"`
	Configs []Config      `json:"configs"`
}

// ProxyResult is how a proxy goes with perplexity over all configurations.
type ProxyResult struct {
	Proxy        string `json:"proxy"`
	*Correlation        // nil: the proxy is the same for all
}

// Study measures how each proxy goes with perplexity (CRePE, Table 2): of so many
// candidates drawn evenly from the triangle. What the store has is not done again.
// Options' Sampler, Trials and Top have no part in it. each is called after every
// configuration.
func Study(ctx context.Context, m *model.Model, opt Options, configs int, each func(n int, c Config)) (*StudyResult, error) {
	opt.Objective, opt.Sampler, opt.Trials, opt.Top = Full, "random", configs, 1
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if configs < LeastConfigs {
		return nil, fmt.Errorf("configs: %d, want at least %d", configs, LeastConfigs)
	}
	study, err := opt.openStudy(ctx, m)
	if err != nil {
		return nil, err
	}
	triangle := &space{kernels: opt.Kernels}
	sampler, err := search.New(opt.Sampler, search.Options{Seed: opt.Seed, Start: triangle.start()})
	if err != nil {
		return nil, err
	}
	d, err := opt.newDesk(ctx, m)
	if err != nil {
		return nil, err
	}
	if d != nil {
		return opt.shareStudy(ctx, m, d, sampler, configs, each)
	}
	done, err := study.Records(ctx, configKind)
	if err != nil {
		return nil, err
	}
	first, err := newFirstLinear(ctx, m, &opt, true)
	if err != nil {
		return nil, err
	}
	res := &StudyResult{Linear: first.l.Name, Windows: len(opt.Verify.Tokens), SeqLen: opt.Verify.SeqLen}
	v := newVerifier(m, opt)
	var work []float32
	for n := range configs {
		x, err := sampler.Ask()
		if err != nil {
			return nil, err
		}
		c := Config{Coefficients: triangle.at(x)}
		if n < len(done) {
			if err := recallConfig(&c, n, done[n]); err != nil {
				return nil, err
			}
		} else {
			if work == nil {
				work = make([]float32, first.l.Rows*first.l.Cols)
			}
			if c.Proxies, err = first.proxies(work, c.Coefficients); err != nil {
				return nil, err
			}
			name := fmt.Sprintf("configuration %d of %d: %s", n+1, configs, c.Coefficients)
			measured, err := v.measure(ctx, name, opt.RecipeOf(c.Coefficients))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c, err)
			}
			c.NLL = mean(measured.NLL)
			c.Perplexity = eval.Number(math.Exp(c.NLL))
			text, err := json.Marshal(c)
			if err != nil {
				return nil, err
			}
			if err := study.Add(context.WithoutCancel(ctx), configKind, search.Record{Key: strconv.Itoa(n), Value: string(text)}); err != nil {
				return nil, err
			}
		}
		if err := sampler.Tell(x, c.NLL); err != nil {
			return nil, err
		}
		res.Configs = append(res.Configs, c)
		each(n, c)
	}
	res.Proxies = Correlate(res.Configs)
	return res, nil
}

// shareStudy is Study by those who work for d. What sampler asks does not depend on the
// values it is told.
func (o *Options) shareStudy(ctx context.Context, m *model.Model, d *desk, sampler search.Sampler, configs int, each func(n int, c Config)) (*StudyResult, error) {
	first, err := newFirstLinear(ctx, m, o, false)
	if err != nil {
		return nil, err
	}
	res := &StudyResult{Linear: first.l.Name, Windows: len(o.Verify.Tokens), SeqLen: o.Verify.SeqLen, Configs: make([]Config, configs)}
	points, err := search.Ahead(sampler, configs, 0)
	if err != nil {
		return nil, err
	}
	triangle := &space{kernels: o.Kernels}
	orders := make([]search.Order, configs)
	for n, x := range points {
		c := &res.Configs[n]
		c.Coefficients = triangle.at(x)
		if orders[n], err = d.order(configKind, strconv.Itoa(n), fmt.Sprintf("configuration %d: %s", n+1, c.Coefficients), Work{Candidate: c.Coefficients}); err != nil {
			return nil, err
		}
	}
	by := map[string]int{}
	bar := o.Progress.Start("configurations", int64(configs), "configurations")
	err = d.q.Ask(ctx, orders, func(n int, value string) error {
		if err := recallConfig(&res.Configs[n], n, search.Record{Key: strconv.Itoa(n), Value: value}); err != nil {
			return err
		}
		by[res.Configs[n].By.By()]++
		each(n, res.Configs[n])
		bar.Add(1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	o.mixed(by)
	res.Proxies = Correlate(res.Configs)
	return res, nil
}

// configKind is that of a study's records: keys are numbers, values a Config.
const configKind = "config"

// recallConfig reads record r of an earlier run into c, whose candidate it has
// to be.
func recallConfig(c *Config, n int, r search.Record) error {
	var was Config
	if err := json.Unmarshal([]byte(r.Value), &was); err != nil || r.Key != strconv.Itoa(n) {
		return fmt.Errorf("configuration %s is %q, want configuration %d", r.Key, r.Value, n)
	}
	if was.Coefficients.Key() != c.Coefficients.Key() {
		return fmt.Errorf("configuration %d was %s, but is %s now: the study is of another version", n, was.Coefficients, c.Coefficients)
	}
	if err := checkNLL([]float64{was.NLL}, 1); err != nil {
		return fmt.Errorf("configuration %d: %w", n, err)
	}
	if want := eval.Number(math.Exp(was.NLL)); was.Perplexity != want && !(math.Abs(float64(was.Perplexity-want)) <= 1e-9*float64(want)) {
		return fmt.Errorf("configuration %d: perplexity %v, but %v nats per token: the study is damaged; name another file, or remove it", n, was.Perplexity, was.NLL)
	}
	*c = was
	return nil
}

// Correlate returns ρ of every proxy with perplexity.
func Correlate(configs []Config) []ProxyResult {
	var y []float64
	for _, c := range configs {
		y = append(y, c.NLL)
	}
	var out []ProxyResult
	for i, name := range ProxyNames {
		var x []float64
		for _, c := range configs {
			x = append(x, c.Proxies.List()[i])
		}
		p := ProxyResult{Proxy: name}
		if c, ok := Spearman(x, y); ok {
			p.Correlation = &c
		}
		out = append(out, p)
	}
	return out
}
