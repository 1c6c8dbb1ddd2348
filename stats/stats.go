// Package stats holds what a Linear saw of the calibration text.
//
// Linears that share an input (q, k and v; gate and up) share one statistic,
// gathered once.
package stats

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Input is the statistic of one Linear input X, n calibration sequences of
// tokens × in.
type Input struct {
	// ColSq[j] is the mean over the sequences of Σ_tokens x_j², so that
	// ‖X_j‖ = sqrt(ColSq[j]). It grows with the window.
	ColSq     []float64
	Sequences int // n
	Tokens    int // over all sequences

	// ColSum[j] is the mean over the sequences of Σ_tokens x_j, ColVar[j] the
	// mean over all tokens of (x_j − the mean of x_j in the token's sequence)²:
	// the variance inside the sequences, not that between them. Both are nil
	// unless they were asked for.
	ColSum, ColVar []float64

	Gram *Gram // nil unless it was asked for
}

// Check returns an error that names the first channel whose activations were
// not all finite. The square of a finite float32 is far below float64's limit,
// so no other channel has a ColSq that is not.
func (in *Input) Check() error {
	for j, v := range in.ColSq {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("input channel %d: sum of squared activations is %v, want a finite number", j, v)
		}
	}
	if in.Gram != nil {
		return in.Gram.check()
	}
	return nil
}

// Accumulator gathers an Input, sequence by sequence. The order of the calls
// decides the rounding, not the number of threads.
type Accumulator struct {
	sum     []float64 // [in] Σ over all sequences and tokens of x_j²
	tokens  int
	moments *moments // nil unless they were asked for
	gram    *Gram    // nil unless it was asked for
}

// NewAccumulator returns an empty accumulator of width in.
func NewAccumulator(in int) *Accumulator { return &Accumulator{sum: make([]float64, in)} }

// WithGram makes a, which is empty, gather the Gram matrix too, and returns it.
// Memory is taken when the first token comes.
func (a *Accumulator) WithGram() *Accumulator {
	a.gram = NewGram(len(a.sum))
	return a
}

// WithMoments makes a, which is empty, gather ColSum and ColVar too, and
// returns it.
func (a *Accumulator) WithMoments() *Accumulator {
	a.moments = &moments{sum: make([]float64, len(a.sum)), squares: make([]float64, len(a.sum))}
	return a
}

// Add takes in the tokens × in inputs of one sequence, all of them: of an
// expert, those that were routed to it. Squares are summed in float64.
func (a *Accumulator) Add(x tensor.Matrix) {
	if x.Cols != len(a.sum) {
		panic(fmt.Sprintf("stats: Accumulator.Add: %d columns, want %d", x.Cols, len(a.sum)))
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
		a.gram.add(x)
	}
	a.tokens += x.Rows
}

// Input returns the statistic of what has been added, with n = sequences: the
// number of calibration sequences, also where some brought no token (routed
// experts). It takes over the Gram matrix: nothing may be added afterwards.
func (a *Accumulator) Input(sequences int) *Input {
	in := &Input{ColSq: make([]float64, len(a.sum)), Sequences: sequences, Tokens: a.tokens, Gram: a.gram}
	if a.gram != nil {
		a.gram.scale = 2 / float64(sequences)
	}
	for j, s := range a.sum {
		in.ColSq[j] = s / float64(sequences)
	}
	if a.moments != nil {
		in.ColSum, in.ColVar = a.moments.means(sequences, a.tokens)
	}
	return in
}
