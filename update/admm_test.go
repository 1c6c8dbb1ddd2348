package update

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// The refit's loss is within 1 % of the least-squares refit in float64 of the
// same mask, and never below it: also with fewer tokens than columns, and in
// channels that differ a hundredfold.
func TestADMMIsTheRefit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		rows, cols, tokens int
		to                 string
	}{{6, 150, 600, "50%"}, {6, 150, 600, "80%"}, {6, 150, 600, "1:5"}, {5, 300, 60, "50%"}, {5, 300, 60, "2:4"}, {1, 7, 20, "30%"}} {
		to, w, g := target(t, c.to), weightOf(rng, c.rows, c.cols), gramOf(rng, c.tokens, c.cols)
		for _, kept := range []*mask.Mask{nil, randomMask(t, rng, c.rows, c.cols, to)} {
			before, got := wide(w), wide(runBy(t, ADMM, w, g, kept, to))
			zero := func(i, j int) bool { return got[i][j] == 0 }
			h := damped(g, Damping)
			best, ours := loss(before, refit(before, h, zero), h), loss(before, got, h)
			if !(best <= ours*(1+1e-5) && ours <= 1.01*best) {
				t.Errorf("%+v: loss %v, the refit's %v", c, ours, best)
			}
		}
	}
}

// publishedADMM is Boža's algorithm as in the paper, in float64, with its two
// variables, and damping and counts as decided here.
func publishedADMM(w [][]float64, g *stats.Gram, to pattern.Target) [][]bool {
	h := damped(g, Damping)
	n, rows := len(h), len(w)
	norm := make([]float64, n)
	for j := range norm {
		norm[j] = math.Sqrt(h[j][j])
	}
	for i := range h {
		for j := range h {
			h[i][j] /= norm[i] * norm[j]
		}
	}
	xy := make([][]float64, rows)
	u := make([][]float64, rows)
	for i := range w {
		xy[i], u[i] = make([]float64, n), make([]float64, n)
		for j := range n {
			w[i][j] *= norm[j]
		}
		for j := range n {
			for k := range n {
				xy[i][j] += h[j][k] * w[i][k]
			}
		}
	}
	for j := range n {
		h[j][j]++
	}
	inv := inverse(h)
	total, _ := to.Pruned(rows, n)
	var kept [][]bool
	for it := range 20 {
		if it < 15 {
			k := int(math.Ceil(float64(total)*(1-math.Pow(1-float64(it+1)/15, 3)) - 1e-9))
			kept = largestOf(w, u, k, to)
		}
		for i := range w {
			z := make([]float64, n)
			for j := range n {
				if kept[i][j] {
					z[j] = w[i][j] + u[i][j]
				}
				u[i][j] += w[i][j] - z[j]
			}
			for j := range n {
				w[i][j] = 0
				for k := range n {
					w[i][j] += inv[j][k] * (xy[i][k] + z[k] - u[i][k])
				}
			}
		}
	}
	return kept
}

// largestOf prunes the k lowest of |w+u|, of N:M among those not its groups' best.
func largestOf(w, u [][]float64, k int, to pattern.Target) [][]bool {
	kept := make([][]bool, len(w))
	var at [][2]int
	size := func(p [2]int) float64 { return math.Abs(w[p[0]][p[1]] + u[p[0]][p[1]]) }
	less := func(at [][2]int) func(a, b int) bool {
		return func(a, b int) bool { return size(at[a]) < size(at[b]) }
	}
	for i := range w {
		kept[i] = make([]bool, len(w[i]))
		for j := range w[i] {
			kept[i][j] = true
			at = append(at, [2]int{i, j})
		}
	}
	if of := to.Pattern.Of; of != 0 {
		var low [][2]int
		for lo := 0; lo < len(at); lo += of {
			group := slices.Clone(at[lo : lo+of])
			sort.SliceStable(group, less(group))
			low = append(low, group[:of-to.Pattern.Keep]...)
		}
		at = low
	}
	sort.SliceStable(at, less(at))
	for _, p := range at[:k] {
		kept[p[0]][p[1]] = false
	}
	return kept
}

