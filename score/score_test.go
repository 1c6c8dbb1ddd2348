package score_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

const eps = 0x1p-24 // of rounding to float32

// weightOf returns a float32 weight.
func weightOf(rows, cols int, values ...float32) *tensor.Weight {
	w := tensor.NewWeight(tensor.F32, rows, cols)
	if copy(w.Source().F32, values) != rows*cols {
		panic("weightOf: wrong number of values")
	}
	return w
}

func input(colSq ...float64) *stats.Input {
	return &stats.Input{ColSq: colSq, Sequences: 1, Tokens: 1}
}

func mustScore(tb testing.TB, name string, w *tensor.Weight, s *stats.Input, p param.Values) []float32 {
	tb.Helper()
	dst := make([]float32, w.Rows*w.Cols)
	for i := range dst {
		dst[i] = float32(math.NaN()) // all is to be written
	}
	if err := mustLookup(tb, name).Score(dst, w, s, p); err != nil {
		tb.Fatal(err)
	}
	return dst
}

// published returns the parameters of a method's paper.
func published(tb testing.TB, name string) param.Values {
	if name == score.CRePE.Name {
		return score.Paper()
	}
	return mustLookup(tb, name).Defaults()
}

// 2 × 4, by hand. R = 8, 8; C = 3, 5, 4, 4; norms 1, 4, 0, 9. With a kernel of 3
// the neighbourhood is the weight and the one or two diagonal to it.
func TestByHand(t *testing.T) {
	w := weightOf(2, 4,
		1, -2, 3, 2,
		2, 3, -1, 2)
	s := input(1, 16, 0, 81)
	crepe3 := crepe(1, 1, 1, 3, 0.5)
	for _, c := range []struct {
		method string
		p      param.Values
		want   []float64
	}{
		{"magnitude", nil, []float64{1, 2, 3, 2, 2, 3, 1, 2}},
		{"wanda", nil, []float64{1, 8, 0, 18, 2, 12, 0, 18}},
		{"ria", param.Values{"power": 0.5}, []float64{
			1./8 + 1./3, (2./8 + 2./5) * 2, 0, (2./8 + 2./4) * 3,
			2./8 + 2./3, (3./8 + 3./5) * 2, 0, (2./8 + 2./4) * 3}},
		{"crepe", crepe3, []float64{
			1./8 + 1./3 + 1./4, (2./8 + 2./5 + 2./5) * 2, 0, (2./8 + 2./4 + 2./3) * 3,
			2./8 + 2./3 + 2./4, (3./8 + 3./5 + 3./7) * 2, 0, (2./8 + 2./4 + 2./5) * 3}},
		{"crepe", crepe(0, 0, 2, 3, 1), []float64{
			2 * 1. / 4, 2 * 2. / 5 * 4, 0, 2 * 2. / 3 * 9,
			2 * 2. / 4, 2 * 3. / 7 * 4, 0, 2 * 2. / 5 * 9}},
	} {
		for j, got := range mustScore(t, c.method, w, s, c.p) {
			if !(math.Abs(float64(got)-c.want[j]) <= 8*eps*c.want[j]) {
				t.Errorf("%s %+v [%d]: %v, want %v", c.method, c.p, j, got, c.want[j])
			}
		}
	}
}

// neighbourhood is N_ij by its definition, in float64.
func neighbourhood(w *tensor.Weight, i, j, r int) float64 {
	n := math.Abs(float64(w.At(i, j)))
	for p := -r; p <= r; p++ {
		for q := -r; q <= r; q++ {
			if p != 0 && q != 0 && i+p >= 0 && i+p < w.Rows && j+q >= 0 && j+q < w.Cols {
				n += math.Abs(float64(w.At(i+p, j+q)))
			}
		}
	}
	return n
}

