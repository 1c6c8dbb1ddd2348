package pho

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/windows"
)

// The paper's budget: candidates rated, and verified.
const (
	DefaultTrials = 60
	DefaultTop    = 10
)

// MaxTrials is more candidates than anybody waits for.
const MaxTrials = 1 << 16

// DefaultKernel is crepe's.
var DefaultKernel = score.CRePE.Defaults().Whole("kernel")

// ClimbSampler is the sampler that climbs on perplexity itself: the paper's
// baseline. Each of its trials prunes the whole model.
const ClimbSampler = "hillclimb"

// Options of a search.
type Options struct {
	Recipe  recipe.Recipe // what to prune by, but for the coefficients; without steps after the method
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
		{Name: "sampler", Value: o.Sampler},
		{Name: "kernels", Value: fmt.Sprint(o.Kernels)},
		{Name: "seed", Value: fmt.Sprint(o.Seed)},
		{Name: "calibration", Value: fmt.Sprintf("%s %.12s", o.Calibration.Source, o.Calibration.SHA256())},
		{Name: "verification", Value: fmt.Sprintf("%s %.12s", o.Verify.Source, o.Verify.SHA256())},
	}...)
	// Coefficients are the candidates'; the rest is said above.
	return append(rec, used.Without("recipe alpha", "recipe beta", "recipe gamma", "recipe kernel",
		"recipe sparsity", "recipe pattern", "recipe calibration", "recipe eval")...), nil
}

// openStudy finds or makes the study in the store. If the one of its name was made
// by another program or engine, this one's is kept beside it: neither continues with
// numbers that it would not compute itself, and neither is lost.
func (o *Options) openStudy(ctx context.Context, m *model.Model) (search.Study, error) {
	rec, err := o.Provenance(m)
	if err != nil {
		return nil, err
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

// start is where samplers begin in the cube: a third axis is that of kernels.
func (o *Options) start() []float64 {
	start := slices.Clone(Start)
	if len(o.Kernels) > 1 {
		start = append(start, 0.5)
	}
	return start
}

// at returns the candidate at x of the cube.
func (o *Options) at(x []float64) Coefficients { return at(x, o.Kernels) }

func at(x []float64, kernels []int) Coefficients {
	k := kernels[0]
	if n := len(kernels); n > 1 {
		k = kernels[min(int(x[2]*float64(n)), n-1)]
	}
	return At(x[0], x[1], k)
}

// Candidate is what is known of one.
type Candidate struct {
	Coefficients
	Gini       float64     `json:"gini"`
	Perplexity eval.Number `json:"perplexity,omitempty"` // of the model pruned in full, all windows; 0: not known
	Screened   *Screening  `json:"screened,omitempty"`   // nil if it was not
	GivenUp    bool        `json:"given_up,omitempty"`   // it cannot win with Confidence: not pruned in full
}

// Screening is what is known of a candidate before it is pruned in full.
type Screening struct {
	Windows    int         `json:"windows"`          // that it was screened on
	Perplexity eval.Number `json:"perplexity"`       // of these; compares with nothing
	Chance     float64     `json:"chance,omitempty"` // of being the best, in full
}

// Result is a finished search.
type Result struct {
	Best     Candidate   `json:"best"`
	RIA      Candidate   `json:"ria"`
	Trials   int         `json:"trials"`
	Verified []Candidate `json:"-"` // the best first, those given up last
}

type searcher struct {
	opt   Options
	study search.Study
	proxy *Proxy
	v     verifier
	done  map[string][]float64 // measurements in the study, by kind and key
	fixed []Candidate          // RIA first
	rated []Candidate
}

// Search finds the coefficients for m. What the store has is not done again.
func Search(ctx context.Context, m *model.Model, opt Options) (*Result, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	s := &searcher{opt: opt, done: map[string][]float64{}, v: newVerifier(m, opt)}
	var err error
	if s.study, err = opt.openStudy(ctx, m); err != nil {
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
			value = min(math.Log(float64(s.rated[n].Perplexity)), eval.MaxNLL)
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
	if err != nil {
		return err
	}
	if s.opt.Sampler == ClimbSampler {
		var e entrant
		if err := s.measure(ctx, &e, c.Coefficients); err != nil {
			return err
		}
		c.Perplexity = eval.Number(math.Exp(mean(e.full)))
	}
	s.rated = append(s.rated, c)
	return nil
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

// sortCandidates orders by perplexity where it is known, else by Gini.
func sortCandidates(c []Candidate) {
	key := func(c Candidate) float64 {
		if c.Perplexity == 0 {
			return math.Inf(1)
		}
		return float64(c.Perplexity)
	}
	slices.SortStableFunc(c, func(a, b Candidate) int {
		return cmp.Or(cmp.Compare(key(a), key(b)), cmp.Compare(a.Gini, b.Gini))
	})
}
