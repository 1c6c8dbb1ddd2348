package cpu

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// accumulator gathers a stats.Input, sums of squares in float64.
type accumulator struct {
	sum     []float64 // [in] Σ over all sequences and tokens of x_j²
	tokens  int
	moments *moments // nil unless they were asked for
	gram    *gram    // nil unless it was asked for
	cross   *cross   // the same
}

// NewStats implements engine.Engine. The memory of a Gram matrix is taken when
// the first token comes.
func (e *Engine) NewStats(in int, needs stats.Needs) engine.Stats {
	a := &accumulator{sum: make([]float64, in)}
	if needs.Moments {
		a.moments = &moments{sum: make([]float64, in), squares: make([]float64, in)}
	}
	if needs.Gram {
		a.gram = &gram{n: in}
	}
	if needs.Cross > 0 {
		a.cross = &cross{rows: needs.Cross, cols: in}
	}
	return a
}

// StatsScratch implements engine.Engine.
func (e *Engine) StatsScratch(in int, needs stats.Needs) int64 {
	if !needs.Gram && needs.Cross == 0 {
		return 0
	}
	return 4 * (int64(in+needs.Cross)*gramTokens + int64(max(in, needs.Cross))*gramPanel)
}

// Add implements engine.Stats.
func (a *accumulator) Add(x engine.Mat) { a.add(host(x)) }

func (a *accumulator) add(x tensor.Matrix) { a.addFit(x, nil, tensor.Matrix{}) }

// AddFit implements engine.Stats.
func (a *accumulator) AddFit(x engine.Mat, f engine.Fit) {
	var lacks tensor.Matrix
	if f.Lacks.Rows > 0 {
		lacks = host(f.Lacks)
	}
	a.addFit(host(x), f.Weights, lacks)
}

// addFit is AddFit.
func (a *accumulator) addFit(x tensor.Matrix, weights []float64, lacks tensor.Matrix) {
	if x.Cols != len(a.sum) {
		panic(fmt.Sprintf("cpu: Stats.Add: %d columns, want %d", x.Cols, len(a.sum)))
	}
	// A task owns whole columns and sums each in token order. 1024 columns are a
	// page of a row, and their sums stay in the first cache (8 KiB).
	const strip = 1024
	parallel.For(x.Cols, strip, func(lo, hi int) {
		for t := range x.Rows {
			kernel.AddSquares(a.sum[lo:hi], x.Row(t)[lo:hi])
		}
	})
	if a.moments != nil {
		a.moments.add(x)
	}
	if a.gram != nil {
		a.gram.add(x, weights)
	}
	if a.cross != nil && lacks.Rows > 0 {
		a.cross.add(x, weights, lacks)
	}
	a.tokens += x.Rows
}

// Input implements engine.Stats.
func (a *accumulator) Input(sequences int) *stats.Input {
	in := &stats.Input{ColSq: make([]float64, len(a.sum)), Sequences: sequences, Tokens: a.tokens}
	for j, s := range a.sum {
		in.ColSq[j] = s / float64(sequences)
	}
	if a.gram != nil {
		in.Gram = stats.NewGram(a.gram.n, 2/float64(sequences), a.gram.panel)
	}
	if a.cross != nil {
		in.Cross = a.cross.matrix(2 / float64(sequences))
	}
	if a.moments != nil {
		in.ColSum, in.ColVar = a.moments.means(sequences, a.tokens)
	}
	return in
}

// moments gather ColSum and ColVar in float64.
type moments struct {
	sum     []float64 // [in] Σ over all sequences and tokens of x_j
	squares []float64 // [in] Σ of (x_j − mean of its sequence)²
}

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