// The neighbourhood alone (α = β = 0, norms 1) against a direct float64 sum,
// across the borders of strips and panels, beside outliers of 10⁶ that a
// difference of sums would not survive: N within 9·2⁻²⁴ and the quotient rounded
// once, far below the 1e-5 that the method asks for. The products with γ and the
// norm are exact, since both are 1.
func TestNeighbourhoodIsDirectSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 0))
	for _, shape := range [][2]int{{1, 1}, {1, 40}, {40, 1}, {3, 3}, {11, 11}, {9, 33}, {300, 17}, {12, 4099}, {260, 31}} {
		rows, cols := shape[0], shape[1]
		w := tensor.NewWeight(tensor.F32, rows, cols)
		v := w.Source().F32
		ones := input(slices.Repeat([]float64{1}, cols)...)
		for i := range v {
			v[i] = float32(rng.NormFloat64())
			if rng.IntN(20) == 0 {
				v[i] *= 1e6
			}
		}
		for k := 3; k <= 11; k += 2 {
			got := mustScore(t, "crepe", w, ones, crepe(0, 0, 1, k, 0.5))
			for i := range rows {
				for j := range cols {
					want := math.Abs(float64(w.At(i, j))) / neighbourhood(w, i, j, k/2)
					if g := float64(got[i*cols+j]); !(math.Abs(g-want) <= 10*eps*want) {
						t.Fatalf("%v kernel %d [%d, %d]: %v, want %v", shape, k, i, j, g, want)
					}
				}
			}
		}
	}
}

// goldenMethods are the methods of tools/golden_scores.py.
func goldenMethods(t *testing.T) map[string]struct {
	method string
	p      param.Values
} {
	type method = struct {
		method string
		p      param.Values
	}
	all := map[string]method{
		"magnitude": {"magnitude", nil}, "wanda": {"wanda", nil},
		"ria":     {"ria", published(t, "ria")},
		"crepe9b": {"crepe", crepe(0.5, 2, 0.25, 9, 1)},
	}
	for k := 3; k <= 11; k += 2 {
		p := published(t, "crepe")
		p["kernel"] = k
		all[fmt.Sprint("crepe", k)] = method{"crepe", p}
	}
	return all
}

// Float64 scores within float32's rounding: at most 9 additions in N, and six
// operations and conversions beside; the stored score is rounded too.
// Masks bit by bit: the script made sure that no limit is near a score.
func TestGolden(t *testing.T) {
	stored := golden.Read(t, "testdata/scores.safetensors")
	targets := map[string]pattern.Target{
		"2:4": {Pattern: pattern.Pattern{Keep: 2, Of: 4}},
		"4:8": {Pattern: pattern.Pattern{Keep: 4, Of: 8}},
		"1:4": {Pattern: pattern.Pattern{Keep: 1, Of: 4}},
	}
	for _, share := range []string{"50%", "60%", "70%"} {
		s, err := pattern.ParseSparsity(share)
		if err != nil {
			t.Fatal(err)
		}
		targets[share+" matrix"] = pattern.Target{Sparsity: s}
		targets[share+" row"] = pattern.Target{Sparsity: s, Group: pattern.Row}
	}
	compared := 0
	for _, dtype := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
		shape := stored[dtype.String()+".shape"].I64
		w := tensor.NewWeight(dtype, int(shape[0]), int(shape[1]))
		copy(w.Bytes(), stored[dtype.String()+".raw"].U8)
		in := input(stored[dtype.String()+".colsq"].F64...)
		for name, m := range goldenMethods(t) {
			key := dtype.String() + "." + name + "."
			got := mustScore(t, m.method, w, in, m.p)
			golden.Compare(t, key, got, stored[key+"score"].F32, golden.Tolerance{Rel: 16 * eps})
			for target, tt := range targets {
				want, ok := stored[key+target]
				if !ok {
					t.Fatalf("%s%s is not stored", key, target)
				}
				kept, err := mask.Select(got, w.Rows, w.Cols, tt)
				if err != nil {
					t.Fatal(err)
				}
				for i := range w.Rows * w.Cols {
					if kept.Kept(i/w.Cols, i%w.Cols) != (want.U8[i/8]>>(i%8)&1 != 0) {
						t.Errorf("%s%s: mask differs at [%d, %d]", key, target, i/w.Cols, i%w.Cols)
						break
					}
				}
				compared++
			}
		}
	}
	if compared != 3*9*9 {
		t.Errorf("compared %d masks, want %d", compared, 3*9*9)
	}
}

