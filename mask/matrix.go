package mask

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
)

// A whole matrix does not fit in a cache, so it is gone through once: a sample
// gives a bracket, and the pass that splits the matrix by it counts what is
// below, so that a sample that misleads is found out. It then takes more
// passes; the result is the same.

const (
	sampleRuns = 4096
	sampleRun  = 16       // scores that share a cache line
	slack      = 1.0 / 96 // share of scores on each side: five standard deviations of an even sample
)

// sample returns scores of places that are spread by multiplying with the
// golden ratio, which falls in with no width of rows; all scores if they are few.
func sample(x []float32) []float32 {
	if len(x) <= sampleRuns*sampleRun {
		return x
	}
	s := make([]float32, 0, sampleRuns*sampleRun)
	runs := uint64(len(x) / sampleRun)
	for i := range uint64(sampleRuns) {
		run, _ := bits.Mul64(i*0x9e3779b97f4a7c15, runs)
		s = append(s, x[run*sampleRun:][:sampleRun]...)
	}
	return s
}

// estimate returns the limits of a bracket that probably holds the k-th
// smallest of x.
func estimate(x []float32, k int) (lo, hi float32) {
	s := sample(x)
	if kernel.MaxBits(s) >= kernel.InfBits {
		return 0, float32(math.Inf(1)) // −0, or no scores at all
	}
	if len(s) == len(x) {
		t := all(0).kth(s, k, 0)
		return t, after(t)
	}
	share := float64(k) / float64(len(x))
	at := func(p float64) float32 {
		return all(0).kth(s, min(max(int(p*float64(len(s))), 1), len(s)), 0)
	}
	hi = float32(math.Inf(1))
	if share > slack {
		lo = at(share - slack)
	}
	if share < 1-slack {
		hi = after(at(share + slack))
	}
	return lo, hi
}

// part is what the rows of one task have below, in and beyond a bracket.
type part struct {
	below, inside int
	values        []float32 // of those in it, unless it has a single value
	ties          int       // how many that equal the limit are pruned
}

// maxCandidates is the part of all scores whose values may be gathered.
const maxCandidates = 16

// matrix prunes the k ≥ 1 lowest of all scores.
func (s *selection) matrix(k int) {
	candidates := make([]uint64, len(s.bits))
	limit := len(s.scores) / maxCandidates
	b := all(len(s.scores))
	b.lo, b.hi = estimate(s.scores, k)
	parts := s.split(&b, candidates, limit)
	if slices.Contains(s.bad, true) {
		return
	}
	if k <= b.nlo || k > b.nhi {
		b = all(len(s.scores))
	}
	if b.inside() > limit && !b.single() {
		b = b.narrow(k, limit, 0, s.below)
		parts = s.split(&b, candidates, limit)
	}
	s.resolve(b, parts, candidates, k-b.nlo)
}

// split divides all scores by b and counts anew. The values in b are gathered
// if they are at most limit and not all the same.
func (s *selection) split(b *bracket, candidates []uint64, limit int) []part {
	parts := make([]part, (s.Rows+taskRows-1)/taskRows)
	var gathered atomic.Int64 // more than limit are no use, so memory has a bound
	parallel.For(s.Rows, taskRows, func(lo, hi int) {
		p := &parts[lo/taskRows]
		for i := lo; i < hi; i++ {
			x, c := s.scoresOf(i), candidates[i*s.stride:(i+1)*s.stride]
			beyond, inside := b.split(s.row(i), c, x)
			p.below += len(x) - beyond - inside
			p.inside += inside
			if !b.single() && gathered.Add(int64(inside)) <= int64(limit) {
				p.values = gather(p.values, x, c)
			}
		}
	})
	b.nlo, b.nhi = 0, 0
	for _, p := range parts {
		b.nlo += p.below
		b.nhi += p.below + p.inside
	}
	return parts
}

// resolve keeps all candidates but the k lowest.
func (s *selection) resolve(b bracket, parts []part, candidates []uint64, k int) {
	t, ties := b.lo, k
	if !b.single() {
		values := make([]float32, 0, b.inside())
		for _, p := range parts {
			values = append(values, p.values...)
		}
		t = b.kth(values, k, 0)
		ties = k - kernel.CountBelow(values, t)
	}
	for i := range parts {
		p := &parts[i]
		equal := p.inside
		if !b.single() {
			equal = kernel.CountBelow(p.values, after(t)) - kernel.CountBelow(p.values, t)
		}
		p.ties = min(ties, equal)
		ties -= p.ties
	}
	parallel.For(len(parts), 1, func(i, _ int) {
		lo, hi := i*taskRows*s.stride, min((i+1)*taskRows, s.Rows)*s.stride
		if b.single() {
			keepTies(s.bits[lo:hi], candidates[lo:hi], parts[i].ties)
		} else {
			keepAbove(s.bits[lo:hi], candidates[lo:hi], parts[i].values, t, parts[i].ties)
		}
	})
}

// below returns how many scores are below t.
func (s *selection) below(t float32) int {
	var sum atomic.Int64
	parallel.For(s.Rows, taskRows, func(lo, hi int) {
		sum.Add(int64(kernel.CountBelow(s.scores[lo*s.Cols:hi*s.Cols], t)))
	})
	return int(sum.Load())
}
