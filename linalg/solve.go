package linalg

import (
	"fmt"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Solve overwrites every row x of the matrix, which has N columns, with x·H⁻¹:
// for the blocks J from the last to the first, then from the first to the last,
//
//	y[J] = (x[J] − Σ_K y[K]·R[J,K]ᵀ)·U[J,J]ᵀ   over all K right of J
//	z[J] = (y[J] − Σ_K z[K]·R[K,J])·U[J,J]     over all K left of J
//
// 2·N² operations a row, as many as one product with H⁻¹, which is never
// formed. Float32; work holds 2·x.Rows·Block values. The result does not depend
// on GOMAXPROCS.
//
// Golub & Van Loan, Matrix Computations, section 3.1.4.
func (f *Factor) Solve(x tensor.Matrix, work []float32) {
	if x.Cols != f.N || len(work) < 2*x.Rows*f.Block {
		panic(fmt.Sprintf("linalg: Solve: x %d × %d, work of %d, want %d columns and work of %d",
			x.Rows, x.Cols, len(work), f.N, 2*x.Rows*f.Block))
	}
	n, r := f.N, f.r.Data
	sums, rest := work[:x.Rows*f.Block], work[x.Rows*f.Block:]
	u := make([]float32, f.Block*f.Block)
	blocks := (n + f.Block - 1) / f.Block
	for b := blocks - 1; b >= 0; b-- {
		lo, hi := b*f.Block, min((b+1)*f.Block, n)
		kernel.MatMulT(sums, hi-lo, x.Data[hi:], n, kernel.Source{F32: r[lo*n+hi:]}, n, x.Rows, hi-lo, n-hi)
		f.replace(x, sums, rest, f.Inverse(b), f.Block, lo, hi)
	}
	for b := range blocks {
		lo, hi := b*f.Block, min((b+1)*f.Block, n)
		f.Left(tensor.Matrix{Rows: x.Rows, Cols: hi - lo, Data: sums[:x.Rows*(hi-lo)]}, x, b)
		Transpose(u, f.Inverse(b), f.Block, hi-lo)
		f.replace(x, sums, rest, u, hi-lo, lo, hi)
	}
}

// replace puts (x − sums)·uᵀ in place of columns lo to hi-1 of x.
func (f *Factor) replace(x tensor.Matrix, sums, rest, u []float32, stride, lo, hi int) {
	width := hi - lo
	parallel.For(x.Rows, rowsATask, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			to, sum := rest[i*width:(i+1)*width], sums[i*width:(i+1)*width]
			for c, v := range x.Row(i)[lo:hi] {
				to[c] = v - sum[c]
			}
		}
	})
	kernel.MatMulT(x.Data[lo:], x.Cols, rest, width, kernel.Source{F32: u}, stride, x.Rows, width, width)
}

// Transpose writes the width × width transpose of the upper triangular u, whose
// rows are stride apart, to dst.
func Transpose(dst, u []float32, stride, width int) {
	for i := range width {
		for j := range width {
			dst[j*width+i] = u[i*stride+j]
		}
	}
}