func TestADMMSelectsAsPublished(t *testing.T) {
	for _, c := range []struct {
		rows, cols int
		to         string
	}{{24, 150, "50%"}, {17, 129, "75%"}, {24, 160, "2:4"}, {16, 144, "4:8"}} {
		t.Run(fmt.Sprintf("%dx%d %s", c.rows, c.cols, c.to), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(2, uint64(c.cols)))
			g, w, to := gramOf(rng, 400, c.cols), weightOf(rng, c.rows, c.cols), target(t, c.to)
			got, want := wide(runBy(t, ADMM, w, g, nil, to)), publishedADMM(wide(w), g, to)
			bits := 0
			for i := range want {
				for j := range want[i] {
					if want[i][j] != (got[i][j] != 0) {
						bits++
					}
				}
			}
			if n := c.rows * c.cols; bits*500 > n {
				t.Errorf("%d of %d bits differ", bits, n)
			}
		})
	}
}

// It must be worth its time: closer to the dense outputs than SparseGPT, whether
// it selects or is given the mask.
func TestADMMBeatsSparseGPT(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 1))
	for _, s := range []string{"50%", "80%", "2:4"} {
		to, w, g := target(t, s), weightOf(rng, 32, 256), gramOf(rng, 600, 256)
		h := damped(g, 0)
		for _, kept := range []*mask.Mask{nil, randomMask(t, rng, 32, 256, to)} {
			ours, theirs := loss(wide(w), wide(runBy(t, ADMM, w, g, kept, to)), h), loss(wide(w), wide(run(t, w, g, kept, to)), h)
			if !(ours < theirs) {
				t.Errorf("%s, given a mask %v: loss %v, SparseGPT's %v", s, kept != nil, ours, theirs)
			}
		}
	}
}

func TestADMMCountsAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 1))
	for _, s := range []string{"0%", "29%", "33.3%", "97%", "1:4", "2:4", "4:8", "3:5"} {
		to := target(t, s)
		q := runBy(t, ADMM, weightOf(rng, 37, 320), gramOf(rng, 500, 320), nil, to)
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

// More rows than a strip has, one silent channel: what is pruned stays so.
func TestADMMKeepsTheMask(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	const rows, cols = stripRows + 9, 64
	for _, s := range []string{"60%", "2:4"} {
		to, w, g := target(t, s), weightOf(rng, rows, cols), gramOf(rng, 200, cols, 7)
		kept := randomMask(t, rng, rows, cols, to)
		before, changed := wide(w), 0
		for i, row := range wide(runBy(t, ADMM, w, g, kept, to)) {
			for j, v := range row {
				if (v != 0) != (kept.Kept(i, j) && j != 7) {
					t.Fatalf("%s: [%d, %d] is %v, kept %v", s, i, j, v, kept.Kept(i, j))
				}
				if v != 0 && v != before[i][j] {
					changed++
				}
			}
		}
		if changed < rows*cols/4 {
			t.Errorf("%s: only %d weights changed", s, changed)
		}
	}
}

func TestADMMIdentityChangesNothingKept(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 1))
	const rows, cols = 13, 384
	x := tensor.NewMatrix(cols, cols)
	for i := range cols {
		x.Row(i)[i] = 1
	}
	for _, s := range []string{"50%", "2:4"} {
		to, w := target(t, s), weightOf(rng, rows, cols)
		for _, kept := range []*mask.Mask{nil, randomMask(t, rng, rows, cols, to)} {
			q := wide(runBy(t, ADMM, w, gramFrom(x), kept, to))
			for i, row := range wide(w) {
				for j, v := range row {
					// A given mask leaves every bit; ADMM's own V is rounded.
					tol := 0.0
					if kept == nil {
						tol = 1e-5 * math.Abs(v)
					}
					if q[i][j] != 0 && !(math.Abs(q[i][j]-v) <= tol) {
						t.Fatalf("%s: [%d, %d] was %v, is %v", s, i, j, v, q[i][j])
					}
				}
			}
		}
	}
}