func randomWeight(rng *rand.Rand, dtype tensor.DType, rows, cols int) *tensor.Weight {
	w := tensor.NewWeight(dtype, rows, cols)
	for i, src := 0, w.Source(); i < rows*cols; i++ {
		switch {
		case dtype == tensor.F32:
			src.F32[i] = float32(rng.NormFloat64())
		case dtype == tensor.BF16:
			src.BF16[i] = uint16(math.Float32bits(float32(rng.NormFloat64())) >> 16)
		default:
			src.F16[i] = uint16(rng.Uint32())&0x83ff | uint16(10+rng.IntN(8))<<10
		}
	}
	return w
}

func randomInput(rng *rand.Rand, cols int) *stats.Input {
	s := input(make([]float64, cols)...)
	for j := range s.ColSq {
		s.ColSq[j] = 100 * rng.ExpFloat64()
	}
	return s
}

// crepe(1, 1, 0) is ria, bit by bit, for any kernel.
func TestCrepeWithoutNeighbourhoodIsRIA(t *testing.T) {
	rng := rand.New(rand.NewPCG(12, 0))
	for _, dtype := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
		w, s := randomWeight(rng, dtype, 131, 1061), randomInput(rng, 1061)
		want := mustScore(t, "ria", w, s, published(t, "ria"))
		p := published(t, "crepe")
		p["gamma"] = 0.
		if !slices.Equal(mustScore(t, "crepe", w, s, p), want) {
			t.Errorf("%v: differs from ria", dtype)
		}
		p["gamma"] = math.SmallestNonzeroFloat64 // 0 as float32: the other path, the same bits
		if !slices.Equal(mustScore(t, "crepe", w, s, p), want) {
			t.Errorf("%v: differs from ria with the third term computed", dtype)
		}
	}
}

// Neither threads nor instruction set change a bit, nor the dtype that holds
// the same values.
func TestScoresDoNotDependOnTheMachine(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 0))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, cols := range []int{1, 15, 1040, 4133} {
		w, s := randomWeight(rng, tensor.BF16, 277, cols), randomInput(rng, cols)
		same := tensor.NewWeight(tensor.F32, 277, cols)
		for i := range 277 {
			w.Row(same.Source().F32[i*cols:(i+1)*cols], i)
		}
		for _, m := range score.Methods() {
			want := mustScore(t, m.Name, same, s, published(t, m.Name))
			for n, level := range cpu.Levels() {
				restore := cpu.Use(level)
				runtime.GOMAXPROCS(1 + 2*n)
				got := mustScore(t, m.Name, w, s, published(t, m.Name))
				restore()
				if !slices.Equal(got, want) {
					t.Errorf("%s, %d columns, %v: differs", m.Name, cols, level)
				}
			}
		}
	}
}

// Rows, columns and channels of nothing score 0, as −0 does; all is finite.
func TestZeros(t *testing.T) {
	minus := float32(math.Copysign(0, -1))
	tiny := float32(math.SmallestNonzeroFloat32)
	for _, w := range []*tensor.Weight{
		weightOf(3, 4, 0, 0, 0, 0, 1, 0, minus, 2, 3, 0, 0, -1),
		weightOf(2, 2, 0, minus, minus, 0),
		weightOf(1, 1, minus), weightOf(1, 1, 2), weightOf(1, 3, 1, 0, -1), weightOf(3, 1, 1, 0, -1),
		weightOf(2, 2, tiny, -tiny, 0, tiny), weightOf(2, 2, math.MaxFloat32/2, 1, -math.MaxFloat32/2, tiny),
	} {
		s := input(slices.Repeat([]float64{2}, w.Cols)...)
		s.ColSq[w.Cols-1] = 0
		for _, m := range score.Methods() {
			for i, v := range mustScore(t, m.Name, w, s, published(t, m.Name)) {
				dead := w.At(i/w.Cols, i%w.Cols) == 0 || m.NeedsData && i%w.Cols == w.Cols-1
				if dead && math.Float32bits(v) != 0 || !dead && !(v > 0 && v <= math.MaxFloat32) {
					t.Errorf("%s of %v [%d]: %v", m.Name, w.Source().F32, i, v)
				}
			}
		}
	}
}

