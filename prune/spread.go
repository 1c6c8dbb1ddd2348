package prune

import (
	"math"
	"runtime"
	"slices"
	"sync"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
)

// Scores are counted by the leading half of their float32 pattern, which orders as
// they do: 128 bins an octave. All that Scores says comes from these counts, which
// are integers, so that it does not depend on the order of counting.
const (
	fineLow  = 16                     // bits of a pattern that a bin leaves out
	fineBins = 0x7f80_0000 >> fineLow // up to infinity
)

// spread counts scores, kept and pruned ones apart: bin k of the pruned is at 2k,
// of the kept at 2k + 1, so that no branch depends on the mask.
type spread struct {
	n    []uint32
	low  []uint64 // sum of the bits that the bins leave out
	from int      // the lowest bin in use
	to   int      // the bin after the highest; not above from if none is
}

func newSpread() *spread {
	return &spread{n: make([]uint32, 2*fineBins), low: make([]uint64, 2*fineBins), from: fineBins}
}

// merge adds o.
func (s *spread) merge(o *spread) {
	s.from, s.to = min(s.from, o.from), max(s.to, o.to)
	for k := 2 * o.from; k < 2*o.to; k++ {
		s.n[k] += o.n[k]
		s.low[k] += o.low[k]
	}
}

// clear makes s empty.
func (s *spread) clear() {
	if s.from < s.to {
		clear(s.n[2*s.from : 2*s.to])
		clear(s.low[2*s.from : 2*s.to])
	}
	s.from, s.to = fineBins, 0
}

// add counts a row; ok is false if a score is negative or not finite.
func (s *spread) add(x []float32, kept []uint64) (ok bool) {
	from, to := uint32(s.from), uint32(s.to)
	ok = true
	for j, v := range x {
		b := math.Float32bits(v)
		if b == 1<<31 {
			b = 0
		}
		if b >= fineBins<<fineLow {
			ok = false
			break
		}
		bin := b >> fineLow
		from, to = min(from, bin), max(to, bin+1)
		k := bin<<1 | uint32(kept[j>>6]>>(j&63)&1)
		s.n[k]++
		s.low[k] += uint64(b & (1<<fineLow - 1))
	}
	s.from, s.to = int(from), int(to)
	return ok
}

// spreads is memory for counts, one for each worker, that is used again and again.
type spreads struct {
	mu   sync.Mutex
	free []*spread
}

// spreadBytes is what the counts of all workers take.
func spreadBytes() int64 { return int64(runtime.GOMAXPROCS(0)) * 2 * fineBins * (4 + 8) }

func (s *spreads) take() *spread {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		f := s.free[n-1]
		s.free = s.free[:n-1]
		return f
	}
	return newSpread()
}

func (s *spreads) give(f *spread) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, f)
}

// measureRows is how many rows a task of a measure takes: of 2¹⁶ weights or so.
func measureRows(cols int) int { return max(1, 1<<16/max(cols, 1)) }

// of returns how the scores of a matrix are spread; nil if one is negative or not
// finite, of which there is no curve.
func (s *spreads) of(scores []float32, m *mask.Mask) *Scores {
	var mu sync.Mutex
	var used []*spread
	bad := false
	parallel.For(m.Rows, measureRows(m.Cols), func(lo, hi int) {
		c, ok := s.take(), true
		for i := lo; i < hi && ok; i++ {
			ok = c.add(scores[i*m.Cols:(i+1)*m.Cols], m.Words(i))
		}
		mu.Lock()
		defer mu.Unlock()
		bad = bad || !ok
		if !slices.Contains(used, c) {
			used = append(used, c)
		}
		s.give(c)
	})
	if len(used) == 0 {
		return nil
	}
	all := used[0]
	for _, c := range used[1:] {
		all.merge(c)
	}
	var out *Scores
	if !bad {
		out = all.scores()
	}
	for _, c := range used {
		c.clear()
	}
	return out
}

// count returns how many scores fine bin k holds.
func (s *spread) count(k int) (pruned, kept int) { return int(s.n[2*k]), int(s.n[2*k+1]) }

// edge is the lowest score of fine bin k.
func edge(k int) float32 { return math.Float32frombits(uint32(k) << fineLow) }

