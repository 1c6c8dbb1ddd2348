package cpu

import (
	"math"
	"math/big"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

func newAccumulator(in int, needs stats.Needs) *accumulator {
	return New(engine.F32).NewStats(in, needs).(*accumulator)
}

func randomInputs(rng *rand.Rand, rows, cols int) tensor.Matrix {
	x := tensor.NewMatrix(rows, cols)
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64() * math.Exp(3*rng.NormFloat64()))
	}
	return x
}

// Two sequences of two channels, by hand: (1 + 4 + 9)/2 and (16 + 0 + 1)/2.
func TestInputByHand(t *testing.T) {
	a := newAccumulator(2, stats.Needs{})
	a.add(tensor.Matrix{Rows: 2, Cols: 2, Data: []float32{1, 4, -2, 0}})
	a.add(tensor.Matrix{Rows: 1, Cols: 2, Data: []float32{3, -1}})
	in := a.Input(2)
	if !slices.Equal(in.ColSq, []float64{7, 8.5}) || in.Sequences != 2 || in.Tokens != 3 {
		t.Errorf("got %+v, want ColSq [7 8.5], 2 sequences, 3 tokens", *in)
	}
}

// The same two sequences: means (1 − 2 + 3)/2 and (4 + 0 − 1)/2; inside the
// first the variances are 9/4 and 4, in the second, of one token, 0; over 3
// tokens 2·9/4/3 and 2·4/3.
func TestMomentsByHand(t *testing.T) {
	a := newAccumulator(2, stats.Needs{Moments: true})
	a.add(tensor.Matrix{Rows: 2, Cols: 2, Data: []float32{1, 4, -2, 0}})
	a.add(tensor.Matrix{Rows: 0, Cols: 2})
	a.add(tensor.Matrix{Rows: 1, Cols: 2, Data: []float32{3, -1}})
	in := a.Input(2)
	if !slices.Equal(in.ColSum, []float64{1, 1.5}) || !slices.Equal(in.ColVar, []float64{1.5, 8. / 3}) {
		t.Errorf("sums %v, variances %v, want [1 1.5] and [1.5 2.66…]", in.ColSum, in.ColVar)
	}
	if in := newAccumulator(2, stats.Needs{}).Input(2); in.ColSum != nil || in.ColVar != nil {
		t.Error("moments that nobody asked for")
	}
	if in := newAccumulator(1, stats.Needs{Moments: true}).Input(2); in.ColSum[0] != 0 || in.ColVar[0] != 0 {
		t.Errorf("without tokens: %v, %v, want 0", in.ColSum, in.ColVar)
	}
}

// A constant channel has variance 0, one that hardly moves keeps its digits, and
// threads change nothing.
func TestMoments(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 0))
	const tokens, cols = 57, 1100
	x := randomInputs(rng, tokens, cols)
	for i := range tokens {
		x.Row(i)[3] = 0.1
		x.Row(i)[4] = 1e4 + float32(i%2)/512
	}
	var first *stats.Input
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, threads := range []int{1, 4} {
		runtime.GOMAXPROCS(threads)
		a := newAccumulator(cols, stats.Needs{Moments: true})
		a.add(x)
		in := a.Input(1)
		if first == nil {
			first = in
		}
		if !slices.Equal(in.ColSum, first.ColSum) || !slices.Equal(in.ColVar, first.ColVar) {
			t.Errorf("%d threads give other moments than one", threads)
		}
	}
	if first.ColVar[3] != 0 {
		t.Errorf("variance of a constant channel is %v", first.ColVar[3])
	}
	// 29 of 57 tokens are lower by 2⁻⁹: p(1−p)·2⁻¹⁸.
	if want := 29. / 57 * 28 / 57 * 0x1p-18; !(math.Abs(first.ColVar[4]-want) <= 1e-6*want) {
		t.Errorf("variance %v, want %v", first.ColVar[4], want)
	}
	for j := range cols {
		sum, squares := 0.0, 0.0
		for i := range tokens {
			sum += float64(x.Row(i)[j])
		}
		for i := range tokens {
			d := float64(x.Row(i)[j]) - sum/tokens
			squares += d * d
		}
		if !(math.Abs(first.ColSum[j]-sum) <= 1e-12*math.Abs(sum)) || !(math.Abs(first.ColVar[j]-squares/tokens) <= 1e-12*squares) {
			t.Errorf("channel %d: sum %v, variance %v, want %v, %v", j, first.ColSum[j], first.ColVar[j], sum, squares/tokens)
		}
	}
}

