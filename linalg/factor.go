// Package linalg factorises large symmetric matrices on the matrix kernels, in
// float32.
package linalg

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Factor is the upper triangular R of
//
//	H = R·Rᵀ,   so that   H⁻¹ = Uᵀ·U   with   U = R⁻¹
//
// is the upper Cholesky factor of the inverse. H is n × n, symmetric and
// positive definite. The inverse itself is never formed: U·R = I, so whatever
// is asked of U is a substitution with R, and R costs n³/3 operations where
// H⁻¹ and its factor cost 4n³/3.
//
// The matrix is cut into Block columns, counted from the left; the last block
// may be narrower.
type Factor struct {
	N, Block int
	r        tensor.Matrix // upper triangle: R; lower: Rᵀ
	inverse  []float32     // per block its own U, Block × Block, rows Block apart
}

// NotPositiveDefiniteError says that a matrix has no Cholesky factor.
type NotPositiveDefiniteError struct {
	Pivot   int     // the column that failed; the factor grows from the last to the first
	Value   float64 // what should have been above 0
	Damping float64 // what the caller had added to the diagonal, as a share of its mean
}

func (e *NotPositiveDefiniteError) Error() string {
	return fmt.Sprintf("matrix is not positive definite: pivot %d is %.3g with damping %v of the mean diagonal", e.Pivot, e.Value, e.Damping)
}

// Factorize overwrites h, of which it reads the upper triangle, with its
// factor. An error is a *NotPositiveDefiniteError, and leaves h undefined.
//
// Block column by block column, from the last:
//
//	A = H[:,J] − R[:,K]·R[J,K]ᵀ   over all K right of J
//	R[J,J]·R[J,J]ᵀ = A[J]         in float64, and its inverse
//	R[I,J] = A[I]·U[J,J]ᵀ         for the rows I above
//
// Products and sums are float32 (kernel.MatMulT): what is computed is the
// factor of H + E with |E_ij| ≤ c·n·2⁻²⁴·sqrt(H_ii·H_jj), c a small constant.
// The result does not depend on GOMAXPROCS.
//
// Golub & Van Loan, Matrix Computations, section 4.2, with rows and columns in
// reverse order.
func Factorize(h tensor.Matrix, block int) (*Factor, error) {
	n := h.Rows
	if h.Cols != n || block < 1 {
		panic(fmt.Sprintf("linalg: Factorize: matrix of %d × %d in blocks of %d, want a square one and at least 1", n, h.Cols, block))
	}
	f := &Factor{N: n, Block: block, r: h}
	blocks := (n + block - 1) / block
	f.inverse = make([]float32, blocks*block*block)
	part := make([]float32, n*block) // rows × columns of one block column
	for b := blocks - 1; b >= 0; b-- {
		if err := f.column(b, part); err != nil {
			return nil, err
		}
	}
	Mirror(f.r) // products need R's columns side by side
	return f, nil
}

// column computes block column b of R.
func (f *Factor) column(b int, part []float32) error {
	n, lo := f.N, b*f.Block
	hi := min(lo+f.Block, n)
	width, right := hi-lo, n-hi
	r := f.r.Data
	if right > 0 {
		kernel.MatMulT(part, width, r[hi:], n, kernel.Source{F32: r[lo*n+hi:]}, n, hi, width, right)
		parallel.For(hi, rowsATask, func(i0, i1 int) {
			for i := i0; i < i1; i++ {
				to := r[i*n+lo : i*n+hi]
				for c, v := range part[i*width : (i+1)*width] {
					to[c] -= v
				}
			}
		})
	}
	if err := f.diagonal(b, lo, hi); err != nil {
		return err
	}
	if lo == 0 {
		return nil
	}
	kernel.MatMulT(part, width, r[lo:], n, kernel.Source{F32: f.Inverse(b)}, f.Block, lo, width, width)
	parallel.For(lo, rowsATask, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			copy(r[i*n+lo:i*n+hi], part[i*width:])
		}
	})
	return nil
}

// rowsATask is how many rows of a block column a task moves.
const rowsATask = 256

