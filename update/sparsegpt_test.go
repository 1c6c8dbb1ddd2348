package update

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/linalg"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// TestEqualsPublished: the same mask and, to rounding, the same weights as the
// algorithm written as in the paper, across several blocks and a ragged last.
// Float32 may decide a near tie otherwise, and what follows it then differs: at
// most 0.2 % of the bits, and then the loss is what must agree.
func TestEqualsPublished(t *testing.T) {
	for _, c := range []struct {
		rows, cols int
		to         string
	}{{40, 300, "50%"}, {17, 129, "70%"}, {24, 320, "2:4"}, {24, 264, "4:8"}, {9, 270, "2:9"}, {3, 600, "5:200"}, {8, 40, "0%"}} {
		t.Run(fmt.Sprintf("%dx%d %s", c.rows, c.cols, c.to), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, uint64(c.cols)))
			g, w, to := gramOf(rng, 400, c.cols, 5, c.cols-1), weightOf(rng, c.rows, c.cols), target(t, c.to)
			got := wide(run(t, w, g, nil, to))
			want := published(wide(w), g, nil, to)
			bits, worst := 0, 0.0
			for i := range want {
				for j := range want[i] {
					if (got[i][j] == 0) != (want[i][j] == 0) {
						bits++
					} else {
						worst = max(worst, math.Abs(got[i][j]-want[i][j]))
					}
				}
			}
			h := damped(g, 0)
			a, b := loss(wide(w), got, h), loss(wide(w), want, h)
			if n := c.rows * c.cols; bits*500 > n || bits == 0 && worst > 1e-3 || !(math.Abs(a-b) <= 2e-3*b+1e-9) {
				t.Errorf("%d of %d bits differ, weights by %.2g, loss %.6g, want %.6g", bits, n, worst, a, b)
			}
		})
	}
}

func TestCountsAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 0))
	for _, s := range []string{"0%", "29%", "33.3%", "50%", "97%", "1:4", "2:4", "4:8", "3:5"} {
		to := target(t, s)
		w := weightOf(rng, 37, 320)
		q := run(t, w, gramOf(rng, 500, 320), nil, to)
		want, err := to.Pruned(37, 320)
		if err != nil {
			t.Fatal(err)
		}
		if got := countZeros(wide(q)); got != want {
			t.Errorf("%s: %d zeros, want %d", s, got, want)
		}
		if err := mask.NonZero(q).Verify(to, mask.AtLeast); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// A given mask stays what it is: pruned weights are zero, kept ones change.
func TestGivenMaskHolds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	for _, s := range []string{"60%", "2:4", "3:10"} {
		const rows, cols = 11, 290
		to := target(t, s)
		if to.Pattern.Of == 4 {
			to.Pattern = pattern.Pattern{Keep: 1, Of: 2}
		}
		w, g, kept := weightOf(rng, rows, cols), gramOf(rng, 400, cols, 7), randomMask(t, rng, rows, cols, to)
		before, after := wide(w), wide(run(t, w, g, kept, to))
		want := published(wide(w), g, kept, to)
		changed := 0
		for i := range after {
			for j, v := range after[i] {
				if (!kept.Kept(i, j) || j == 7) && v != 0 {
					t.Fatalf("%s: [%d, %d] is %v, want 0", s, i, j, v)
				}
				if v != before[i][j] {
					changed++
				}
				if !(math.Abs(v-want[i][j]) <= 1e-3) {
					t.Fatalf("%s: [%d, %d] is %v, want %v", s, i, j, v, want[i][j])
				}
			}
		}
		if changed < rows*cols*8/10 {
			t.Errorf("%s: only %d weights changed", s, changed)
		}
	}
}

// With inputs that do not correlate nothing can make up for a weight.
func TestIdentityChangesNothingKept(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 0))
	const rows, cols = 13, 384
	x := tensor.NewMatrix(cols, cols)
	for i := range cols {
		x.Row(i)[i] = 1
	}
	for _, s := range []string{"50%", "2:4"} {
		to := target(t, s)
		w := weightOf(rng, rows, cols)
		for _, kept := range []*mask.Mask{nil, randomMask(t, rng, rows, cols, to)} {
			q := wide(run(t, w, gramFrom(x), kept, to))
			for i, row := range wide(w) {
				for j, v := range row {
					if q[i][j] != 0 && q[i][j] != v {
						t.Fatalf("%s: [%d, %d] was %v, is %v", s, i, j, v, q[i][j])
					}
				}
			}
		}
	}
}

// Between doing nothing and the least-squares refit of the same mask.
func TestBetweenNothingAndRefit(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 0))
	const rows, cols = 6, 150
	for _, s := range []string{"50%", "80%", "1:5"} {
		to := target(t, s)
		w, g := weightOf(rng, rows, cols), gramOf(rng, 600, cols)
		for _, kept := range []*mask.Mask{nil, randomMask(t, rng, rows, cols, to)} {
			got, before := wide(run(t, w, g, kept, to)), wide(w)
			zero := func(i, j int) bool { return got[i][j] == 0 }
			masked := wide(w)
			for i := range masked {
				for j := range masked[i] {
					if zero(i, j) {
						masked[i][j] = 0
					}
				}
			}
			h := damped(g, dampings[0])
			best, ours, none := loss(before, refit(before, h, zero), h), loss(before, got, h), loss(before, masked, h)
			if !(best <= ours*(1+1e-5) && ours < none) {
				t.Errorf("%s: loss %v, want between the refit's %v and the mask's alone, %v", s, ours, best, none)
			}
		}
	}
}

