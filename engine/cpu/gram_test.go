package cpu

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Against float64 sums, over panels and chunks of tokens that do not divide.
// Float32 sums of at most gramTokens products, summed in float64.
func TestGramIsTheSecondMoment(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 0))
	for _, cols := range []int{1, 5, 256, 259, 530} {
		a := newAccumulator(cols, stats.Needs{Gram: true})
		sum, size := make([]float64, cols*cols), make([]float64, cols*cols)
		tokens := []int{33, 0, 1, 40}
		if cols == 5 {
			tokens = append(tokens, gramTokens+7)
		}
		for _, n := range tokens {
			x := tensor.NewMatrix(n, cols)
			for i := range x.Data {
				x.Data[i] = float32(rng.NormFloat64())
			}
			a.add(x)
			for r := range n {
				for i, v := range x.Row(r) {
					for j, u := range x.Row(r) {
						sum[i*cols+j] += float64(v) * float64(u)
						size[i*cols+j] += math.Abs(float64(v) * float64(u))
					}
				}
			}
		}
		g := a.Input(4).Gram
		upper := tensor.NewMatrix(cols, cols)
		g.Upper(upper)
		for i := range cols {
			for j := range cols {
				want, tol := sum[i*cols+j]/2, gramTokens*0x1p-24*size[i*cols+j]/2
				if got := g.At(i, j); !(math.Abs(got-want) <= tol) || got != g.At(j, i) {
					t.Fatalf("%d columns: H[%d,%d] = %v, want %v ± %v", cols, i, j, got, want, tol)
				}
				if i <= j && upper.Row(i)[j] != float32(g.At(i, j)) || i > j && upper.Row(i)[j] != 0 {
					t.Fatalf("%d columns: Upper[%d,%d] = %v", cols, i, j, upper.Row(i)[j])
				}
			}
		}
	}
}

func TestGramDoesNotDependOnThreads(t *testing.T) {
	x := randomInputs(rand.New(rand.NewPCG(7, 0)), 70, 700)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var first [][]float64
	for _, threads := range []int{1, 2, 5} {
		runtime.GOMAXPROCS(threads)
		a := newAccumulator(700, stats.Needs{Gram: true})
		a.add(x)
		if first == nil {
			first = a.gram.panel
		}
		for p := range first {
			if !slices.Equal(first[p], a.gram.panel[p]) {
				t.Errorf("%d threads differ from one in panel %d", threads, p)
			}
		}
	}
}

// A square beyond float32 is found although ColSq is finite.
func TestGramCheckNamesTheChannel(t *testing.T) {
	x := tensor.NewMatrix(1, 3)
	x.Data[1] = 1e30
	a := newAccumulator(3, stats.Needs{Gram: true})
	a.add(x)
	if err := a.Input(1).Check(); err == nil || !strings.Contains(err.Error(), "input channel 1: diagonal of the Gram matrix is +Inf") {
		t.Errorf("got %v", err)
	}
	if got := newAccumulator(3, stats.Needs{Gram: true}).Input(1).Gram.At(1, 2); got != 0 {
		t.Errorf("without tokens H is %v, want 0", got)
	}
}
