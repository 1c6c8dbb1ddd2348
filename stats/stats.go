// Package stats defines the statistics of a Linear's input over the calibration
// text. Engines gather them (engine.Stats).
//
// Linears that share an input (q, k and v; gate and up) share one statistic,
// gathered once.
package stats

import (
	"fmt"
	"math"
)

// Needs says which statistics of an input are gathered beside its norms.
type Needs struct {
	Gram    bool
	Moments bool // ColSum and ColVar
	Cross   int  // columns of what Cross relates to the input; 0: no Cross
}

// Union returns what either needs.
func (n Needs) Union(o Needs) Needs {
	return Needs{Gram: n.Gram || o.Gram, Moments: n.Moments || o.Moments, Cross: max(n.Cross, o.Cross)}
}

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

	Gram  *Gram  // nil unless it was asked for
	Cross *Cross // the same
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
		if err := in.Gram.check(); err != nil {
			return err
		}
	}
	if in.Cross != nil {
		return in.Cross.check()
	}
	return nil
}

// MomentsBytes returns what the moments of an input of width in hold.
func MomentsBytes(in int) int64 { return 2 * 2 * 8 * int64(in) }