func TestDoesNotDependOnThreads(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 0))
	x := tensor.NewMatrix(300, 530)
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	w := weightOf(rng, 70, 530)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var first []byte
	for _, threads := range []int{1, 2, 5} {
		runtime.GOMAXPROCS(threads)
		got := run(t, w, gramFrom(x), nil, target(t, "55%")).Bytes()
		if first == nil {
			first = slices.Clone(got)
		}
		if !slices.Equal(got, first) {
			t.Errorf("%d threads differ from one", threads)
		}
	}
}

// x with float32 products that are not those of any matrix of activations: an
// indefinite Gram cannot come from Add, so a nearly singular one stands in for
// the second damping, and none for the error.
func TestDampingIsReported(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 0))
	f, err := Factorize(gramOf(rng, 40, 200), pattern.Pattern{})
	if err != nil || f.Damping != dampings[0] {
		t.Fatalf("fewer tokens than columns: damping %v, %v", f.Damping, err)
	}
	x := tensor.NewMatrix(1, 4)
	copy(x.Data, []float32{1, 2, 3, float32(math.NaN())})
	_, err = Factorize(gramFrom(x), pattern.Pattern{})
	var not *linalg.NotPositiveDefiniteError
	if !errors.As(err, &not) || not.Damping != dampings[1] || not.Pivot != 3 {
		t.Errorf("got %v, want a NotPositiveDefiniteError at pivot 3 with damping %v", err, dampings[1])
	}
}

func TestBadWeights(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 0))
	g := gramOf(rng, 200, 64)
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, s := range []string{"50%", "2:4"} {
			w := weightOf(rng, 5, 64)
			w.SetRow(3, 17, []float32{float32(v)})
			f, err := Factorize(g, target(t, s).Pattern)
			if err != nil {
				t.Fatal(err)
			}
			err = f.Run(t.Context(), w, nil, target(t, s), make([]float32, 5*64))
			if err == nil || !strings.Contains(err.Error(), "weight [3, 17]") {
				t.Errorf("%v at %s: %v", v, s, err)
			}
		}
	}
}

// What is too large for the type is an error, not infinite.
func TestOverflowIsAnError(t *testing.T) {
	x := tensor.NewMatrix(3, 2)
	copy(x.Data, []float32{1, 1, 1, 1, 2, 2})
	w := tensor.NewWeight(tensor.F16, 1, 2)
	w.SetRow(0, 0, []float32{50000, 60000})
	f, err := Factorize(gramFrom(x), pattern.Pattern{})
	if err != nil {
		t.Fatal(err)
	}
	err = f.Run(t.Context(), w, nil, target(t, "50%"), make([]float32, 2))
	if err == nil || !strings.Contains(err.Error(), "updated weight [0, 1]") {
		t.Errorf("got %v, want an error at [0, 1]", err)
	}
}

func TestLookup(t *testing.T) {
	if m, err := Lookup("sparsegpt"); err != nil || m.Name != "sparsegpt" {
		t.Errorf("sparsegpt: %+v, %v", m, err)
	}
	if _, err := Lookup("obs"); err == nil || !strings.Contains(err.Error(), `unknown update "obs", want one of sparsegpt`) {
		t.Errorf("obs: %v", err)
	}
}

// Channels that differ by 10⁴ (their squares by 10⁸, beyond float32's digits)
// and fewer tokens than columns: only the damping keeps H regular. The sweep of a
// given mask must lose as little as the published algorithm in float64.
func TestIllConditionedGram(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 0))
	const rows, cols, tokens = 12, 400, 60
	x := tensor.NewMatrix(tokens, cols)
	for t := range tokens {
		carry := 0.0
		for j := range cols {
			carry = 0.9*carry + rng.NormFloat64()
			x.Row(t)[j] = float32(carry * math.Pow(1e4, float64((j*7)%cols)/cols))
		}
	}
	g, to := gramFrom(x), target(t, "60%")
	w, kept := weightOf(rng, rows, cols), randomMask(t, rng, rows, cols, to)
	h := damped(g, Damping)
	want := loss(wide(w), published(wide(w), g, kept, to), h)
	if got := loss(wide(w), wide(run(t, w, g, kept, to)), h); !(math.Abs(got-want) <= 1e-4*want) {
		t.Errorf("sparsegpt: loss %v, want %v", got, want)
	}
	best := loss(wide(w), refit(wide(w), h, func(i, j int) bool { return !kept.Kept(i, j) }), h)
	if got := loss(wide(w), wide(runBy(t, ADMM, w, g, kept, to)), h); !(best <= got*(1+1e-5) && got <= 1.01*best) {
		t.Errorf("admm: loss %v, the refit's %v", got, best)
	}
}