// scores returns what the counts say.
func (s *spread) scores() *Scores {
	const rare = 1000 // one of so many scores may lie below the first edge
	total := 0
	for k := s.from; k < s.to; k++ {
		p, q := s.count(k)
		total += p + q
	}
	first, below := s.from, 0
	for ; first < s.to-1; first++ {
		p, q := s.count(first)
		if first > 0 && below+p+q > total/rare { // zeros lie below all edges
			break
		}
		below += p + q
	}
	out := &Scores{}
	span := s.to - first
	n := min(MaxBins, span)
	at := func(i int) int { return first + i*span/n }
	if first > 0 && span >= 4*MaxBins { // enough for edges of nearly equal ratio, to a fine bin
		low, octaves := float64(edge(first)), math.Log2(float64(edge(s.to))/float64(edge(first)))
		at = func(i int) int {
			if i == n {
				return s.to
			}
			return int(math.Float32bits(float32(low*math.Exp2(octaves*float64(i)/float64(n)))) >> fineLow)
		}
	}
	k := s.from
	for i := range n {
		var kept, pruned int
		for ; k < at(i+1); k++ {
			p, q := s.count(k)
			kept, pruned = kept+q, pruned+p
		}
		out.Edges = append(out.Edges, edge(at(i)))
		out.Kept, out.Pruned = append(out.Kept, kept), append(out.Pruned, pruned)
	}
	out.Edges = append(out.Edges, edge(s.to))
	out.Lorenz, out.Gini = s.lorenz()
	return out
}

// lorenz returns the curve of the pruned scores and its coefficient.
func (s *spread) lorenz() (curve [][2]float64, gini float64) {
	sum := func(k int) float64 { // of a bin: exact, but for the rounding to float64
		base := float64(edge(k))
		ulp := float64(math.Float32frombits(uint32(k)<<fineLow+1)) - base // a bin does not cross an exponent
		return float64(s.n[2*k])*base + float64(s.low[2*k])*ulp
	}
	n, total := 0, 0.0
	for k := s.from; k < s.to; k++ {
		p, _ := s.count(k)
		n, total = n+p, total+sum(k)
	}
	if total == 0 {
		return nil, 0
	}
	share := func(v float64) float64 { return math.Round(v*1e6) / 1e6 }
	curve = append(curve, [2]float64{})
	before, height, area := 0, 0.0, 0.0
	for k := s.from; k < s.to; k++ {
		p, _ := s.count(k)
		if p == 0 {
			continue
		}
		rise := sum(k)
		area += float64(p) * (2*height + rise) // twice
		was := before * (MaxBins - 1) / n
		before, height = before+p, height+rise
		if before*(MaxBins-1)/n > was && before < n {
			curve = append(curve, [2]float64{share(float64(before) / float64(n)), share(height / total)})
		}
	}
	return append(curve, [2]float64{1, 1}), 1 - area/(float64(n)*total)
}

// spreadOf returns what an engine has counted: engine.Scores.Spread.
func spreadOf(n []uint32, low []uint64) *spread {
	s := &spread{n: n, low: low, from: fineBins}
	for k := range fineBins {
		if n[2*k]+n[2*k+1] > 0 {
			s.from, s.to = min(s.from, k), k+1
		}
	}
	return s
}

// cuts returns the highest score that is pruned of each row that some of is, or of the
// whole matrix where that is selected in. There are none of N:M.
func (j *job) cuts() []float32 {
	switch {
	case j.target.Pattern.Of != 0:
		return nil
	case j.scores == nil:
		return slices.Clone(j.scored.Cuts())
	}
	rows := make([]float32, j.kept.Rows)
	parallel.For(j.kept.Rows, measureRows(j.kept.Cols), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			rows[i] = highest(j.scores[i*j.kept.Cols:(i+1)*j.kept.Cols], j.kept.Words(i))
		}
	})
	return slices.DeleteFunc(rows, func(v float32) bool { return math.IsInf(float64(v), 0) })
}

// thresholdOf returns the threshold of a matrix with these cuts, which it sorts: one, or
// where rows are compared one of each. nil if there are none.
func thresholdOf(cuts []float32, compared pattern.Group) *Threshold {
	if len(cuts) == 0 {
		return nil
	}
	slices.Sort(cuts)
	low, median, high := cuts[0], cuts[len(cuts)/2], cuts[len(cuts)-1]
	if compared != pattern.Row {
		return &Threshold{Group: "matrix", Low: high, Median: high, High: high}
	}
	return &Threshold{Group: "row", Low: low, Median: median, High: high}
}

// highest returns the highest of x that is not kept; −∞ if all are.
func highest(x []float32, kept []uint64) float32 {
	top := float32(math.Inf(-1))
	for j, v := range x {
		if v > top && kept[j>>6]>>(j&63)&1 == 0 {
			top = v
		}
	}
	return top
}
