package pho

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Proxy computes Gini_pruned of one Linear for many candidates: the Gini
// coefficient of the CRePE scores of the weights that a candidate prunes
// there. CRePE (PHO), section 4.
//
// A candidate costs one pass over the weights, which scores and counts; where
// the whole matrix competes, a second one gathers the few scores that share the
// threshold's bin. The relative error against a full sort in float64 is below
// tolerance. It holds 4 bytes a weight for each width of the neighbourhood, and 4
// more where the whole matrix competes. One goroutine uses it at a time.
type Proxy struct {
	rows, cols int
	pattern    pattern.Pattern
	pruned     int
	terms      *score.Terms
	scores     []float32 // nil for N:M

	mu   sync.Mutex
	free []*histogram // one for each goroutine that counts; what they count is in all of them together
}

// NewProxy returns the proxy of w with statistic s under target t, for candidates of
// the paper's power.
func NewProxy(w *tensor.Weight, s *stats.Input, t pattern.Target) (*Proxy, error) {
	n, err := t.Pruned(w.Rows, w.Cols)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, fmt.Errorf("target prunes none of %d × %d weights: no scores to compare", w.Rows, w.Cols)
	case t.Pattern.Of == 0 && t.Group != pattern.Matrix:
		return nil, fmt.Errorf("compare: %s, want %s: crepe compares there", t.Group, pattern.Matrix)
	case w.Rows*w.Cols > maxElements:
		return nil, fmt.Errorf("%d × %d weights, want at most %d", w.Rows, w.Cols, maxElements)
	}
	p := &Proxy{rows: w.Rows, cols: w.Cols, pattern: t.Pattern, pruned: n}
	if p.terms, err = score.NewTerms(w, s, PaperPower); err != nil {
		return nil, err
	}
	if t.Pattern.Of == 0 {
		p.scores = make([]float32, w.Rows*w.Cols)
	}
	return p, nil
}

// Gini returns Gini_pruned of the candidate c.
func (p *Proxy) Gini(c Coefficients) (float64, error) {
	all, err := p.count(c)
	if err != nil {
		return 0, err
	}
	end, last := all.hi+1, []float32(nil)
	if p.scores != nil {
		at, before := all.find(p.pruned)
		end, last = at, p.lowest(at, p.pruned-before)
	}
	if g, ok := all.gini(end, last); ok {
		return g, nil
	}
	return p.sorted(c, end, last)
}

// count counts all scores, which it also keeps, where the matrix competes, and
// those of pruned weights for N:M.
func (p *Proxy) count(c Coefficients) (*histogram, error) {
	for _, h := range p.free {
		h.clear()
	}
	var bad error
	first := p.rows
	err := p.terms.EachRow(c.params(), func(i int, x []float32) {
		h := p.take()
		kept := x
		if p.scores != nil {
			copy(p.scores[i*p.cols:], x)
		} else {
			kept = p.prunedOf(x)
		}
		j := h.add(kept)
		p.mu.Lock()
		defer p.mu.Unlock()
		if j >= 0 && i < first {
			first, bad = i, fmt.Errorf("row %d: score %v with %s, want a finite number of at least 0", i, kept[j], c)
		}
		p.free = append(p.free, h)
	})
	if err != nil || bad != nil {
		return nil, errors.Join(err, bad)
	}
	for _, h := range p.free[1:] {
		p.free[0].merge(h)
	}
	return p.free[0], nil
}

// take returns a histogram that no other goroutine has.
func (p *Proxy) take() *histogram {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	if last < 0 {
		return newHistogram()
	}
	h := p.free[last]
	p.free = p.free[:last]
	return h
}

// prunedOf returns the scores of a row that the pattern prunes, in place of x.
func (p *Proxy) prunedOf(x []float32) []float32 {
	kept := make([]uint64, (len(x)+63)/64)
	kernel.KeepBest(kept, x, p.pattern.Keep, p.pattern.Of)
	n := 0
	for j, v := range x {
		x[n] = v
		n += int(^kept[j/64] >> (j % 64) & 1)
	}
	return x[:n]
}

// lowest returns the k lowest of the scores in bin at, ascending.
func (p *Proxy) lowest(at uint32, k int) []float32 {
	var in []float32
	const grain = 1 << 18
	parallel.For(len(p.scores), grain, func(lo, hi int) {
		var found []float32
		for _, v := range p.scores[lo:hi] {
			if math.Float32bits(v)>>lowBits == at {
				found = append(found, v)
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		in = append(in, found...)
	})
	slices.Sort(in)
	return in[:k]
}

// sorted is Gini without the histogram: last and the scores in the bins before
// end are sorted.
func (p *Proxy) sorted(c Coefficients, end uint32, last []float32) (float64, error) {
	x := make([]float32, 0, p.pruned)
	err := p.terms.EachRow(c.params(), func(_ int, row []float32) {
		if p.scores == nil {
			row = p.prunedOf(row)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, v := range row {
			if math.Float32bits(v)>>lowBits < end {
				x = append(x, v)
			}
		}
	})
	if err != nil {
		return 0, err
	}
	return Gini(append(x, last...)), nil
}
