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
	Name        string // of the study in Store
	Model       string // identifies the weights: a hash
	SpillDir    string // folder for hidden states; empty keeps them in memory

	KeepMasks bool // of the best, for Result.Masks

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

// Fields are what a study in a store must agree on to go on with.
func (o *Options) Fields(compute model.Compute) []search.Field {
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

// start is where samplers begin in the cube: a third axis is that of kernels.
func (o *Options) start() []float64 {
	start := slices.Clone(Start)
	if len(o.Kernels) > 1 {
		start = append(start, 0.5)
	}
	return start
}

// at returns the candidate at x of the cube.
func (o *Options) at(x []float64) Coefficients {
	k := o.Kernels[0]
	if n := len(o.Kernels); n > 1 {
		k = o.Kernels[min(int(x[2]*float64(n)), n-1)]
	}
	return At(x[0], x[1], k)
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
	Verified []Candidate `json:"-"` // the best first, those given up last

	// Masks are the best's, with Options.KeepMasks, and nil if it was verified by
	// an earlier run.
	Masks prune.Masks `json:"-"`
}

// verification is the kind of their records: keys are candidates as JSON, values
// a verified.
const verification = "verification"

type verified struct {
	NLL     []float64 `json:"nll"` // by window, nats per token
	GivenUp bool      `json:"given_up,omitempty"`
	Against float64   `json:"against,omitempty"` // mean NLL of what it was given up against
}

type searcher struct {
	opt   Options
	study search.Study
	proxy *Proxy
	v     verifier
	done  map[string]verified // by candidate
	fixed []Candidate         // RIA first
	rated []Candidate
}

// Search finds the coefficients for m. What the store has is not done again.
func Search(ctx context.Context, m *model.Model, opt Options) (*Result, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	s := &searcher{opt: opt, done: map[string]verified{}, v: newVerifier(m, opt)}
	var err error
	if s.study, err = opt.Store.Study(ctx, opt.Name, opt.Fields(m.Compute)); err != nil {
		return nil, err
	}
	if err := s.recall(ctx); err != nil {
		return nil, err
	}
	first, err := newFirstLinear(ctx, m, &opt)
	if err != nil {
		return nil, err
	}
	if s.proxy, err = first.proxy(); err != nil {
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
	m.Trim()
	return s.verify(ctx)
}

// recall takes up the verifications of an earlier run.
func (s *searcher) recall(ctx context.Context) error {
	records, err := s.study.Records(ctx, verification)
	if err != nil {
		return err
	}
	for _, r := range records {
		var v verified
		if err := json.Unmarshal([]byte(r.Value), &v); err != nil {
			return fmt.Errorf("verification of %s: %w", r.Key, err)
		}
		s.done[r.Key] = v
	}
	return nil
}

// rate is stage 1.
func (s *searcher) rate(ctx context.Context) error {
	sampler, err := search.New(s.opt.Sampler, search.Options{Seed: s.opt.Seed, Start: s.opt.start()})
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
		if err := s.rateAt(ctx, x); err != nil {
			return err
		}
		value := s.rated[n].Gini
		if s.opt.Sampler == ClimbSampler {
			value = math.Log(s.rated[n].Perplexity)
		}
		if err := search.AddTrial(context.WithoutCancel(ctx), s.study, search.Trial{Number: n, X: x, Value: value}); err != nil {
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
	c, err := s.rating(s.opt.at(x))
	if err == nil && s.opt.Sampler == ClimbSampler {
		_, _, err = s.check(ctx, &c, nil)
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
		again := func(d Candidate) bool {
			if s.opt.Sampler == ClimbSampler { // all are verified: nothing is saved
				return c.Coefficients == d.Coefficients
			}
			return c.Duplicates(d.Coefficients)
		}
		if len(list) < len(s.fixed)+s.opt.Top && !slices.ContainsFunc(list, again) {
			list = append(list, c)
		}
	}
	return list
}

// verify is stage 2. What the best so far is depends on the candidates before
// alone, so that an interrupted search goes on as if it had not been.
func (s *searcher) verify(ctx context.Context) (*Result, error) {
	list := s.chosen()
	res := &Result{Trials: len(s.rated)}
	var best []float64 // NLL of the best so far
	for i := range list {
		c, against := &list[i], best
		if i == 0 {
			against = nil // RIA is measured in full, to say what was won against it
		}
		v, masks, err := s.check(ctx, c, against)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		if !v.GivenUp && (best == nil || mean(v.NLL) < mean(best)) {
			best = v.NLL
			if res.Masks = nil; s.opt.KeepMasks {
				res.Masks = masks
			}
		}
		s.show(2, list[:i+1])
	}
	res.RIA, res.Verified = list[0], list
	sortCandidates(res.Verified)
	res.Best = res.Verified[0]
	return res, nil
}

// check verifies c unless an earlier run has, giving up against best. The masks
// are nil if one has.
func (s *searcher) check(ctx context.Context, c *Candidate, best []float64) (verified, prune.Masks, error) {
	key := key(c.Coefficients)
	v, ok := s.done[key]
	var masks prune.Masks
	if !ok || v.GivenUp && (best == nil || v.Against < mean(best)) { // what it was given up against is not in this search
		name := fmt.Sprintf("verify %s", c.Normalized())
		var err error
		if v.NLL, masks, err = s.v.measure(ctx, name, s.opt.RecipeOf(c.Coefficients), best); err != nil {
			return v, nil, err
		}
		if v.GivenUp, v.Against = len(v.NLL) < len(s.opt.Verify.Tokens), 0; v.GivenUp {
			v.Against = mean(best)
		}
		if err := s.keep(ctx, key, v, ok); err != nil {
			return v, nil, err
		}
	}
	c.Perplexity, c.Windows, c.GivenUp = math.Exp(mean(v.NLL)), len(v.NLL), v.GivenUp
	return v, masks, nil
}

// keep stores a verification, in the place of an earlier one if there is.
func (s *searcher) keep(ctx context.Context, key string, v verified, again bool) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // what is finished is kept, whoever has lost patience meanwhile
	if again {
		if err := s.study.Remove(ctx, verification, key); err != nil {
			return err
		}
	}
	if err := s.study.Add(ctx, verification, search.Record{Key: key, Value: string(text)}); err != nil {
		return err
	}
	s.done[key] = v
	return nil
}

// key is a candidate as JSON.
func key(c Coefficients) string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("pho: candidate %v has no JSON: %v", c, err))
	}
	return string(text)
}