// diagonal factorises block b, which spans lo to hi-1, and inverts its factor,
// in float64.
func (f *Factor) diagonal(b, lo, hi int) error {
	n, w := f.N, hi-lo
	a := make([]float64, w*w)
	for i := range w {
		for j := i; j < w; j++ {
			a[i*w+j] = float64(f.r.Data[(lo+i)*n+lo+j])
		}
	}
	if p := factorSmall(a, w); p >= 0 {
		return &NotPositiveDefiniteError{Pivot: lo + p, Value: a[p*w+p]}
	}
	for i := range w {
		for j := i; j < w; j++ {
			f.r.Data[(lo+i)*n+lo+j] = float32(a[i*w+j])
		}
	}
	u := f.Inverse(b)
	for i, row := range invertSmall(a, w) {
		for j := i; j < w; j++ {
			u[i*f.Block+j] = float32(row[j])
		}
	}
	return nil
}

// factorSmall overwrites the upper triangle of the w × w matrix a with the R of
// a = R·Rᵀ. It returns -1, or the pivot that is not above 0.
func factorSmall(a []float64, w int) int {
	for j := w - 1; j >= 0; j-- {
		rj := a[j*w+j+1 : (j+1)*w]
		for i := j; i >= 0; i-- {
			ri, s := a[i*w+j+1:(i+1)*w], a[i*w+j]
			for k, v := range rj {
				s -= float64(ri[k] * v)
			}
			if i == j {
				a[j*w+j] = s
				if !(s > 0 && s <= math.MaxFloat64) {
					return j
				}
				s = math.Sqrt(s)
			} else {
				s /= a[j*w+j]
			}
			a[i*w+j] = s
		}
	}
	return -1
}

// invertSmall returns the rows of the inverse of the upper triangular r, w × w.
// Row i of U solves U·R = I from the left.
func invertSmall(r []float64, w int) [][]float64 {
	u := make([][]float64, w)
	for i := range u {
		row := make([]float64, w)
		row[i] = 1
		for j := i; j < w; j++ {
			row[j] /= r[j*w+j]
			v := row[j]
			for k := j + 1; k < w; k++ {
				row[k] -= float64(v * r[j*w+k])
			}
		}
		u[i] = row
	}
	return u
}

// Mirror copies the upper triangle of the square m to the lower, transposed.
func Mirror(m tensor.Matrix) {
	n, r := m.Rows, m.Data
	belowDiagonal(n, func(i, lo, hi int) {
		for j := lo; j < hi; j++ {
			r[i*n+j] = r[j*n+i]
		}
	})
}

// TransposeSquare puts the square m's transpose in its place.
func TransposeSquare(m tensor.Matrix) {
	n, r := m.Rows, m.Data
	belowDiagonal(n, func(i, lo, hi int) {
		for j := lo; j < hi; j++ {
			r[i*n+j], r[j*n+i] = r[j*n+i], r[i*n+j]
		}
	})
}

// belowDiagonal calls f with pieces of the rows of a square matrix, tile by tile, which
// together are all that lies below its diagonal: columns lo to hi-1 of row i.
func belowDiagonal(n int, f func(i, lo, hi int)) {
	const tile = 32 // 32 × 32 float32 of source and target fit in the first cache
	parallel.For((n+tile-1)/tile, 1, func(lo, hi int) {
		for i0 := lo * tile; i0 < min(hi*tile, n); i0 += tile {
			for j0 := 0; j0 <= i0; j0 += tile {
				for i := i0; i < min(i0+tile, n); i++ {
					f(i, j0, min(j0+tile, i))
				}
			}
		}
	})
}

// Inverse returns block b's own part of U, the inverse of that diagonal block
// of R: rows Block apart, zero below the diagonal; it aliases f.
func (f *Factor) Inverse(b int) []float32 {
	size := f.Block * f.Block
	return f.inverse[b*size : (b+1)*size : (b+1)*size]
}

// Left writes the sums over all columns left of block b,
//
//	dst[t,c] = Σ_i x[t,i]·R[i,lo+c]    i < lo = b·Block
//
// for the columns c of the block; x has N columns, dst one for each of the
// block. dst must not overlap x.
func (f *Factor) Left(dst, x tensor.Matrix, b int) {
	lo := b * f.Block
	if x.Cols != f.N || dst.Rows != x.Rows || dst.Cols != min(f.Block, f.N-lo) {
		panic(fmt.Sprintf("linalg: Left: x %d × %d, dst %d × %d for block %d of %d columns",
			x.Rows, x.Cols, dst.Rows, dst.Cols, b, f.N))
	}
	kernel.MatMulT(dst.Data, dst.Cols, x.Data, x.Cols, kernel.Source{F32: f.r.Data[lo*f.N:]}, f.N, x.Rows, dst.Cols, lo)
}
