package allocate

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
)

func sparsity(t *testing.T, s string) pattern.Sparsity {
	t.Helper()
	p, err := pattern.ParseSparsity(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// By hand. OWL: measures 0, 1/2, 1 keep 0, 0.08, 0.16 more than c; their mean is
// 0.08, so pruned are 0.5+0.08, 0.5, 0.5−0.08. DLP: importances of 1, 2, 3 are
// 5/6, 4/6, 3/6, which keep 0.3, 0.15, 0. AlphaPruning: 0.7, 1, 1.3 of 0.5.
func TestSharesByHand(t *testing.T) {
	for _, c := range []struct {
		m        Method
		measures [3]float64
		want     [3]float64
	}{
		{OWL, [3]float64{0, 0.5, 1}, [3]float64{0.58, 0.5, 0.42}},
		{DLP, [3]float64{1, 2, 3}, [3]float64{0.35, 0.5, 0.65}},
		{AlphaPruning, [3]float64{2, 3, 4}, [3]float64{0.35, 0.5, 0.65}},
	} {
		var blocks []Block
		for _, v := range c.measures {
			blocks = append(blocks, Block{Weights: 100, Measure: v})
		}
		if uniform, err := c.m.Allocate(blocks, sparsity(t, "50%"), c.m.Defaults()); uniform || err != nil {
			t.Fatalf("%s: uniform %v, error %v", c.m.Name, uniform, err)
		}
		for i, b := range blocks {
			if !(math.Abs(b.Sparsity-c.want[i]) <= 1e-14) || b.Share.Float64() != b.Sparsity {
				t.Errorf("%s: block %d gets %v (%v), want %v", c.m.Name, i, b.Sparsity, b.Share, c.want[i])
			}
		}
	}
}

// TestTotalIsExact: blocks of any sizes and measures, at the floor or not.
func TestTotalIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	floors := 0
	for range 2000 {
		m := Methods()[1+rng.IntN(3)]
		p := float64(1+rng.IntN(50)) / 100
		blocks := make([]Block, 1+rng.IntN(9))
		total := 0
		for i := range blocks {
			blocks[i] = Block{Weights: rng.IntN(1000) * rng.IntN(1000), Measure: rng.Float64() + 0.1}
			total += blocks[i].Weights
		}
		target, err := pattern.Round(p)
		if err != nil {
			t.Fatal(err)
		}
		params := m.Defaults()
		params["alphapruning_epsilon"] = 0.1 // AlphaPruning has no floor, and leaves [0, 1) soon
		if _, err := m.Allocate(blocks, target, params); err != nil {
			t.Fatal(err)
		}
		pruned := 0.0
		for i, b := range blocks {
			pruned += float64(b.Weights) * b.Sparsity
			if b.Sparsity < min(p, minShare) && b.Weights > 0 && m.Name != AlphaPruning.Name {
				t.Fatalf("%s: block %d gets %v, below the floor", m.Name, i, b.Sparsity)
			}
			if b.Sparsity == minShare {
				floors++
			}
		}
		if want := p * float64(total); !(math.Abs(pruned-want) <= 1e-9*float64(total)+1e-9) {
			t.Fatalf("%s at %v: %v of %d pruned, want %v: %+v", m.Name, p, pruned, total, want, blocks)
		}
	}
	if floors == 0 {
		t.Error("no block came to the floor")
	}
}

func TestNothingToTellApart(t *testing.T) {
	for _, m := range Methods() {
		for _, blocks := range [][]Block{{{Weights: 10, Measure: 2}}, {{Weights: 10, Measure: 2}, {Weights: 7, Measure: 2}, {}}} {
			if m.FromPlace != nil && len(blocks) > 1 {
				continue // places differ
			}
			uniform, err := m.Allocate(blocks, sparsity(t, "30%"), m.Defaults())
			if !uniform || err != nil || blocks[0].Share != sparsity(t, "30%") {
				t.Errorf("%s: uniform %v, error %v, %+v", m.Name, uniform, err, blocks)
			}
		}
	}
}

func TestShareOutsideNamesBlockAndValue(t *testing.T) {
	blocks := []Block{{Weights: 10, Measure: 1}, {Weights: 10, Measure: 2}}
	for _, c := range []struct {
		m    Method
		want string
	}{
		{OWL, "block 0 would have 1.03"}, {DLP, "block 1 would have 1.1"}, {AlphaPruning, "block 1 would have 1.235"},
	} {
		_, err := c.m.Allocate(blocks, sparsity(t, "95%"), c.m.Defaults())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error with %q", c.m.Name, err, c.want)
		}
	}
	blocks[1].Measure = math.NaN()
	if _, err := OWL.Allocate(blocks, sparsity(t, "50%"), OWL.Defaults()); err == nil || !strings.Contains(err.Error(), "block 1") {
		t.Errorf("NaN: %v, want an error that names block 1", err)
	}
}

