package pho

import (
	"context"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tensor"
)

// Confidence is that with which a candidate is given up: after each quarter of
// the windows, if by a one-sided paired t-test the candidate's mean negative
// log-likelihood over all windows is above the best one's.
const Confidence = 0.999

const (
	looks   = 4      // the windows are measured in so many parts
	normalZ = 3.0902 // of Confidence
)

// verifier measures candidates of one model.
type verifier struct {
	m        *model.Model
	pruner   *prune.InMemory
	windows  [][]int32
	progress progress.Func
}

// measure prunes by rec and returns the mean negative log-likelihood, nats per
// token, of each window; of fewer than all if the rest cannot make rec win
// against best, those of the best so far (nil: none).
func (v *verifier) measure(ctx context.Context, name string, rec recipe.Recipe, best []float64) ([]float64, error) {
	part := (len(v.windows) + looks - 1) / looks
	if best == nil || part < minVerify {
		part = len(v.windows)
	}
	store, err := v.store(v.windows[:part])
	if err != nil {
		return nil, err
	}
	st := v.m.NewState()
	forward := func(b model.Block) error { return store.Forward(ctx, b, st, func() {}) }
	masks, err := v.pruner.Prune(ctx, name, rec, forward)
	if err != nil {
		return nil, err
	}
	var nll []float64
	for {
		now, err := v.head(store, v.windows[len(nll):min(len(nll)+part, len(v.windows))])
		if err != nil {
			return nil, err
		}
		nll = append(nll, now...)
		if len(nll) == len(v.windows) || hopeless(nll, best) {
			return nll, nil
		}
		if store, err = v.store(v.windows[len(nll):min(len(nll)+part, len(v.windows))]); err != nil {
			return nil, err
		}
		for b := range v.m.Blocks() {
			block, err := v.m.LoadBlock(b)
			if err != nil {
				return nil, err
			}
			masks.Apply(block)
			err = forward(block)
			block.Release()
			if err != nil {
				return nil, err
			}
		}
	}
}

func (v *verifier) store(w [][]int32) (*hidden.Store, error) {
	s, err := hidden.New(len(w), len(w[0]), v.m.Width(), "")
	if err != nil {
		return nil, err
	}
	return s, s.Embed(v.m, w)
}

// head turns the last block's outputs into the windows' mean NLL.
func (v *verifier) head(s *hidden.Store, w [][]int32) ([]float64, error) {
	head, err := v.m.LoadHead()
	if err != nil {
		return nil, err
	}
	const batchTokens = 2048 // as in package eval
	scored := len(w[0]) - 1
	batch := max(1, batchTokens/len(w[0]))
	x := tensor.NewMatrix(batch*scored, v.m.Width())
	nll := make([]float64, batch*scored)
	var means []float64
	for lo := 0; lo < len(w); lo += batch {
		n := min(batch, len(w)-lo)
		var targets []int32
		for i := range n {
			h, err := s.Get(lo + i)
			if err != nil {
				return nil, err
			}
			copy(x.Slice(i*scored, (i+1)*scored).Data, h.Slice(0, scored).Data)
			targets = append(targets, w[lo+i][1:]...)
		}
		if err := head.NLL(x.Slice(0, n*scored), targets, nll[:n*scored]); err != nil {
			return nil, err
		}
		for i := range n {
			m := mean(nll[i*scored : (i+1)*scored])
			if math.IsNaN(m) || math.IsInf(m, 0) {
				return nil, fmt.Errorf("window %d has a mean negative log-likelihood of %v, want a finite number", lo+i, m)
			}
			means = append(means, m)
		}
	}
	return means, nil
}

func mean(x []float64) float64 {
	s := 0.0
	for _, v := range x {
		s += v
	}
	return s / float64(len(x))
}

// hopeless reports whether with Confidence the mean of all of a candidate's
// windows, of which nll are the first, is above best's:
//
//	d̄ > t_{n−1}·s/√n·√(1 − n/N),   d_w = nll_w − best_w,  n of N windows
//
// the last factor because the other N − n windows are all there is to come.
func hopeless(nll, best []float64) bool {
	n := float64(len(nll))
	if best == nil || len(nll) < minVerify {
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
	error := math.Sqrt(ss/(n-1)/n) * math.Sqrt(1-n/float64(len(best)))
	return m > student(n-1)*error
}

// student is the quantile of Confidence of Student's t with f ≥ 7 degrees of
// freedom, by the first terms of its Cornish-Fisher expansion (Abramowitz and
// Stegun 26.7.5).
func student(f float64) float64 {
	z := normalZ
	z3, z5 := z*z*z, z*z*z*z*z
	return z + (z3+z)/(4*f) + (5*z5+16*z3+3*z)/(96*f*f) + (3*z5*z*z+19*z5+17*z3-15*z)/(384*f*f*f)
}
