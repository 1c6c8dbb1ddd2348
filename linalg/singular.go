package linalg

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/blas"
	"gonum.org/v1/gonum/blas/blas64"
	"gonum.org/v1/gonum/lapack"
	"gonum.org/v1/gonum/lapack/lapack64"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// SingularBytes returns what SquaredSingularValues holds for a rows × cols weight.
func SingularBytes(rows, cols int) int64 {
	n, k := int64(min(rows, cols)), int64(max(rows, cols))
	return 8 * (n*n + n*min(k, gramDepth))
}

// SquaredSingularValues returns the squares of the singular values of w,
// ascending, as the eigenvalues of W·Wᵀ or Wᵀ·W, whichever is smaller:
// min(out, in) of them. All in float64: the absolute error is some n·2⁻⁵³ of the
// greatest, and a value that would be negative is 0. The result does not depend on
// GOMAXPROCS. A weight that is NaN or infinite is an error that names its position.
func SquaredSingularValues(w *tensor.Weight) ([]float64, error) {
	n := min(w.Rows, w.Cols)
	if n == 0 {
		return nil, nil
	}
	g, err := smallerGram(w)
	if err != nil {
		return nil, err
	}
	values := make([]float64, n)
	a := blas64.Symmetric{N: n, Stride: n, Data: g, Uplo: blas.Lower}
	size := make([]float64, 1)
	lapack64.Syev(lapack.EVNone, a, values, size, -1)
	work := make([]float64, int(size[0]))
	if !lapack64.Syev(lapack.EVNone, a, values, work, len(work)) {
		return nil, fmt.Errorf("the eigenvalues of a %d × %d matrix do not converge", n, n)
	}
	for i, v := range values {
		values[i] = max(v, 0)
	}
	return values, nil
}

// gramDepth is how many columns of the longer side are multiplied at once:
// 2 KiB of each row.
const gramDepth = 256

// smallerGram returns the lower triangle of A·Aᵀ, A being w or its transpose,
// whichever has fewer rows; what is above the diagonal is of no use.
func smallerGram(w *tensor.Weight) ([]float64, error) {
	n, depth := w.Rows, w.Cols
	if w.Cols < w.Rows {
		n, depth = depth, n
	}
	g := make([]float64, n*n)
	a := make([]float64, n*min(depth, gramDepth))
	for lo := 0; lo < depth; lo += gramDepth {
		k := min(gramDepth, depth-lo)
		if w.Cols < w.Rows {
			transposedRows(a, w, lo, k)
		} else {
			columns(a, w, lo, k)
		}
		addProducts(g, a, n, k)
	}
	for i := range n {
		if v := g[i*n+i]; math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, notFinite(w)
		}
	}
	return g, nil
}

// columns writes columns lo to lo+k-1 of w to a, k a row.
func columns(a []float64, w *tensor.Weight, lo, k int) {
	parallel.For(w.Rows, 64, func(i0, i1 int) {
		row := make([]float32, w.Cols)
		for i := i0; i < i1; i++ {
			w.Row(row, i)
			for j, v := range row[lo : lo+k] {
				a[i*k+j] = float64(v)
			}
		}
	})
}

// transposedRows writes rows lo to lo+k-1 of w to a as columns, k a row of a.
func transposedRows(a []float64, w *tensor.Weight, lo, k int) {
	const strip = 8 // of rows of w: a cache line of a
	parallel.For((k+strip-1)/strip, 1, func(s, _ int) {
		row := make([]float32, w.Cols)
		for t := s * strip; t < min((s+1)*strip, k); t++ {
			w.Row(row, lo+t)
			for j, v := range row {
				a[j*k+t] = float64(v)
			}
		}
	})
}

// addProducts adds a·aᵀ to the lower triangle of g, n × n, by tiles of 4 × 4
// sums that stay in registers.
func addProducts(g, a []float64, n, k int) {
	const tile, strip = 4, 32
	parallel.For((n+strip-1)/strip, 1, func(s, _ int) {
		for i := s * strip; i < min((s+1)*strip, n); i += tile {
			for j := 0; j <= i; j += tile {
				if i+tile > n || j+tile > n {
					for r := i; r < min(i+tile, n); r++ {
						for c := j; c < min(j+tile, n); c++ {
							g[r*n+c] += dot(a[r*k:(r+1)*k], a[c*k:(c+1)*k])
						}
					}
					continue
				}
				addTile(g[i*n+j:], a[i*k:(i+tile)*k], a[j*k:(j+tile)*k], n, k)
			}
		}
	})
}

func dot(x, y []float64) float64 {
	s := 0.0
	for i, v := range x {
		s += float64(v * y[i])
	}
	return s
}

// addTile adds the 4 × 4 dot products of four rows of x with four of y, k each,
// to g, whose rows are n apart.
func addTile(g, x, y []float64, n, k int) {
	x0, x1, x2, x3 := x[:k], x[k:2*k], x[2*k:3*k], x[3*k:4*k]
	for h := 0; h < 4; h += 2 { // eight sums and six operands: the sixteen registers
		y0, y1 := y[h*k:(h+1)*k], y[(h+1)*k:(h+2)*k]
		var s00, s01, s10, s11, s20, s21, s30, s31 float64
		for t, b0 := range y0 {
			b1, a0, a1, a2, a3 := y1[t], x0[t], x1[t], x2[t], x3[t]
			s00 += float64(a0 * b0)
			s01 += float64(a0 * b1)
			s10 += float64(a1 * b0)
			s11 += float64(a1 * b1)
			s20 += float64(a2 * b0)
			s21 += float64(a2 * b1)
			s30 += float64(a3 * b0)
			s31 += float64(a3 * b1)
		}
		for r, s := range [4][2]float64{{s00, s01}, {s10, s11}, {s20, s21}, {s30, s31}} {
			g[r*n+h] += s[0]
			g[r*n+h+1] += s[1]
		}
	}
}

// notFinite names the first weight of w that is NaN or infinite.
func notFinite(w *tensor.Weight) error {
	row := make([]float32, w.Cols)
	for i := range w.Rows {
		w.Row(row, i)
		for j, v := range row {
			if !(math.Abs(float64(v)) <= math.MaxFloat32) {
				return fmt.Errorf("weight [%d, %d] is %v, want a finite number", i, j, v)
			}
		}
	}
	return fmt.Errorf("a sum of squared weights of a %d × %d matrix does not fit in float64", w.Rows, w.Cols)
}