// Against sums without rounding. Each of T additions rounds by 2⁻⁵³ of a sum
// that only grows, the division once more.
func TestInputIsExactSumToRounding(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 0))
	for _, cols := range []int{1, 7, 255, 256, 257, 700, 1031} {
		a := newAccumulator(cols, stats.Needs{})
		want := make([]big.Float, cols)
		tokens := []int{31, 0, 1, 40} // a sequence may bring no token
		total := 0
		for _, rows := range tokens {
			x := randomInputs(rng, rows, cols)
			was := slices.Clone(x.Data)
			a.add(x)
			if !slices.Equal(x.Data, was) {
				t.Fatalf("%d columns: Add changed its input", cols)
			}
			for i, v := range x.Data {
				var square big.Float
				square.SetPrec(400).SetFloat64(float64(v))
				want[i%cols].SetPrec(400).Add(&want[i%cols], square.Mul(&square, &square))
			}
			total += rows
		}
		in := a.Input(len(tokens))
		if in.Tokens != total || in.Sequences != len(tokens) || len(in.ColSq) != cols {
			t.Errorf("%d columns: %d tokens, %d sequences, want %d, %d", len(in.ColSq), in.Tokens, in.Sequences, total, len(tokens))
		}
		for j, got := range in.ColSq {
			exact, _ := want[j].Float64()
			exact /= float64(len(tokens))
			if !(math.Abs(got-exact) <= float64(total+2)*0x1p-53*exact) {
				t.Errorf("%d columns: ColSq[%d] = %v, want %v", cols, j, got, exact)
			}
		}
	}
}

// Neither the number of threads nor the instruction set changes a bit.
func TestInputDoesNotDependOnThreads(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 0))
	const rows, cols = 37, 3001
	x := []tensor.Matrix{randomInputs(rng, rows, cols), randomInputs(rng, rows, cols)}
	var first []float64
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, level := range cpu.Levels() {
		restore := cpu.Use(level)
		for _, threads := range []int{1, 2, 5} {
			runtime.GOMAXPROCS(threads)
			a := newAccumulator(cols, stats.Needs{})
			for _, m := range x {
				a.add(m)
			}
			got := a.Input(2).ColSq
			if first == nil {
				first = got
			}
			if !slices.Equal(got, first) {
				t.Errorf("%v with %d threads differs from %v with one", level, threads, cpu.Levels()[0])
			}
		}
		restore()
	}
}

func TestCheckNamesTheChannel(t *testing.T) {
	x := randomInputs(rand.New(rand.NewPCG(5, 0)), 20, 300)
	x.Row(3)[7] = math.MaxFloat32 // its square is finite
	a := newAccumulator(300, stats.Needs{})
	a.add(x)
	if err := a.Input(1).Check(); err != nil {
		t.Errorf("finite inputs: %v", err)
	}
	for _, c := range []struct {
		value float64
		want  string
	}{{math.NaN(), "NaN"}, {math.Inf(1), "+Inf"}, {math.Inf(-1), "+Inf"}} {
		x.Row(19)[271] = float32(c.value)
		x.Row(2)[280] = float32(c.value) // the first channel is named
		a := newAccumulator(300, stats.Needs{})
		a.add(x)
		err := a.Input(1).Check()
		if err == nil || !strings.Contains(err.Error(), "input channel 271") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("with %g in channel 271: error %v", c.value, err)
		}
	}
}

func TestAddPanicsOnWidth(t *testing.T) {
	defer func() {
		if got, want := recover(), "cpu: Stats.Add: 3 columns, want 4"; got != want {
			t.Errorf("panic %v, want %s", got, want)
		}
	}()
	newAccumulator(4, stats.Needs{}).add(tensor.NewMatrix(1, 3))
}
