package update

import (
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/pattern"
)

// rowSweep sweeps rows of a block, one at a time.
type rowSweep struct {
	u       []float32 // the block's U, rows stride apart
	stride  int
	pattern pattern.Pattern
	score   []float32 // of a group
	keep    []uint64
}

func newRowSweep(u []float32, stride int, p pattern.Pattern) *rowSweep {
	return &rowSweep{u: u, stride: stride, pattern: p, score: make([]float32, p.Of), keep: make([]uint64, (p.Of+63)/64)}
}

// given prunes the columns of w that keeps does not name.
func (r *rowSweep) given(w []float32, keeps func(j int) bool) {
	for j := range w {
		if !keeps(j) {
			r.prune(w, j)
		}
	}
}

// groups prunes those of lowest |w|/d of each group, when the sweep comes to it.
func (r *rowSweep) groups(w []float32) {
	for lo := 0; lo < len(w); lo += r.pattern.Of {
		for k := range r.score {
			j := lo + k
			r.score[k] = abs(w[j]) / r.u[j*r.stride+j]
		}
		kernel.KeepBest(r.keep, r.score, r.pattern.Keep, r.pattern.Of)
		for k := range r.score {
			if r.keep[k/64]>>(k%64)&1 == 0 {
				r.prune(w, lo+k)
			}
		}
	}
}

// prune sets w_j to 0 and lets the columns to its right make up for it. Of a
// kept column the error is 0, and so is what it would add.
func (r *rowSweep) prune(w []float32, j int) {
	u := r.u[j*r.stride+j : j*r.stride+len(w)]
	rest := w[j:]
	e := rest[0] / u[0]
	rest[0] = 0
	u, rest = u[1:], rest[1:]
	for k, v := range u[:len(rest)] {
		rest[k] -= float32(e * v)
	}
}
