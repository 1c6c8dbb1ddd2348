package refine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

func weightOf(rows, cols int, v ...float32) *tensor.Weight {
	w := tensor.NewWeight(tensor.F32, rows, cols)
	copy(w.Source().F32, v)
	return w
}

func target(tb testing.TB, s string) pattern.Target {
	tb.Helper()
	var t pattern.Target
	var err error
	if strings.Contains(s, ":") {
		t.Pattern, err = pattern.ParsePattern(s)
	} else {
		t.Sparsity, err = pattern.ParseSparsity(s)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// start makes a problem of the mask that s selects by scores.
func start(tb testing.TB, w *tensor.Weight, in *stats.Input, scores []float32, to pattern.Target, cycles int) Problem {
	tb.Helper()
	kept, err := mask.Select(scores, w.Rows, w.Cols, to)
	if err != nil {
		tb.Fatal(err)
	}
	p := Problem{Kept: kept, W: w, Scores: scores, Input: in, Pattern: to.Pattern, Params: param.Values{"refine_cycles": cycles}}
	if in.Gram != nil {
		p.Gram = NewGram(in.Gram)
	}
	return p
}

func do(tb testing.TB, m Method, p Problem) Result {
	tb.Helper()
	r, err := m.Run(tb.Context(), p)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// grid is m with # for kept and . for pruned, a row a word.
func grid(m *mask.Mask) string {
	var b strings.Builder
	for i := range m.Rows {
		if i > 0 {
			b.WriteByte(' ')
		}
		for j := range m.Cols {
			b.WriteByte(".#"[map[bool]int{true: 1}[m.Kept(i, j)]])
		}
	}
	return b.String()
}

// Two rows of six, by hand. ColSum is 1 but where said, so M is W; magnitudes
// are the scores, and ‖X‖ is 1.
func TestDSnoTByHand(t *testing.T) {
	ones := func() *stats.Input {
		v := func() []float64 { return []float64{1, 1, 1, 1, 1, 1} }
		return &stats.Input{ColSq: v(), ColSum: v(), ColVar: v()}
	}
	for _, c := range []struct {
		name   string
		row    []float32
		change func(in *stats.Input)
		to     string
		cycles int
		want   string
		n      int
		after  float64
	}{
		// Pruned: 1, 2, 3 with err 6. Back comes 3, out goes −4, the lowest kept
		// below 0: err −1. Now back would come something below 0: there is nothing.
		{"signs", []float32{1, 2, 3, -4, -5, 6}, nil, "50%", 50, "..#.##", 1, 1},
		// Var of column 0 makes 1/0.1 the largest: back comes 1, out −4, err 1.
		// Then 3 and −5: err −7, and there is nothing below 0 to bring back.
		{"variance", []float32{1, 2, 3, -4, -5, 6}, func(in *stats.Input) { in.ColVar[0] = 0.1 }, "50%", 50, "#.#..#", 2, 7},
		{"one cycle", []float32{1, 2, 3, -4, -5, 6}, func(in *stats.Input) { in.ColVar[0] = 0.1 }, "50%", 1, "#...##", 1, 1},
		// A constant channel comes first, though it is the smallest.
		{"constant", []float32{1, 2, 3, -4, -5, 6}, func(in *stats.Input) { in.ColVar[1] = 0 }, "50%", 1, ".#..##", 1, 0},
		// A silent one takes no part: 0/0 is no candidate.
		{"silent", []float32{1, 2, 3, -4, -5, 6}, func(in *stats.Input) { in.ColVar[2], in.ColSum[2] = 0, 0 }, "50%", 1, ".#..##", 1, 3},
		// The prune order is |W|·‖X‖, whatever the scores say: −5 is quiet.
		{"wanda order", []float32{1, 2, 3, -4, -5, 6}, func(in *stats.Input) { in.ColSq[4] = 0.01 }, "50%", 1, "..##.#", 1, 2},
		{"balanced", []float32{0.5, -0.45, 0.04, -4, 5, 6}, nil, "50%", 50, "...###", 0, 0.09},
		{"nothing to prune", []float32{1, 2, 3, 4, 5, 6}, nil, "50%", 50, "...###", 0, 6},
		// 1:3. Pruned 1, 2 | 0.5, −0.25: err 3.25. Back comes 2, out 3: err 4.25.
		// Back comes 1: its group has none left to give; then 0.5, out 4: err 7.75.
		{"1:3", []float32{1, 2, 3, 0.5, -0.25, 4}, nil, "1:3", 50, ".#.#..", 2, 7.75},
		// err 0.75 would become −2.75: not made, and the row ends.
		{"sign", []float32{0.5, 0.25, -3, 0.25, -0.25, 4}, nil, "1:3", 50, "..#..#", 0, 0.75},
	} {
		in := ones()
		if c.change != nil {
			c.change(in)
		}
		scores := make([]float32, 6)
		for j, v := range c.row {
			scores[j] = float32(math.Abs(float64(v)))
		}
		p := start(t, weightOf(1, 6, c.row...), in, scores, target(t, c.to), c.cycles)
		r := do(t, DSnoT, p)
		if got := grid(p.Kept); got != c.want || r.Exchanges != c.n || math.Abs(r.After-c.after) > 1e-6 {
			t.Errorf("%s: %s after %d exchanges, error %v; want %s, %d, %v", c.name, got, r.Exchanges, r.After, c.want, c.n, c.after)
		}
	}
}

// random is a problem like a layer's: a few loud channels, means that are not 0.
func random(tb testing.TB, seed uint64, rows, cols int, to pattern.Target, cycles int) Problem {
	tb.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	e := cpu.New(engine.F32)
	a := e.NewStats(cols, stats.Needs{Gram: true, Moments: true})
	mixing := make([]float32, cols)
	for j := range mixing {
		mixing[j] = float32(rng.NormFloat64())
	}
	for range 4 {
		x := tensor.NewMatrix(2*cols/4+3, cols)
		for t := range x.Rows {
			common := float32(rng.NormFloat64())
			for j := range cols {
				loud := float32(1 + 9*(j%17/16))
				x.Row(t)[j] = loud * (float32(rng.NormFloat64()) + mixing[j]*(0.3+0.7*common))
			}
		}
		a.Add(enginetest.Upload(e, x))
	}
	in := a.Input(4)
	w := weightOf(rows, cols)
	scores := make([]float32, rows*cols)
	for k := range scores {
		v := float32(rng.NormFloat64())
		w.Source().F32[k] = v
		scores[k] = float32(math.Abs(float64(v)) * math.Sqrt(in.ColSq[k%cols]))
	}
	return start(tb, w, in, scores, to, cycles)
}

// counts returns the number of kept weights of each row, or of each group.
func counts(m *mask.Mask, p pattern.Pattern) []int {
	of := m.Cols
	if p.Of != 0 {
		of = p.Of
	}
	n := make([]int, m.Rows*m.Cols/of)
	for i := range m.Rows {
		for j := range m.Cols {
			if m.Kept(i, j) {
				n[(i*m.Cols+j)/of]++
			}
		}
	}
	return n
}

// TestMethodsKeepCounts holds for every method: rows and groups keep as many as
// they kept, weights stay, exchanges are counted and within the limit, and threads
// change nothing.
func TestMethodsKeepCounts(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, method := range Methods() {
		for _, to := range []string{"30%", "60%", "70%", "2:4", "4:8", "1:4", "3:4"} {
			for _, cycles := range []int{1, 7, usual(method)} {
				t.Run(fmt.Sprintf("%s/%s/%d", method.Name, to, cycles), func(t *testing.T) {
					const rows, cols = 37, 120
					p := random(t, 1, rows, cols, target(t, to), cycles)
					was, weights, before := counts(p.Kept, p.Pattern), slices.Clone(p.W.Source().F32), grid(p.Kept)
					r := do(t, method, p)
					if !slices.Equal(counts(p.Kept, p.Pattern), was) {
						t.Error("counts changed")
					}
					if !slices.Equal(p.W.Source().F32, weights) {
						t.Error("weights changed")
					}
					moved, after := 0, grid(p.Kept)
					for k := range before {
						if before[k] != after[k] {
							moved++
						}
					}
					if r.Exchanges == 0 || r.Exchanges > rows*cycles || moved > 2*r.Exchanges || moved == 0 {
						t.Errorf("%d exchanges moved %d weights", r.Exchanges, moved)
					}
					runtime.GOMAXPROCS(5)
					again := random(t, 1, rows, cols, target(t, to), cycles)
					if s := do(t, method, again); s != r || grid(again.Kept) != after {
						t.Error("another number of threads gives another result")
					}
					runtime.GOMAXPROCS(2)
				})
			}
		}
	}
}

func TestMethodsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, method := range Methods() {
		p := random(t, 1, 300, 40, target(t, "50%"), usual(method))
		was := grid(p.Kept)
		if _, err := method.Run(ctx, p); !errors.Is(err, context.Canceled) || grid(p.Kept) != was {
			t.Errorf("%s: %v; mask as it was: %v", method.Name, err, grid(p.Kept) == was)
		}
	}
}

// usual returns how many exchanges a row has at most by default.
func usual(m Method) int { return param.Defaults(m.Params).Whole("refine_cycles") }

func TestMethodsDeclareWhatTheyRefine(t *testing.T) {
	for _, name := range Names() {
		m, err := Lookup(name)
		if err != nil || m.Name != name || usual(m) < 1 {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		d := param.Defaults(m.Params)
		if !m.Refines(true, d) || m.Refines(false, d) != (m.Name == "swaps") || !m.Refines(false, d.With("refine_layers", "all")) {
			t.Errorf("%s refines the attention %v, the rest %v", name, m.Refines(true, d), m.Refines(false, d))
		}
	}
	if _, err := Lookup("prayer"); err == nil || !strings.Contains(err.Error(), "dsnot") {
		t.Errorf("error %v", err)
	}
	if err := param.Check(DSnoT.Params, param.Values{"refine_layers": "mlp", "refine_cycles": 1}); err == nil || !strings.Contains(err.Error(), "want attention or all") {
		t.Errorf("error %v", err)
	}
}
