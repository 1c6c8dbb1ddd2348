package stats

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/tensor"
)

// Cross relates what a Linear's tokens lack, Y, tokens × rows, to its input:
//
//	C = (2/n)·Σ_sequences YᵀX    rows × cols, n sequences
//
// in float64. Where tokens have weights, they are those of the Gram matrix.
type Cross struct {
	Rows, Cols int
	OfInput    bool // Y is what the input lacks, else what the Linears' output does
	scale      float64
	sum        []float64 // row-major
}

// NewCross returns the matrix whose elements are scale times those of sum,
// rows × cols.
func NewCross(rows, cols int, scale float64, sum []float64) *Cross {
	if len(sum) != rows*cols {
		panic(fmt.Sprintf("stats: NewCross: %d elements, want %d × %d", len(sum), rows, cols))
	}
	return &Cross{Rows: rows, Cols: cols, scale: scale, sum: sum}
}

// CrossBytes returns what a Cross holds.
func CrossBytes(rows, cols int) int64 { return 8 * int64(rows) * int64(cols) }

// At returns C_ij.
func (c *Cross) At(i, j int) float64 { return c.scale * c.sum[i*c.Cols+j] }

// Write writes C to dst, Rows × Cols.
func (c *Cross) Write(dst tensor.Matrix) {
	if dst.Rows != c.Rows || dst.Cols != c.Cols {
		panic(fmt.Sprintf("stats: Cross.Write: dst %d × %d, want %d × %d", dst.Rows, dst.Cols, c.Rows, c.Cols))
	}
	for i, v := range c.sum {
		dst.Data[i] = float32(c.scale * v)
	}
}

// check returns an error that names the first element that is not a finite float32.
func (c *Cross) check() error {
	for i, v := range c.sum {
		if v := float32(c.scale * v); math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return fmt.Errorf("input channel %d: what its tokens lack has the correlation %v with it, want a finite float32", i%c.Cols, v)
		}
	}
	return nil
}
