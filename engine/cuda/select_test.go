package cuda_test

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// weights are what makes sums, quotients and selection go wrong. All sums of neighbours
// fit in float32.
var weights = map[string]func(rng *rand.Rand) float64{
	"normal":    func(rng *rand.Rand) float64 { return 0.02 * rng.NormFloat64() },
	"heavy":     func(rng *rand.Rand) float64 { return 0.02 * rng.NormFloat64() * math.Exp(4*rng.NormFloat64()) },
	"quantised": func(rng *rand.Rand) float64 { return float64(rng.IntN(7)-3) / 4 },
	"zero":      func(*rand.Rand) float64 { return 0 },
	"subnormal": func(rng *rand.Rand) float64 { return float64(rng.IntN(400)-200) * 0x1p-133 },
	"extremes": func(rng *rand.Rand) float64 {
		return []float64{0, math.Copysign(0, -1), 0x1p-149, 0x1p-133, 0x1p-24, -1e-30, 1, -60000}[rng.IntN(8)]
	},
}

func weightOf(dtype tensor.DType, rows, cols int, value func() float64) *tensor.Weight {
	w := tensor.NewWeight(dtype, rows, cols)
	row := make([]float32, cols)
	for i := range rows {
		for j := range row {
			row[j] = float32(value())
		}
		w.SetRow(i, 0, row)
	}
	return w
}

// statistic returns one with a silent channel and a loud one.
func statistic(rng *rand.Rand, cols int) *stats.Input {
	s := &stats.Input{ColSq: make([]float64, cols), Sequences: 1, Tokens: 100}
	for j := range s.ColSq {
		s.ColSq[j] = 100 * rng.ExpFloat64()
	}
	s.ColSq[rng.IntN(cols)] = 0
	s.ColSq[rng.IntN(cols)] = 1e6
	return s
}

// scoresOf returns the scores of w by p on the host, and on the device.
func (p point) scoresOf(t testing.TB, e *cuda.Engine, w *tensor.Weight, s *stats.Input) ([]float32, engine.Scores) {
	t.Helper()
	x := make([]float32, w.Rows*w.Cols)
	if err := p.m.Score(x, w, s, p.p); err != nil {
		t.Fatal(err)
	}
	return x, p.on(t, e, w, s)
}

func (p point) on(t testing.TB, e *cuda.Engine, w *tensor.Weight, s *stats.Input) engine.Scores {
	t.Helper()
	at := p.m.Point(p.p)
	norms, err := at.Norms(w.Cols, s)
	if err != nil {
		t.Fatal(err)
	}
	scores, err := e.Scores(load(t, e, w), 0, w.Rows, engine.Importance{
		Alpha: at.Alpha, Beta: at.Beta, Gamma: at.Gamma, Delta: at.Delta, Radius: at.Kernel / 2, Norms: norms,
	})
	if err != nil {
		t.Fatal(err)
	}
	return scores
}

func load(t testing.TB, e *cuda.Engine, w *tensor.Weight) engine.Op {
	t.Helper()
	op, err := e.Load(w)
	if err != nil {
		t.Fatal(err)
	}
	return op
}

// point is a method with parameters.
type point struct {
	name string
	m    score.Method
	p    param.Values
}

func points() []point {
	all := []point{
		{"magnitude", score.Magnitude, nil},
		{"wanda", score.Wanda, nil},
		{"ria", score.RIA, score.RIA.Defaults()},
		{"ria 1.3", score.RIA, param.Values{"power": 1.3}},
		{"crepe with delta", score.CRePE, score.CRePE.Defaults().With("delta", 0.37)},
		{"neighbourhood", score.CRePE, score.Paper().With("alpha", 0.).With("beta", 0.)},
	}
	for k := 3; k <= 11; k += 2 {
		all = append(all, point{fmt.Sprint("crepe", k), score.CRePE, score.Paper().With("kernel", k).With("beta", 0.7).With("gamma", 1.9)})
	}
	return all
}

