package pho

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mathext"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// Confidence is that with which a candidate is given up: looked at after each
// eighth of the windows, it is given up with at most 1 − Confidence probability
// if all windows together would make it the best.
const Confidence = 0.95

// looks is into how many parts the windows are divided. The last is no look: all
// is known then.
const looks = 8

// MinVerify windows are the fewest that a difference is judged by.
const MinVerify = 8

// verifier measures candidates of one model.
type verifier struct {
	m       *model.Model
	pruner  *prune.InMemory
	windows [][]int32
	spill   string // folder for hidden states; empty keeps them in memory
}

func newVerifier(m *model.Model, o Options) verifier {
	pruner := prune.NewInMemory(m, o.Calibration)
	pruner.SpillDir, pruner.Progress, pruner.Warn = o.SpillDir, o.Progress, o.Warn
	return verifier{m: m, pruner: pruner, windows: spread(o.Verify.Tokens), spill: o.SpillDir}
}

// measure prunes by rec and returns the mean negative log-likelihood, nats per
// token, of each window; of fewer than all if the rest cannot make rec win
// against best, those of the best so far (nil: none).
func (v *verifier) measure(ctx context.Context, name string, rec recipe.Recipe, best []float64) ([]float64, prune.Masks, error) {
	part := max((len(v.windows)+looks-1)/looks, MinVerify)
	if best == nil {
		part = len(v.windows)
	}
	next := func(n int) [][]int32 { return v.windows[n:min(n+part, len(v.windows))] }
	store, err := v.store(next(0))
	if err != nil {
		return nil, nil, err
	}
	defer func() { store.Close() }()
	st := v.m.NewState()
	forward := func(b model.Block) error { return store.Forward(ctx, b, st, func() {}) }
	masks, err := v.pruner.Prune(ctx, name, rec, forward)
	if err != nil {
		return nil, nil, err
	}
	var nll []float64
	for {
		now, err := eval.NLL(ctx, v.m, next(len(nll)), store, func(int) {})
		if err != nil {
			return nil, nil, err
		}
		nll = append(nll, now...)
		if len(nll) == len(v.windows) || hopeless(nll, best) {
			return nll, masks, nil
		}
		if err := store.Close(); err != nil {
			return nil, nil, err
		}
		if store, err = v.store(next(len(nll))); err != nil {
			return nil, nil, err
		}
		if err := v.pass(masks, forward); err != nil {
			return nil, nil, err
		}
	}
}

// pass calls forward with every block, pruned by masks.
func (v *verifier) pass(masks prune.Masks, forward func(model.Block) error) error {
	for b := range v.m.Blocks() {
		block, err := v.m.LoadBlock(b)
		if err != nil {
			return err
		}
		masks.Apply(block)
		err = forward(block)
		block.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) store(w [][]int32) (*hidden.Store, error) {
	s, err := hidden.New(len(w), len(w[0]), v.m.Width(), v.spill)
	if err != nil {
		return nil, err
	}
	if err := s.Embed(v.m, w); err != nil {
		s.Close()
		return nil, fmt.Errorf("verification: %w", err)
	}
	return s, nil
}

func mean(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s / float64(len(x))
}

// hopeless reports whether the mean of all of a candidate's windows, of which
// nll are the first, is above best's with the confidence of a look:
//
//	d̄ > t·s/√n·√(1 − n/N),   d_w = nll_w − best_w,  n of N windows
//
// the last factor because the other N − n windows are all there is to come. t is
// Student's for n − 1 degrees of freedom at 1 − (1 − Confidence)/(looks − 1), so
// that all looks together err with 1 − Confidence at most (Bonferroni).
func hopeless(nll, best []float64) bool {
	n := float64(len(nll))
	if best == nil || len(nll) < MinVerify {
		return false
	}
	d := make([]float64, len(nll))
	for i := range nll {
		d[i] = nll[i] - best[i]
	}
	m, ss := mean(d), 0.0
	for _, v := range d {
		ss += (v - m) * (v - m)
	}
	variance := ss / (n - 1) / n * (1 - n/float64(len(best)))
	if m <= 0 {
		return false
	}
	return above(m*m/variance, n-1) < (1-Confidence)/(looks-1)
}

// above returns P(T > t) for Student's t with f degrees of freedom and t ≥ 0,
// given by its square.
func above(t2, f float64) float64 {
	if math.IsInf(t2, 1) {
		return 0
	}
	return mathext.RegIncBeta(f/2, 0.5, f/(f+t2)) / 2
}

// spread returns the windows in an order in which the first few are spread over
// all: neighbours in a text are alike, and the first are to stand for the rest.
func spread(w [][]int32) [][]int32 {
	n := len(w)
	step := max(1, int(0.618*float64(n)))
	for gcd(step, n) != 1 {
		step++
	}
	out := make([][]int32, n)
	for i := range out {
		out[i] = w[i*step%n]
	}
	return out
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