// parts is a block whose Linears have these scores.
func parts(x ...[]float32) Scores {
	return func(f func(s []float32)) error {
		for _, p := range x {
			f(p)
		}
		return nil
	}
}

// By hand: of 1, 1, 1, 1, 6 the mean is 2, and one of five is above 2.9 of it.
func TestMeasuresByHand(t *testing.T) {
	s := parts([]float32{1, 6}, nil, []float32{1, 1, 1})
	if v, err := outliers(s, param.Values{"owl_m": 2.9}); v != 0.2 || err != nil {
		t.Errorf("outliers: %v (%v), want 0.2", v, err)
	}
	if v, _ := outliers(s, param.Values{"owl_m": 3.}); v != 0 { // not above
		t.Errorf("outliers: %v, want 0", v)
	}
	if v, err := center(s, param.Values{"dlp_center": Mean}); v != 2 || err != nil {
		t.Errorf("mean: %v (%v), want 2", v, err)
	}
	if v, err := center(s, param.Values{"dlp_center": Median}); v != 1 || err != nil {
		t.Errorf("median: %v (%v), want 1", v, err)
	}
	for _, p := range []param.Values{{"dlp_center": Mean}, {"dlp_center": Median}} {
		if v, _ := center(parts(), p); !math.IsNaN(v) {
			t.Errorf("%s of nothing: %v, want NaN", p["dlp_center"], v)
		}
	}
}

// TestMeasuresOfMany holds sums, counts and medians over many runs and threads
// to plain code.
func TestMeasuresOfMany(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	rng := rand.New(rand.NewPCG(2, 0))
	x := make([]float32, 3*run*16+77)
	sum := 0.0
	for i := range x {
		x[i] = float32(math.Exp(2 * rng.NormFloat64()))
		sum += float64(x[i])
	}
	mean := sum / float64(len(x))
	above := 0
	for _, v := range x {
		if float64(v) > 5*mean {
			above++
		}
	}
	sorted := slices.Sorted(slices.Values(x))
	s := parts(x[:100], x[100:200001], x[200001:])
	for _, threads := range []int{1, 3} {
		runtime.GOMAXPROCS(threads)
		if v, _ := outliers(s, OWL.Defaults()); v != float64(above)/float64(len(x)) {
			t.Errorf("outliers %v, want %v", v, float64(above)/float64(len(x)))
		}
		if v, _ := center(s, DLP.Defaults()); !(math.Abs(v-mean) <= 1e-12*mean) {
			t.Errorf("mean %v, want %v", v, mean)
		}
		if v, _ := center(s, param.Values{"dlp_center": Median}); v != float64(sorted[(len(x)-1)/2]) {
			t.Errorf("median %v, want %v", v, sorted[(len(x)-1)/2])
		}
	}
}

// A spectrum that is a power law from 1 on has its exponent: for l_k of
// probability density (α−1)·l^(−α) the k-th of n is (1 − k/n)^(−1/(α−1)).
func TestPowerLawIsFound(t *testing.T) {
	for _, alpha := range []float64{1.5, 2, 3} {
		var l []float64
		const n = 2000
		for k := range n {
			l = append(l, math.Pow(1-(float64(k)+0.5)/n, -1/(alpha-1)))
		}
		if got := powerLaw(l); !(math.Abs(got-alpha) <= 0.01*alpha) {
			t.Errorf("α %v, want %v", got, alpha)
		}
		if got := powerLaw(append(make([]float64, 5), l...)); !(math.Abs(got-alpha) <= 0.01*alpha) {
			t.Errorf("α %v with five zeros, want %v", got, alpha)
		}
	}
	for name, l := range map[string][]float64{"none": nil, "zeros": make([]float64, 4), "one": {3}, "equal": {2, 2, 2}} {
		if got := powerLaw(l); !math.IsNaN(got) {
			t.Errorf("%s: α %v, want NaN", name, got)
		}
	}
}