// Power 0 asks for no norm, of a silent channel either.
func TestPowerZero(t *testing.T) {
	got := mustScore(t, "ria", weightOf(1, 3, 1, 1, 2), input(4, 0, 9), param.Values{"power": 0.})
	if !slices.Equal(got, []float32{1.25, 1.25, 1.5}) {
		t.Errorf("got %v, want [1.25 1.25 1.5]", got)
	}
}

// The methods that crepe has as points of its family have the bits of their own
// scores there, for every type, with rows, columns and channels of nothing.
func TestFamilyHoldsItsMembers(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 0))
	of := func(alpha, beta, delta, power float64) param.Values {
		p := crepe(alpha, beta, 0, 9, power)
		p["delta"] = delta
		return p
	}
	for name, p := range map[string]param.Values{
		"magnitude": of(0, 0, 1, 0), "wanda": of(0, 0, 1, 1), "ria": of(1, 1, 0, score.DefaultPower),
	} {
		m, err := score.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, dtype := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
			w, s := randomWeight(rng, dtype, 131, 1061), randomInput(rng, 1061)
			for k := range 131 * 1061 {
				if i, j := k/1061, k%1061; i == 7 || j == 9 {
					w.Zero(k)
				}
			}
			s.ColSq[5] = 0
			want := mustScore(t, name, w, s, published(t, m.Name))
			if !slices.Equal(mustScore(t, "crepe", w, s, p), want) {
				t.Errorf("%v: %v differs from %s", dtype, p, name)
			}
			p["gamma"] = math.SmallestNonzeroFloat64 // 0 as float32: the other path, the same bits
			if !slices.Equal(mustScore(t, "crepe", w, s, p), want) {
				t.Errorf("%v: %v differs from %s", dtype, p, name)
			}
			p["gamma"] = 0.
		}
	}
}

func TestNotFiniteNamesPosition(t *testing.T) {
	rng := rand.New(rand.NewPCG(14, 0))
	for _, dtype := range []tensor.DType{tensor.BF16, tensor.F16, tensor.F32} {
		for _, m := range score.Methods() {
			for _, c := range []struct {
				f16, bf16 uint16
				v         float64
			}{{0x7e00, 0x7fc0, math.NaN()}, {0x7c00, 0x7f80, math.Inf(1)}, {0xfc00, 0xff80, math.Inf(-1)}} {
				w, s := randomWeight(rng, dtype, 70, 1100), randomInput(rng, 1100)
				for _, k := range []int{66*1100 + 1087, 69 * 1100} { // the first is named
					switch src := w.Source(); dtype {
					case tensor.F32:
						src.F32[k] = float32(c.v)
					case tensor.BF16:
						src.BF16[k] = c.bf16
					default:
						src.F16[k] = c.f16
					}
				}
				err := m.Score(make([]float32, 70*1100), w, s, published(t, m.Name))
				want := fmt.Sprintf("weight [66, 1087] is %v, want a finite number", c.v)
				if err == nil || err.Error() != want {
					t.Errorf("%s %v: error %v, want %s", m.Name, dtype, err, want)
				}
			}
		}
	}
}

func TestBadStatistic(t *testing.T) {
	w := weightOf(1, 3, 1, 2, 3)
	for _, m := range score.Methods() {
		if !m.NeedsData {
			continue
		}
		for _, c := range []struct {
			v    float64
			want string
		}{{math.NaN(), "NaN"}, {math.Inf(1), "+Inf"}, {-1, "want at least 0"}} {
			err := m.Score(make([]float32, 3), w, input(1, c.v, 1), published(t, m.Name))
			if err == nil || !strings.Contains(err.Error(), "input channel 1") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s with %v: error %v", m.Name, c.v, err)
			}
		}
		p := m.Defaults()
		p["power"] = 4.
		err := m.Score(make([]float32, 3), w, input(1, 1, 1e300), p)
		if m.Name != "wanda" && (err == nil || !strings.Contains(err.Error(), "input channel 2: norm")) {
			t.Errorf("%s with a huge norm: error %v", m.Name, err)
		}
	}
}

