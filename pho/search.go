package pho

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

// The paper's budget: candidates rated, and verified.
const (
	DefaultTrials = 60
	DefaultTop    = 10
	DefaultKernel = 9
)

// ClimbSampler is the sampler that climbs on perplexity itself: the paper's
// baseline. Each of its trials prunes the whole model.
const ClimbSampler = "hillclimb"

// Options of a search.
type Options struct {
	Recipe  recipe.Recipe // what to prune by, but for the coefficients
	Sampler string
	Trials  int
	Top     int
	Kernels []int // of several, each trial chooses one
	Seed    uint64

	Calibration *windows.Set
	Verify      *windows.Set
	Store       search.Store
	Model       string // identifies the weights: a hash

	Progress progress.Func
	Warn     func(format string, args ...any) // may be nil
	Leaders  func(stage int, c []Candidate)   // may be nil; is called after each, the best first
}

// Validate checks what can be checked without the model.
func (o *Options) Validate() error {
	if err := search.Check(o.Sampler); err != nil {
		return err
	}
	switch {
	case o.Trials < 1:
		return fmt.Errorf("trials: %d, want at least 1", o.Trials)
	case o.Top < 1:
		return fmt.Errorf("top: %d, want at least 1", o.Top)
	case o.Trials < o.Top:
		return fmt.Errorf("trials: %d, want at least the %d that --top verifies", o.Trials, o.Top)
	case len(o.Kernels) == 0:
		return fmt.Errorf("kernels: none, want one at least")
	}
	for _, k := range o.Kernels {
		if _, err := o.RecipeOf(Equal(k)).Resolve(); err != nil {
			return err
		}
	}
	return nil
}

// RecipeOf returns the recipe of a candidate.
func (o *Options) RecipeOf(c Coefficients) recipe.Recipe {
	r := o.Recipe
	r.Method, r.Alpha, r.Beta, r.Gamma, r.Kernel = "crepe", &c.Alpha, &c.Beta, &c.Gamma, &c.Kernel
	return r
}

// Study is what a store must agree on to go on with.
func (o *Options) Study(compute model.Compute) []search.Field {
	r := o.Recipe.WithDefaults()
	return []search.Field{
		{Name: "crepe", Value: prune.Version},
		{Name: "model", Value: o.Model},
		{Name: "pattern", Value: cmp.Or(r.Pattern, r.Sparsity)},
		{Name: "sampler", Value: o.Sampler},
		{Name: "kernels", Value: fmt.Sprint(o.Kernels)},
		{Name: "seed", Value: fmt.Sprint(o.Seed)},
		{Name: "calibration", Value: fmt.Sprintf("%s %.12s", o.Calibration.Source, o.Calibration.SHA256())},
		{Name: "verification", Value: fmt.Sprintf("%s %.12s", o.Verify.Source, o.Verify.SHA256())},
		{Name: "skip", Value: r.Skip},
		{Name: "fused", Value: r.Fused},
		{Name: "compute", Value: compute.String()},
	}
}

// Candidate is what is known of one.
type Candidate struct {
	Coefficients
	Gini       float64 `json:"gini"`
	Perplexity float64 `json:"perplexity,omitempty"` // 0: not verified; of Windows windows
	Windows    int     `json:"windows,omitempty"`
	GivenUp    bool    `json:"given_up,omitempty"` // it could not win with Confidence
}

// Result is a finished search.
type Result struct {
	Best     Candidate   `json:"best"`
	RIA      Candidate   `json:"ria"`
	Trials   int         `json:"trials"`
	Verified []Candidate `json:"verified"` // the best first, those given up last
}

// verified is the Result of a search.Verification.
type verified struct {
	NLL     []float64 `json:"nll"` // by window, nats per token
	GivenUp bool      `json:"given_up"`
}

type searcher struct {
	opt   Options
	proxy *Proxy
	v     verifier
	done  map[string]verified // by candidate
	best  []float64           // NLL of the best so far
	fixed []Candidate         // RIA first
	rated []Candidate
}

// Search finds the coefficients for m. What the store has is not done again.
func Search(ctx context.Context, m *model.Model, opt Options) (*Result, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if err := opt.Store.Begin(ctx, opt.Study(m.Compute)); err != nil {
		return nil, err
	}
	s := &searcher{opt: opt, done: map[string]verified{}}
	pruner := prune.NewInMemory(m, opt.Calibration)
	pruner.Progress, pruner.Warn = opt.Progress, opt.Warn
	s.v = verifier{m: m, pruner: pruner, windows: opt.Verify.Tokens, progress: opt.Progress}
	if err := s.recall(ctx); err != nil {
		return nil, err
	}
	var err error
	if s.proxy, err = firstProxy(ctx, m, opt); err != nil {
		return nil, err
	}
	for _, c := range []Coefficients{RIA(opt.Kernels[0]), Equal(opt.Kernels[0])} {
		rated, err := s.rating(c)
		if err != nil {
			return nil, err
		}
		s.fixed = append(s.fixed, rated)
	}
	if err := s.rate(ctx); err != nil {
		return nil, err
	}
	s.proxy = nil // stage 2 needs the memory
	return s.verify(ctx)
}

