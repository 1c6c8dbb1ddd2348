package linalg

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/tensor"
)

// gram returns XᵀX of correlated columns whose sizes span scale, and damping.
func gram(rng *rand.Rand, n int, scale, damping float64) ([]float64, tensor.Matrix) {
	x := make([]float64, n*n)
	for t := range n {
		carry := 0.0
		for j := range n {
			carry = 0.9*carry + rng.NormFloat64()
			x[j*n+t] = carry * math.Pow(scale, float64((j*7)%n)/float64(n))
		}
	}
	h, mean := make([]float64, n*n), 0.0
	for i := range n {
		for j := range n {
			for t := range n {
				h[i*n+j] += x[i*n+t] * x[j*n+t]
			}
		}
		mean += h[i*n+i] / float64(n)
	}
	m := tensor.NewMatrix(n, n)
	for i := range n {
		h[i*n+i] += damping * mean
		for j := i; j < n; j++ {
			m.Data[i*n+j] = float32(h[i*n+j])
		}
	}
	return h, m
}

// By hand: [[5 2] [2 4]] = R·Rᵀ with R = [[2 1] [0 2]].
func TestByHand(t *testing.T) {
	f, err := Factorize(tensor.Matrix{Rows: 2, Cols: 2, Data: []float32{5, 2, -1, 4}}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := []float32{2, 1, 1, 2}; !slices.Equal(f.r.Data, want) {
		t.Errorf("R and its mirror: %v, want %v", f.r.Data, want)
	}
	if want := []float32{0.5, -0.25, 0, 0.5}; !slices.Equal(f.Inverse(0), want) {
		t.Errorf("U: %v, want %v", f.Inverse(0), want)
	}
}

// R·Rᵀ gives H back, also where channels differ by 10⁴ (their squares by 10⁸,
// beyond float32's digits) and only the damping keeps H regular. Each entry is
// a sum of at most n products; two roundings each for storing H and R.
func TestProductIsH(t *testing.T) {
	for _, c := range []struct {
		n, block int
		scale    float64
	}{{1, 4, 1}, {7, 3, 10}, {96, 32, 1e4}, {130, 128, 1e4}, {300, 128, 100}} {
		rng := rand.New(rand.NewPCG(1, uint64(c.n)))
		h, m := gram(rng, c.n, c.scale, 1e-5)
		f, err := Factorize(m, c.block)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		n := c.n
		for i := range n {
			for j := i; j < n; j++ {
				sum := 0.0
				for k := j; k < n; k++ {
					sum += float64(f.r.Data[i*n+k]) * float64(f.r.Data[j*n+k])
				}
				tol := float64(n+8) * 0x1p-24 * math.Sqrt(h[i*n+i]*h[j*n+j])
				if !(math.Abs(sum-h[i*n+j]) <= tol) {
					t.Fatalf("%+v: H[%d,%d] = %v, want %v ± %v", c, i, j, sum, h[i*n+j], tol)
				}
				if f.r.Data[i*n+j] != f.r.Data[j*n+i] {
					t.Fatalf("%+v: [%d,%d] is not mirrored", c, i, j)
				}
			}
		}
	}
}

func TestNotPositiveDefinite(t *testing.T) {
	for _, v := range []float32{-1, 0, float32(math.NaN()), float32(math.Inf(1))} {
		m := tensor.NewMatrix(9, 9)
		for i := range 9 {
			m.Data[i*10] = 1
		}
		m.Data[5*10] = v
		_, err := Factorize(m, 4)
		var not *NotPositiveDefiniteError
		if !errors.As(err, &not) || not.Pivot != 5 || !strings.Contains(err.Error(), "pivot 5") {
			t.Errorf("%v: got %v, want pivot 5", v, err)
		}
	}
}

func TestDoesNotDependOnThreads(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var first []float32
	for _, threads := range []int{1, 2, 5} {
		runtime.GOMAXPROCS(threads)
		_, m := gram(rand.New(rand.NewPCG(2, 0)), 200, 100, 0.01)
		f, err := Factorize(m, 64)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = f.r.Data
		}
		if !slices.Equal(f.r.Data, first) {
			t.Errorf("%d threads differ from one", threads)
		}
	}
}
