package allocate

import (
	"math"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/param"
)

// OWL keeps more of blocks with many outliers.
var OWL = Method{
	Name: "owl",
	Doc:  "keeps more of blocks with more scores above M times their mean",
	Cite: "Yin et al. 2023, arXiv:2310.05175",
	Params: []param.Spec{
		{Name: "owl_lambda", Doc: "half the range of the blocks' sparsities", Default: 0.08, Max: 1},
		{Name: "owl_m", Doc: "a score above this many times the mean is an outlier", Default: 5., Max: 1e6, Factor: "owl_lambda"},
	},
	FromScores: outliers,
	spread: func(share []float64, blocks []Block, p float64, params param.Values) {
		spreadBy(share, blocks, func(b Block) float64 { return b.Measure }, params.Number("owl_lambda"), p)
	},
}

// outliers returns the share of a block's scores that are outliers,
//
//	m_b = |{S > M·mean S}| / |S|
//
// The mean is float64, the comparison exact.
//
// Yin et al. 2023, arXiv:2310.05175, section 3; their code counts in percent.
func outliers(s Scores, p param.Values) (float64, error) {
	sum, n := 0.0, 0
	if err := s(func(x []float32) { sum += total(x); n += len(x) }); err != nil || n == 0 {
		return math.NaN(), err
	}
	limit := p.Number("owl_m") * sum / float64(n)
	above := 0
	err := s(func(x []float32) { above += countAbove(x, limit) })
	return float64(above) / float64(n), err
}

// run is how many scores a task takes. Sums are taken run by run, then over the
// runs, so that they do not depend on the number of threads.
const run = 1 << 16

func total(x []float32) float64 {
	parts := make([]float64, (len(x)+run-1)/run)
	parallel.For(len(parts), 1, func(i, _ int) {
		for _, v := range x[i*run : min((i+1)*run, len(x))] {
			parts[i] += float64(v)
		}
	})
	sum := 0.0
	for _, v := range parts {
		sum += v
	}
	return sum
}

func countAbove(x []float32, limit float64) int {
	parts := make([]int, (len(x)+run-1)/run)
	parallel.For(len(parts), 1, func(i, _ int) {
		n := 0
		for _, v := range x[i*run : min((i+1)*run, len(x))] {
			if float64(v) > limit {
				n++
			}
		}
		parts[i] = n
	})
	n := 0
	for _, v := range parts {
		n += v
	}
	return n
}