// firstProxy is the proxy of the first Linear, whose statistic costs an
// embedding and a norm.
func firstProxy(ctx context.Context, m *model.Model, opt Options) (*Proxy, error) {
	resolved, err := opt.RecipeOf(Equal(opt.Kernels[0])).Resolve()
	if err != nil {
		return nil, err
	}
	block, err := m.LoadBlock(0)
	if err != nil {
		return nil, err
	}
	in, enter := model.FirstInput(block)
	l := in.Linears[0]
	acc := stats.NewAccumulator(l.Cols)
	x := tensor.NewMatrix(opt.Calibration.SeqLen, m.Width())
	for i, ids := range opt.Calibration.Tokens {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := m.Embed(x, ids); err != nil {
			return nil, fmt.Errorf("calibration: sequence %d: %w", i, err)
		}
		enter(x, x)
		acc.Add(x)
	}
	p, err := NewProxy(l.W, acc.Input(len(opt.Calibration.Tokens)), resolved.Target, resolved.Params.Power)
	if err != nil {
		return nil, fmt.Errorf("tensor %s.weight: %w", l.Name, err)
	}
	return p, nil
}

// recall takes up the verifications of an earlier run.
func (s *searcher) recall(ctx context.Context) error {
	rows, err := s.opt.Store.Verifications(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		var v verified
		if err := json.Unmarshal([]byte(row.Result), &v); err != nil {
			return fmt.Errorf("verification %d: %w", row.Number, err)
		}
		s.take(row.Candidate, v)
	}
	return nil
}

func (s *searcher) take(key string, v verified) {
	s.done[key] = v
	if !v.GivenUp && (s.best == nil || mean(v.NLL) < mean(s.best)) {
		s.best = v.NLL
	}
}

// rate is stage 1.
func (s *searcher) rate(ctx context.Context) error {
	start := slices.Clone(Start)
	if len(s.opt.Kernels) > 1 {
		start = append(start, 0.5)
	}
	sampler, err := search.New(s.opt.Sampler, search.Options{Seed: s.opt.Seed, Start: start})
	if err != nil {
		return err
	}
	trials, err := s.opt.Store.Trials(ctx)
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
		if err := s.rateAt(ctx, x); err != nil {
			return err
		}
		value := s.rated[n].Gini
		if s.opt.Sampler == ClimbSampler {
			value = math.Log(s.rated[n].Perplexity)
		}
		if err := s.opt.Store.AddTrial(ctx, search.Trial{Number: n, X: x, Value: value}); err != nil {
			return err
		}
		if err := sampler.Tell(x, value); err != nil {
			return err
		}
		bar.Add(1)
		s.show(1, s.rated)
	}
	return nil
}

// rateAt rates the candidate at x of the cube.
func (s *searcher) rateAt(ctx context.Context, x []float64) error {
	k := s.opt.Kernels[0]
	if n := len(s.opt.Kernels); n > 1 {
		k = s.opt.Kernels[min(int(x[2]*float64(n)), n-1)]
	}
	c, err := s.rating(At(x[0], x[1], k))
	if err == nil && s.opt.Sampler == ClimbSampler {
		err = s.check(ctx, &c, nil)
	}
	s.rated = append(s.rated, c)
	return err
}

func (s *searcher) rating(c Coefficients) (Candidate, error) {
	g, err := s.proxy.Gini(c)
	return Candidate{Coefficients: c, Gini: g}, err
}

func (s *searcher) show(stage int, c []Candidate) {
	if s.opt.Leaders != nil {
		c = slices.Clone(c)
		sortCandidates(c)
		s.opt.Leaders(stage, c)
	}
}

// sortCandidates orders by perplexity where it is known in full, else by Gini.
func sortCandidates(c []Candidate) {
	key := func(c Candidate) float64 {
		if c.Perplexity == 0 || c.GivenUp {
			return math.Inf(1)
		}
		return c.Perplexity
	}
	slices.SortStableFunc(c, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(key(a), key(b)), cmp.Compare(a.Gini, b.Gini))
	})
}

// chosen returns the candidates of stage 2: RIA, equal coefficients, and the
// Top best rated without duplicates.
func (s *searcher) chosen() []Candidate {
	list := slices.Clone(s.fixed)
	sorted := slices.Clone(s.rated)
	sortCandidates(sorted)
	for _, c := range sorted {
		again := func(d Candidate) bool { return c.Duplicates(d.Coefficients) }
		if len(list) < len(s.fixed)+s.opt.Top && !slices.ContainsFunc(list, again) {
			list = append(list, c)
		}
	}
	return list
}

// verify is stage 2.
func (s *searcher) verify(ctx context.Context) (*Result, error) {
	list := s.chosen()
	for i := range list {
		c, best := &list[i], s.best
		if i == 0 {
			best = nil // RIA is measured in full, to say what was won against it
		}
		if err := s.check(ctx, c, best); err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		s.show(2, list[:i+1])
	}
	res := &Result{RIA: list[0], Trials: len(s.rated), Verified: list}
	sortCandidates(res.Verified)
	res.Best = res.Verified[0]
	return res, nil
}

// check verifies c unless an earlier run has, giving up against best.
func (s *searcher) check(ctx context.Context, c *Candidate, best []float64) error {
	key, err := json.Marshal(c.Coefficients)
	if err != nil {
		return err
	}
	v, ok := s.done[string(key)]
	if !ok {
		name := fmt.Sprintf("verify %s", c.Normalized())
		if v.NLL, err = s.v.measure(ctx, name, s.opt.RecipeOf(c.Coefficients), best); err != nil {
			return err
		}
		v.GivenUp = len(v.NLL) < len(s.opt.Verify.Tokens)
		row, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if err := s.opt.Store.AddVerification(ctx, search.Verification{Number: len(s.done), Candidate: string(key), Result: string(row)}); err != nil {
			return err
		}
		s.take(string(key), v)
	}
	c.Perplexity, c.Windows, c.GivenUp = math.Exp(mean(v.NLL)), len(v.NLL), v.GivenUp
	return nil
}
