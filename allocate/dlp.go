package allocate

import (
	"math"
	"sync"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/param"
)

// What DLP takes of a block's scores.
const (
	Mean   = "mean"
	Median = "median"
)

// DLP keeps less of blocks with high scores.
var DLP = Method{
	Name: "dlp",
	Doc:  "keeps more of blocks with lower scores, by their mean or median",
	Cite: "Chen et al. 2025, arXiv:2505.23807",
	Params: []param.Spec{
		{Name: "dlp_alpha", Doc: "half the range of the blocks' sparsities", Default: 0.15, Max: 1},
		{Name: "dlp_center", Doc: "what measures a block: the mean or the median of its scores", Default: Mean, Choices: []any{Mean, Median}, Factor: "dlp_alpha"},
	},
	FromScores: center,
	spread: func(share []float64, blocks []Block, p float64, params param.Values) {
		sum := 0.0
		for _, b := range blocks {
			if b.Weights > 0 {
				sum += b.Measure
			}
		}
		spreadBy(share, blocks, func(b Block) float64 { return 1 - b.Measure/sum }, params.Number("dlp_alpha"), p)
	},
}

// center returns the mean of a block's scores, in float64, or their median: the
// lower of the middle two.
//
// Chen et al. 2025, arXiv:2505.23807, take the median in the text and the mean
// in the code that made their tables.
func center(s Scores, p param.Values) (float64, error) {
	if p.Text("dlp_center") == Median {
		return median(s)
	}
	sum, n := 0.0, 0
	err := s(func(x []float32) { sum += total(x); n += len(x) })
	return sum / float64(n), err
}

// median looks twice: for the upper half of the bits, which order as the scores
// do, and then for the lower.
func median(s Scores) (float64, error) {
	const half = 16
	counts, n := make([]int, 1<<half), 0
	err := s(func(x []float32) {
		n += len(x)
		count(counts, x, func(bits uint32) (int, bool) { return int(bits >> half), true })
	})
	if err != nil || n == 0 {
		return math.NaN(), err
	}
	upper, rank := find(counts, (n-1)/2)
	clear(counts)
	err = s(func(x []float32) {
		count(counts, x, func(bits uint32) (int, bool) { return int(bits & (1<<half - 1)), int(bits>>half) == upper })
	})
	lower, _ := find(counts, rank)
	return float64(math.Float32frombits(uint32(upper<<half | lower))), err
}

// count adds to counts, at the place that at returns for a score's bits.
func count(counts []int, x []float32, at func(bits uint32) (int, bool)) {
	var sum sync.Mutex
	parallel.For(len(x), 16*run, func(lo, hi int) {
		mine := make([]int, len(counts))
		for _, v := range x[lo:hi] {
			if i, ok := at(math.Float32bits(v) &^ (1 << 31)); ok { // −0 is 0
				mine[i]++
			}
		}
		sum.Lock()
		defer sum.Unlock()
		for i, n := range mine {
			counts[i] += n
		}
	})
}

// find returns where the one of that rank lies, and its rank there.
func find(counts []int, rank int) (at, left int) {
	for i, n := range counts {
		if rank < n {
			return i, rank
		}
		rank -= n
	}
	return len(counts) - 1, 0
}
