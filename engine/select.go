package engine

import (
	"errors"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
)

// Selector is what an Engine may also do: score weights, and select by the scores,
// where the weights are. Scores and masks have the bits that packages score and mask
// give them for the same statistic.
type Selector interface {
	// Scores returns the scores of rows first to first+rows-1 of w by f. They are of use as
	// long as w does not change.
	Scores(w Op, first, rows int, f Importance) (Scores, error)

	// Apply prunes m of the rows of w from first on, as mask.Apply does, in the memory that
	// products read: the tensor.Weight of w, if it has one, is the caller's to change.
	Apply(w Op, first int, m *mask.Mask)
}

// Importance is the family of scores that package score's methods are points of:
//
//	S_ij = (|W_ij|·(α/R_i + β/C_j + δ) + γ·|W_ij|/N_ij)·Norms_j
//
// with the sums R and C of rows and columns, and N of the neighbourhood of Radius.
type Importance struct {
	Alpha, Beta, Gamma, Delta float64
	Radius                    int       // 1 to 5; not read if Gamma is 0
	Norms                     []float32 // of the input's channels, to a power
}

// Scores are the scores of a matrix.
type Scores interface {
	// Select is mask.Select or, with an order, mask.SelectIn. ErrScores says that a score
	// is not finite; those packages say which.
	Select(t pattern.Target, order []int) (*mask.Mask, error)

	// Cuts returns the highest score that Select pruned, of the matrix or of each row, where
	// something was pruned. There are none of N:M.
	Cuts() []float32

	// Read writes the scores to dst, row after row. An error is ErrScores.
	Read(dst []float32) error

	// Spread counts the scores by the leading 16 bits of their float32 patterns, those that
	// m prunes and those that it keeps apart: n[2·bin + kept] is their number,
	// low[2·bin + kept] the sum of the lower 16 bits. The bins are SpreadBins.
	Spread(m *mask.Mask) (n []uint32, low []uint64)

	Release() // gives the memory back
}

// SpreadBins is how many leading halves finite scores have.
const SpreadBins = 0x7f80

// ErrScores says that a score is infinite or NaN.
var ErrScores = errors.New("a score is not finite")