func share(t testing.TB, s string) pattern.Sparsity {
	t.Helper()
	v, err := pattern.ParseSparsity(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func targets(t testing.TB) []pattern.Target {
	t.Helper()
	all := []pattern.Target{{}}
	for _, p := range []pattern.Pattern{{Keep: 2, Of: 4}, {Keep: 4, Of: 8}, {Keep: 1, Of: 3}, {Keep: 37, Of: 50}} {
		all = append(all, pattern.Target{Pattern: p})
	}
	for _, s := range []string{"50%", "13%", "98%"} {
		s := share(t, s)
		all = append(all, pattern.Target{Sparsity: s}, pattern.Target{Sparsity: s, Group: pattern.Row},
			pattern.Target{Sparsity: s, Group: pattern.Row, Level: true})
	}
	return all
}

// TestSelectIsTheCPUs compares scores, masks and cuts with those of packages score and
// mask, bit by bit, for some of all that there is to combine.
func TestSelectIsTheCPUs(t *testing.T) {
	e := cuda.New(device(t), engine.F32)
	rng := rand.New(rand.NewPCG(19, 0))
	for _, shape := range [][2]int{{1, 1}, {3, 5}, {64, 48}, {129, 1000}, {2, 4100}} {
		rows, cols := shape[0], shape[1]
		for _, dtype := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
			for _, kind := range slices.Sorted(maps.Keys(weights)) {
				if rows*cols > 1<<13 && kind != "normal" && kind != "quantised" {
					continue
				}
				w := weightOf(dtype, rows, cols, func() float64 { return weights[kind](rng) })
				s := statistic(rng, cols)
				for _, p := range points() {
					if rng.IntN(3) > 0 {
						continue
					}
					compareSelection(t, e, fmt.Sprintf("%s of %d × %d %s %s", p.name, rows, cols, kind, dtype), p, w, s, rng)
				}
			}
		}
	}
}

func compareSelection(t *testing.T, e *cuda.Engine, what string, p point, w *tensor.Weight, in *stats.Input, rng *rand.Rand) {
	t.Helper()
	want, s := p.scoresOf(t, e, w, in)
	got := make([]float32, len(want))
	if err := s.Read(got); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	s.Release()
	for k := range want {
		if math.Float32bits(got[k]) != math.Float32bits(want[k]) {
			t.Fatalf("%s: score [%d, %d] is %g (%#x), want %g (%#x)", what, k/w.Cols, k%w.Cols, got[k], math.Float32bits(got[k]), want[k], math.Float32bits(want[k]))
		}
	}
	for _, target := range targets(t) {
		if _, err := target.Pruned(w.Rows, w.Cols); err != nil || rng.IntN(3) > 0 {
			continue
		}
		what := fmt.Sprintf("%s, %+v", what, target)
		kept, err := mask.Select(want, w.Rows, w.Cols, target)
		if err != nil {
			t.Fatal(err)
		}
		s := p.on(t, e, w, in) // whose scores are not there yet
		selected, err := s.Select(target, nil)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if !slices.Equal(selected.Bits(), kept.Bits()) {
			t.Fatalf("%s: another mask", what)
		}
		if cuts := cutsOf(want, kept, target); !slices.Equal(s.Cuts(), cuts) {
			t.Fatalf("%s: cuts %v, want %v", what, s.Cuts(), cuts)
		}
		if target.Pattern.Of != 0 {
			order := rng.Perm(w.Cols)
			if kept, err = mask.SelectIn(want, w.Rows, w.Cols, target.Pattern, order); err != nil {
				t.Fatal(err)
			}
			if selected, err = s.Select(target, order); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(selected.Bits(), kept.Bits()) || !slices.Equal(selected.Order, order) {
				t.Fatalf("%s in another order: another mask", what)
			}
		}
		s.Release()
	}
}

// cutsOf returns the highest score that is pruned, of each row or of all.
func cutsOf(scores []float32, m *mask.Mask, t pattern.Target) []float32 {
	if t.Pattern.Of != 0 {
		return nil
	}
	var cuts []float32
	for i := range m.Rows {
		top := float32(-1)
		for j := range m.Cols {
			if !m.Kept(i, j) {
				top = max(top, scores[i*m.Cols+j])
			}
		}
		if top >= 0 {
			cuts = append(cuts, top)
		}
	}
	if len(cuts) > 0 && t.Group != pattern.Row {
		return []float32{slices.Max(cuts)}
	}
	return cuts
}

// Scores that do not fit in shared memory lie in the device's.
func TestSelectWideRows(t *testing.T) {
	d := device(t)
	e := cuda.New(d, engine.F32)
	rng := rand.New(rand.NewPCG(20, 0))
	w := weightOf(tensor.BF16, 7, 3000, func() float64 { return weights["quantised"](rng) })
	s := statistic(rng, w.Cols)
	for _, shared := range []int{48 << 10, 24 << 10} {
		d.Info.SharedMemory = shared
		for _, p := range points() {
			switch p.name {
			case "ria", "crepe9", "crepe11":
				compareSelection(t, e, fmt.Sprint(p.name, " with ", shared), p, w, s, rng)
			}
		}
	}
}

// Some rows of a weight are a matrix of their own.
func TestSelectRows(t *testing.T) {
	e := cuda.New(device(t), engine.F32)
	rng := rand.New(rand.NewPCG(24, 0))
	for _, cols := range []int{64, 33} {
		w := weightOf(tensor.BF16, 40, cols, rng.NormFloat64)
		lo, hi := 13, 29
		want := make([]float32, (hi-lo)*cols)
		s := statistic(rng, cols)
		if err := score.CRePE.Score(want, w.Slice(lo, hi), s, score.Paper()); err != nil {
			t.Fatal(err)
		}
		at := score.CRePE.Point(score.Paper())
		norms, err := at.Norms(cols, s)
		if err != nil {
			t.Fatal(err)
		}
		op := load(t, e, w)
		scores, err := e.Scores(op, lo, hi-lo, engine.Importance{Alpha: 1, Beta: 1, Gamma: 1, Radius: 4, Norms: norms})
		if err != nil {
			t.Fatal(err)
		}
		target := pattern.Target{Sparsity: share(t, "50%")}
		kept, err := mask.Select(want, hi-lo, cols, target)
		if err != nil {
			t.Fatal(err)
		}
		selected, err := scores.Select(target, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(selected.Bits(), kept.Bits()) {
			t.Errorf("%d columns: another mask", cols)
		}
		scores.Release()
	}
}

// A weight that is not finite, and scores that are not, are found whatever is selected.
func TestSelectRefuses(t *testing.T) {
	e := cuda.New(device(t), engine.F32)
	rng := rand.New(rand.NewPCG(21, 0))
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, p := range points() {
			w := weightOf(tensor.BF16, 5, 40, rng.NormFloat64)
			row := make([]float32, 40)
			row[rng.IntN(40)] = float32(bad)
			w.SetRow(rng.IntN(5), 0, row)
			scores := p.on(t, e, w, statistic(rng, w.Cols))
			for _, target := range targets(t) {
				if _, err := target.Pruned(w.Rows, w.Cols); err != nil || rng.IntN(3) > 0 {
					continue
				}
				if _, err := scores.Select(target, nil); !errors.Is(err, engine.ErrScores) {
					t.Errorf("%s with a weight %v, %+v: error %v", p.name, bad, target, err)
				}
			}
			scores.Release()
		}
	}
	w := weightOf(tensor.F32, 3, 8, func() float64 { return 1e38 })
	s, err := e.Scores(load(t, e, w), 0, 3, engine.Importance{Delta: 1, Norms: slices.Repeat([]float32{10}, 8)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Select(pattern.Target{}, nil); !errors.Is(err, engine.ErrScores) {
		t.Errorf("scores that overflow: error %v", err)
	}
}

// What products read afterwards is what mask.Apply leaves.
func TestApply(t *testing.T) {
	e := cuda.New(device(t), engine.F32)
	rng := rand.New(rand.NewPCG(22, 0))
	for _, dtype := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
		for _, shape := range [][2]int{{3, 5}, {4, 64}, {9, 1030}} {
			w := weightOf(dtype, shape[0], shape[1], rng.NormFloat64)
			x := make([]float32, w.Rows*w.Cols)
			if err := score.Magnitude.Score(x, w, nil, nil); err != nil {
				t.Fatal(err)
			}
			m, err := mask.Select(x[w.Cols:], w.Rows-1, w.Cols, pattern.Target{Sparsity: share(t, "50%")})
			if err != nil {
				t.Fatal(err)
			}
			op := load(t, e, w)
			e.Apply(op, 1, m)
			all, err := e.Scores(op, 0, w.Rows, engine.Importance{Delta: 1, Norms: slices.Repeat([]float32{1}, w.Cols)})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(x))
			if err := all.Read(got); err != nil {
				t.Fatal(err)
			}
			for k := range x {
				if i := k / w.Cols; i > 0 && !m.Kept(i-1, k%w.Cols) {
					x[k] = 0
				}
			}
			if !slices.Equal(got, x) {
				t.Errorf("%s of %d × %d: other weights are 0 than the mask says", dtype, w.Rows, w.Cols)
			}
		}
	}
}

// TestSpread counts by the definition.
func TestSpread(t *testing.T) {
	e := cuda.New(device(t), engine.F32)
	rng := rand.New(rand.NewPCG(23, 0))
	for _, shape := range [][2]int{{1, 1}, {70, 1001}, {2, 70000}} {
		for _, kind := range slices.Sorted(maps.Keys(weights)) {
			w := weightOf(tensor.F32, shape[0], shape[1], func() float64 { return weights[kind](rng) })
			x, s := points()[0].scoresOf(t, e, w, nil)
			m, err := mask.Select(x, w.Rows, w.Cols, pattern.Target{Sparsity: share(t, "50%"), Group: pattern.Row})
			if err != nil {
				t.Fatal(err)
			}
			n, low := make([]uint32, 2*engine.SpreadBins), make([]uint64, 2*engine.SpreadBins)
			for k, v := range x {
				bits, kept := math.Float32bits(v), 0
				if m.Kept(k/w.Cols, k%w.Cols) {
					kept = 1
				}
				at := 2*int(bits>>16) + kept
				n[at]++
				low[at] += uint64(bits & 0xffff)
			}
			gotN, gotLow := s.Spread(m)
			if !slices.Equal(gotN, n) || !slices.Equal(gotLow, low) {
				t.Errorf("%d × %d %s: other counts", w.Rows, w.Cols, kind)
			}
			s.Release()
		}
	}
}
