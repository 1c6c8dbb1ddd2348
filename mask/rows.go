package mask

import (
	"math/bits"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
)

const (
	rowCandidates = 512 // down to which a bracket is narrowed by passes over a whole row
	rowPrefix     = 512 // scores at the beginning of a row that give the first guess
)

// rows prunes the count(i) lowest of each row i.
func (s *selection) rows(count func(i int) int) {
	parallel.For(s.Rows, taskRows, func(lo, hi int) {
		candidates := make([]uint64, s.stride)
		values := make([]float32, 0, 2*rowCandidates)
		for i := lo; i < hi; i++ {
			k, x, kept := count(i), s.scoresOf(i), s.row(i)
			if k == 0 || s.bad[i] {
				kernel.AtLeast(kept, x, 0)
				continue
			}
			prefix := x[:min(rowPrefix, len(x))]
			guess := all(0).kth(prefix, 1+(k-1)*len(prefix)/len(x), 0)
			b := all(len(x)).narrow(k, rowCandidates, guess, func(t float32) int { return kernel.CountBelow(x, t) })
			b.split(kept, candidates, x)
			if b.single() {
				keepTies(kept, candidates, k-b.nlo)
				continue
			}
			values = gather(values[:0], x, candidates)
			t := b.kth(values, k-b.nlo, 0)
			keepAbove(kept, candidates, values, t, k-b.nlo-kernel.CountBelow(values, t))
		}
	})
}

// split sets kept to the elements of x beyond b, and candidates to those in b.
// It returns their numbers.
func (b bracket) split(kept, candidates []uint64, x []float32) (beyond, inside int) {
	beyond = kernel.AtLeast(kept, x, b.hi)
	inside = kernel.AtLeast(candidates, x, b.lo) - beyond
	for w := range candidates {
		candidates[w] &^= kept[w]
	}
	return beyond, inside
}

// gather appends the elements of x that set has.
func gather(values, x []float32, set []uint64) []float32 {
	for w, c := range set {
		for ; c != 0; c &= c - 1 {
			values = append(values, x[w*64+bits.TrailingZeros64(c)])
		}
	}
	return values
}

// keepAbove adds to kept the candidates that are above t, and those that equal
// t but for the first ties of them. values are the candidates'.
func keepAbove(kept, candidates []uint64, values []float32, t float32, ties int) {
	at := 0
	for w, c := range candidates {
		for ; c != 0; c &= c - 1 {
			v := values[at]
			at++
			if v == t {
				ties--
			}
			if v > t || v == t && ties < 0 {
				kept[w] |= c & -c
			}
		}
	}
}

// keepTies adds to kept all candidates but the first ties of them.
func keepTies(kept, candidates []uint64, ties int) {
	for w, c := range candidates {
		if n := bits.OnesCount64(c); ties >= n {
			ties -= n
			continue
		}
		for ; ties > 0; ties-- {
			c &= c - 1
		}
		kept[w] |= c
	}
}
