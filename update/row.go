package update

import (
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/pattern"
)

// rowStep is what the rows of a rowSweep are padded to, so that its vectors
// are whole.
const rowStep = 16

// padded returns the width × width part of u, whose rows are stride apart, with
// rows a multiple of rowStep apart and zeros between.
func padded(u []float32, stride, width int) []float32 {
	to := (width + rowStep - 1) / rowStep * rowStep
	p := make([]float32, width*to)
	for j := range width {
		copy(p[j*to:j*to+width], u[j*stride:])
	}
	return p
}

// rowSweep sweeps rows of a block, one at a time.
type rowSweep struct {
	u       []float32 // the block's U, padded
	w       []float32 // the row at work, padded
	pattern pattern.Pattern
	score   []float32 // of a group
	keep    []uint64
}

func newRowSweep(u []float32, width int, p pattern.Pattern) *rowSweep {
	return &rowSweep{
		u: u, w: make([]float32, len(u)/width), pattern: p,
		score: make([]float32, p.Of), keep: make([]uint64, (p.Of+63)/64),
	}
}

// given prunes the columns of w that keeps does not name.
func (r *rowSweep) given(w []float32, keeps func(j int) bool) {
	copy(r.w, w)
	for j := range w {
		if !keeps(j) {
			r.prune(j)
		}
	}
	copy(w, r.w)
}

// groups prunes those of lowest |w|/d of each group, when the sweep comes to it.
func (r *rowSweep) groups(w []float32) {
	copy(r.w, w)
	for lo := 0; lo < len(w); lo += r.pattern.Of {
		for k := range r.score {
			j := lo + k
			r.score[k] = abs(r.w[j]) / r.u[j*len(r.w)+j]
		}
		kernel.KeepBest(r.keep, r.score, r.pattern.Keep, r.pattern.Of)
		for k := range r.score {
			if r.keep[k/64]>>(k%64)&1 == 0 {
				r.prune(lo + k)
			}
		}
	}
	copy(w, r.w)
}

// prune sets w_j to 0 and lets the columns to its right make up for it. Of a
// kept column the error is 0, and so is what it would add. U is 0 left of j,
// so the vectors may begin there.
func (r *rowSweep) prune(j int) {
	lo, u := j&^(rowStep-1), r.u[j*len(r.w):(j+1)*len(r.w)]
	e := r.w[j] / u[j]
	kernel.SubScaled(r.w[lo:], u[lo:], e)
	r.w[j] = 0
}