func TestADMMDoesNotDependOnThreads(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 1))
	w, g := weightOf(rng, 70, 300), gramOf(rng, 400, 300)
	kept := randomMask(t, rng, 70, 300, target(t, "55%"))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var first []byte
	for _, threads := range []int{1, 2, 5} {
		runtime.GOMAXPROCS(threads)
		got := slices.Concat(runBy(t, ADMM, w, g, nil, target(t, "55%")).Bytes(), runBy(t, ADMM, w, g, kept, target(t, "55%")).Bytes())
		if first == nil {
			first = got
		}
		if !slices.Equal(got, first) {
			t.Errorf("%d threads differ from one", threads)
		}
	}
}

func TestADMMBadWeights(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 1))
	p, err := ADMM.Prepare(gramOf(rng, 200, 64), pattern.Pattern{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		w := weightOf(rng, 5, 64)
		w.SetRow(3, 17, []float32{float32(v)})
		err := p.Run(t.Context(), w, nil, target(t, "50%"), make([]float32, 5*64))
		if err == nil || !strings.Contains(err.Error(), "weight [3, 17]") {
			t.Errorf("%v: %v", v, err)
		}
	}
	x := tensor.NewMatrix(3, 2)
	copy(x.Data, []float32{1, 1, 1, 1, 2, 2})
	w := tensor.NewWeight(tensor.F16, 1, 2)
	w.SetRow(0, 0, []float32{50000, 60000})
	if p, err = ADMM.Prepare(gramFrom(x), pattern.Pattern{}, nil); err != nil {
		t.Fatal(err)
	}
	err = p.Run(t.Context(), w, nil, target(t, "50%"), make([]float32, 2))
	if err == nil || !strings.Contains(err.Error(), "updated weight [0, 1]") {
		t.Errorf("got %v, want an error at [0, 1]", err)
	}
}

// Whatever the type that weights are stored in, what is written is the float32
// result of the same weights, rounded.
func TestTypesOfWeights(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 1))
	const rows, cols = 9, 140
	g, to := gramOf(rng, 300, cols), target(t, "2:4")
	for _, m := range Methods() {
		for _, d := range []tensor.DType{tensor.BF16, tensor.F16} {
			w, same := tensor.NewWeight(d, rows, cols), tensor.NewWeight(tensor.F32, rows, cols)
			want, row := tensor.NewWeight(d, rows, cols), make([]float32, cols)
			for i := range rows {
				for j := range row {
					row[j] = float32(rng.NormFloat64())
				}
				w.SetRow(i, 0, row)
				w.Row(row, i)
				same.SetRow(i, 0, row)
			}
			kept := randomMask(t, rng, rows, cols, to)
			exact := runBy(t, m, same, g, kept, to)
			for i := range rows {
				exact.Row(row, i)
				want.SetRow(i, 0, row)
			}
			if got := runBy(t, m, w, g, kept, to); !slices.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("%s, %v: not the float32 result, rounded", m.Name, d)
			}
		}
	}
}

// An end of the context ends a run.
func TestRunStops(t *testing.T) {
	rng := rand.New(rand.NewPCG(10, 1))
	g, to := gramOf(rng, 200, 64), target(t, "2:4")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, m := range Methods() {
		p, err := m.Prepare(g, to.Pattern, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, kept := range []*mask.Mask{nil, randomMask(t, rng, 8, 64, to)} {
			if err := p.Run(ctx, weightOf(rng, 8, 64), kept, to, make([]float32, 8*64)); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v, want context.Canceled", m.Name, err)
			}
		}
	}
}
