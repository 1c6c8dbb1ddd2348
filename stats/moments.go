package stats

import (
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// moments gather ColSum and ColVar in float64.
type moments struct {
	sum     []float64 // [in] Σ over all sequences and tokens of x_j
	squares []float64 // [in] Σ of (x_j − mean of its sequence)²
}

// MomentsBytes returns what the moments of an input of width in hold.
func MomentsBytes(in int) int64 { return 2 * 2 * 8 * int64(in) }

// add takes in one sequence, in two passes: x² less a squared mean would lose
// the variance of a channel that is nearly constant.
func (m *moments) add(x tensor.Matrix) {
	const strip = 512 // columns a task owns: means and sums of it stay in the first cache
	if x.Rows == 0 {
		return
	}
	parallel.For(x.Cols, strip, func(lo, hi int) {
		var buf [strip]float64
		mean := buf[:hi-lo]
		for t := range x.Rows {
			for j, v := range x.Row(t)[lo:hi] {
				mean[j] += float64(v)
			}
		}
		for j, s := range mean {
			m.sum[lo+j] += s
			mean[j] = s / float64(x.Rows)
		}
		squares := m.squares[lo:hi]
		for t := range x.Rows {
			for j, v := range x.Row(t)[lo:hi] {
				d := float64(v) - mean[j]
				squares[j] += float64(d * d)
			}
		}
	})
}

// means returns ColSum and ColVar; without tokens both are 0.
func (m *moments) means(sequences, tokens int) (colSum, colVar []float64) {
	colSum, colVar = make([]float64, len(m.sum)), make([]float64, len(m.sum))
	for j, s := range m.sum {
		colSum[j] = s / float64(sequences)
		if tokens > 0 {
			colVar[j] = m.squares[j] / float64(tokens)
		}
	}
	return colSum, colVar
}
