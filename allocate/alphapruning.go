package allocate

import (
	"math"

	"github.com/crepe-llm/crepe/linalg"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/tensor"
)

// AlphaPruning prunes less where the spectrum of the weights has a heavier tail.
var AlphaPruning = Method{
	Name: "alphapruning",
	Doc:  "keeps more of blocks whose singular values have a heavier tail; needs no data",
	Cite: "Lu et al. 2024, arXiv:2410.10912",
	Params: []param.Spec{
		{Name: "alphapruning_epsilon", Doc: "ε: blocks get from 1−ε to 1+ε times the sparsity", Default: 0.3, Max: 1},
	},
	FromWeight: tail,
	WeightCost: func(out, in int) (bytes int64, flop float64) {
		n, k := float64(min(out, in)), float64(max(out, in))
		return linalg.SingularBytes(out, in), n*n*k + 4./3*n*n*n
	},
	spread: func(share []float64, blocks []Block, p float64, params param.Values) {
		lo, hi := math.Inf(1), math.Inf(-1)
		for _, b := range blocks {
			if b.Weights > 0 {
				lo, hi = min(lo, b.Measure), max(hi, b.Measure)
			}
		}
		epsilon := params.Number("alphapruning_epsilon")
		total, scaled := 0.0, 0.0
		for i, b := range blocks {
			if b.Weights > 0 {
				share[i] = 1 - epsilon + (b.Measure-lo)/(hi-lo)*2*epsilon
				total += float64(b.Weights)
				scaled += float64(b.Weights) * share[i]
			}
		}
		for i := range share {
			share[i] *= p * total / scaled
		}
	},
}

// tail returns the exponent of the power law that fits the tail of the squared
// singular values of w. NaN if they have none: a matrix of zeros, or of
// singular values that are all equal.
func tail(w *tensor.Weight) (float64, error) {
	l, err := linalg.SquaredSingularValues(w)
	if err != nil {
		return 0, err
	}
	return powerLaw(l), nil
}

// powerLaw returns the exponent α_i of the candidate i whose fit is nearest.
// l is ascending, l_k ≥ 0, k from 0; with n = N − i,
//
//	α_i = 1 + n/(Σ_{k≥i} ln l_k − n·ln l_i)
//	D_i = max_{k≥i} |1 − (l_k/l_i)^(1−α_i) − (k−i)/n|,   1 if α_i ≤ 1
//
// and the first least D wins. Candidates lie around the peak x of the histogram
// of log10 l in 100 equal bins between its extremes: x is 10 to the left edge
// of the fullest bin, of equal ones the leftmost, and
//
//	log10(0.95·x) ≤ l_i ≤ 1.5·x
//
// never the last. The left bound compares a value with a logarithm; that is
// what the published results were made with. Values below N·2⁻⁵² of the
// greatest are zeros within the accuracy of l, and left out: the published code
// takes their logarithm. It keeps exponents of 0 where no candidate is left; here
// that is NaN.
//
// Lu et al. 2024, arXiv:2410.10912, after Martin & Mahoney's fit of the
// empirical spectral density.
func powerLaw(l []float64) float64 {
	if len(l) == 0 {
		return math.NaN()
	}
	for zero := float64(len(l)) * 0x1p-52 * l[len(l)-1]; len(l) > 0 && !(l[0] > zero); {
		l = l[1:]
	}
	if len(l) < 2 || l[0] == l[len(l)-1] {
		return math.NaN()
	}
	x := peak(l)
	from, to := math.Log10(0.95*x), 1.5*x
	logs := make([]float64, len(l))
	after := make([]float64, len(l)+1) // Σ_{k≥i} ln l_k
	for i := len(l) - 1; i >= 0; i-- {
		logs[i] = math.Log(l[i])
		after[i] = after[i+1] + logs[i]
	}
	best, nearest := math.NaN(), 1.0
	for i := range len(l) - 1 {
		if l[i] < from {
			continue
		}
		if l[i] > to {
			break
		}
		n := float64(len(l) - i)
		alpha := 1 + n/(after[i]-n*logs[i])
		if !(alpha > 1 && finite(alpha)) {
			continue
		}
		if d := distance(logs[i:], alpha, nearest); d < nearest {
			best, nearest = alpha, d
		}
	}
	return best
}

// peak returns 10 to the left edge of the fullest bin of log10 l.
func peak(l []float64) float64 {
	const bins = 100
	lo, hi := math.Log10(l[0]), math.Log10(l[len(l)-1])
	var counts [bins]int
	for _, v := range l {
		counts[min(int((math.Log10(v)-lo)/(hi-lo)*bins), bins-1)]++
	}
	fullest := 0
	for i, n := range counts {
		if n > counts[fullest] {
			fullest = i
		}
	}
	return math.Pow(10, lo+(hi-lo)*float64(fullest)/bins)
}

// distance returns D for the logarithms of l from the candidate on, or, sooner,
// a value above limit if D is.
func distance(logs []float64, alpha, limit float64) float64 {
	worst, n := 0.0, float64(len(logs))
	for k, v := range logs {
		worst = max(worst, math.Abs(1-math.Exp((1-alpha)*(v-logs[0]))-float64(k)/n))
		if worst > limit {
			break
		}
	}
	return worst
}
