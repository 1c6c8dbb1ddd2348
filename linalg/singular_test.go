package linalg

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"gonum.org/v1/gonum/mat"

	"github.com/crepe-llm/crepe/tensor"
)

// TestSquaredSingularValues holds them to gonum's SVD of the matrix itself: the
// square of each within n·2⁻⁵⁰ of the greatest.
func TestSquaredSingularValues(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	rng := rand.New(rand.NewPCG(1, 0))
	for _, shape := range [][2]int{{1, 1}, {1, 9}, {5, 5}, {64, 40}, {37, 300}, {530, 41}, {130, 130}} {
		rows, cols := shape[0], shape[1]
		for _, dtype := range []tensor.DType{tensor.F32, tensor.BF16} {
			w := tensor.NewWeight(dtype, rows, cols)
			dense := mat.NewDense(rows, cols, nil)
			row := make([]float32, cols)
			for i := range rows {
				for j := range row {
					row[j] = float32(rng.NormFloat64() * math.Exp(rng.NormFloat64()))
				}
				w.SetRow(i, 0, row)
				w.Row(row, i)
				for j, v := range row {
					dense.Set(i, j, float64(v))
				}
			}
			var svd mat.SVD
			if !svd.Factorize(dense, mat.SVDNone) {
				t.Fatal("no SVD")
			}
			want := svd.Values(nil)
			slices.Reverse(want)
			var first []float64
			for _, threads := range []int{1, 2, 5} {
				runtime.GOMAXPROCS(threads)
				got, err := SquaredSingularValues(w)
				if err != nil || len(got) != len(want) {
					t.Fatalf("%d × %d: %d values, %v", rows, cols, len(got), err)
				}
				if first == nil {
					first = got
				}
				if !slices.Equal(got, first) {
					t.Errorf("%d × %d: %d threads differ from one", rows, cols, threads)
				}
				n := len(want)
				tol := float64(n+cols) * 0x1p-50 * want[n-1] * want[n-1]
				for i := range want {
					if !(math.Abs(got[i]-want[i]*want[i]) <= tol) {
						t.Fatalf("%d × %d %v: value %d is %v, want %v ± %v", rows, cols, dtype, i, got[i], want[i]*want[i], tol)
					}
				}
			}
		}
	}
}

func TestSquaredSingularValuesNameABadWeight(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(-1)} {
		w := tensor.NewWeight(tensor.F32, 6, 9)
		w.SetRow(4, 7, []float32{float32(v)})
		if _, err := SquaredSingularValues(w); err == nil || !strings.Contains(err.Error(), "[4, 7]") {
			t.Errorf("%v: %v, want an error that names [4, 7]", v, err)
		}
	}
}

// benchWeight returns n × n normal weights.
func benchWeight(n int) *tensor.Weight {
	rng := rand.New(rand.NewPCG(3, 0))
	w := tensor.NewWeight(tensor.BF16, n, n)
	row := make([]float32, n)
	for i := range n {
		for j := range row {
			row[j] = float32(rng.NormFloat64())
		}
		w.SetRow(i, 0, row)
	}
	return w
}