func TestRegistry(t *testing.T) {
	if got := strings.Join(score.Names(), " "); got != "magnitude wanda ria crepe" {
		t.Errorf("names %s", got)
	}
	for _, m := range score.Methods() {
		if m.Score == nil || m.Doc == "" || m.Cite == "" {
			t.Errorf("%s is not complete", m.Name)
		}
		if err := m.Check(m.Defaults()); err != nil {
			t.Errorf("%s: its defaults: %v", m.Name, err)
		}
	}
	_, err := score.Lookup("obs")
	if want := `unknown method "obs", want one of magnitude, wanda, ria, crepe`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if g := mustLookup(t, "wanda").Group; g != pattern.Row {
		t.Errorf("wanda compares by %v", g)
	}
}

// crepe returns the parameters of CRePE.
func crepe(alpha, beta, gamma float64, kernel int, power float64) param.Values {
	return param.Values{"alpha": alpha, "beta": beta, "gamma": gamma, "delta": 0., "kernel": kernel, "power": power}
}

func TestCheck(t *testing.T) {
	m := mustLookup(t, "crepe")
	for want, change := range map[string]func(p param.Values){
		"alpha: -1, want 0 to 1e+06":                                func(p param.Values) { p["alpha"] = -1. },
		"beta: NaN, want 0 to 1e+06":                                func(p param.Values) { p["beta"] = math.NaN() },
		"gamma: +Inf, want 0 to 1e+06":                              func(p param.Values) { p["gamma"] = math.Inf(1) },
		"power: 5, want 0 to 4":                                     func(p param.Values) { p["power"] = 5. },
		"kernel: 4, want 3, 5, 7, 9 or 11":                          func(p param.Values) { p["kernel"] = 4 },
		"kernel: 13, want 3, 5, 7, 9 or 11":                         func(p param.Values) { p["kernel"] = 13 },
		"kernel: 1, want 3, 5, 7, 9 or 11":                          func(p param.Values) { p["kernel"] = 1 },
		"alpha, beta, gamma and delta are all 0, want one above it": func(p param.Values) { p["alpha"], p["beta"], p["gamma"] = 0., 0., 0. },
	} {
		p := m.Defaults()
		change(p)
		if err := m.Check(p); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
		if err := mustLookup(t, "magnitude").Check(p); err != nil {
			t.Errorf("magnitude: %v", err)
		}
	}
}

// A method's scores are those of its point of CRePE's family, bit for bit: by these an
// engine computes them.
func TestPointsAreOfTheFamily(t *testing.T) {
	rng := rand.New(rand.NewPCG(29, 0))
	w := tensor.NewWeight(tensor.F32, 20, 70)
	for i := range w.Source().F32 {
		w.Source().F32[i] = float32(rng.NormFloat64())
	}
	s := input(slices.Repeat([]float64{0}, w.Cols)...)
	for j := range s.ColSq[1:] {
		s.ColSq[j] = rng.ExpFloat64()
	}
	for _, m := range score.Methods() {
		for _, power := range []float64{0.5, 1, 1.7} {
			p := published(t, m.Name).With("power", power)
			at := m.Point(p)
			norms, err := at.Norms(w.Cols, s)
			if err != nil {
				t.Fatal(err)
			}
			squares := input(make([]float64, w.Cols)...) // whose roots are the norms, exactly
			for j, n := range norms {
				squares.ColSq[j] = float64(n) * float64(n)
			}
			got := mustScore(t, "crepe", w, squares, param.Values{
				"alpha": at.Alpha, "beta": at.Beta, "gamma": at.Gamma, "delta": at.Delta, "kernel": at.Kernel, "power": 1.,
			})
			if want := mustScore(t, m.Name, w, s, p); !slices.Equal(got, want) {
				t.Errorf("%s with power %v: %+v has other scores", m.Name, power, at)
			}
		}
	}
}
