package score

import (
	"fmt"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Terms holds what the CRePE scores of one Linear have in common whatever the
// coefficients, for scoring it many times: sums, norms, and for each width of
// the neighbourhood the shares |W_ij|/N_ij, which take 4 bytes a weight.
type Terms struct {
	w        *tensor.Weight
	row, col []float64
	norm     []float32
	shares   map[int][]float32 // by width of the neighbourhood
}

// NewTerms returns the terms of w with statistic s and exponent power. w must
// not change as long as they are used.
func NewTerms(w *tensor.Weight, s *stats.Input, power float64) (*Terms, error) {
	n, err := norms(w.Cols, s, power)
	if err != nil {
		return nil, err
	}
	row, col, err := absSums(w)
	if err != nil {
		return nil, err
	}
	return &Terms{w: w, row: row, col: col, norm: n, shares: map[int][]float32{}}, nil
}

// share returns |W_ij|/N_ij.
func (t *Terms) share(size int) []float32 {
	q := t.shares[size]
	if q == nil {
		none := make([]float32, max(t.w.Rows, t.w.Cols))
		q = make([]float32, t.w.Rows*t.w.Cols)
		cross(q, t.w, none, none, ones(t.w.Cols), 1, size/2) // (|W|·(0 + 0) + 1·|W|/N)·1, exactly
		t.shares[size] = q
	}
	return q
}

// EachRow calls f with the scores of every row, those that CRePE.Score writes,
// bit for bit. Rows come from several goroutines, in any order; x is the
// caller's until f returns. power is not read: the power is NewTerms'.
func (t *Terms) EachRow(p param.Values, f func(i int, x []float32)) error {
	if err := CRePE.Check(p.With("power", DefaultPower)); err != nil {
		return err
	}
	a, b := overSums(p.Number("alpha"), t.row), overSums(p.Number("beta"), t.col)
	addTo(a, p.Number("delta"))
	gamma, q := p.Number("gamma"), []float32(nil)
	if gamma != 0 {
		q = t.share(p.Whole("kernel"))
	}
	src, cols := t.w.Source(), t.w.Cols
	parallel.For(t.w.Rows, rowStrip, func(lo, hi int) {
		x, buf := make([]float32, cols), make([]float32, cols)
		for i := lo; i < hi; i++ {
			w := segment(buf, src, i*cols, (i+1)*cols)
			if q == nil {
				kernel.RelativeImportance(x, w, b, t.norm, a[i])
			} else {
				combine(x, w, q[i*cols:(i+1)*cols], b, t.norm, a[i], float32(gamma))
			}
			f(i, x)
		}
	})
	return nil
}

// combine writes (|w_j|·(a + b_j) + γ·q_j)·s_j, each operation rounded by itself.
func combine(dst, w, q, b, s []float32, a, gamma float32) {
	n := len(dst)
	if len(w) != n || len(q) != n || len(b) != n || len(s) != n {
		panic(fmt.Sprintf("score: combine: lengths %d, %d, %d, %d, want %d", len(w), len(q), len(b), len(s), n))
	}
	for j := range dst {
		relative := float32(max(w[j], -w[j]) * float32(a+b[j]))
		dst[j] = float32(relative+float32(gamma*q[j])) * s[j]
	}
}
