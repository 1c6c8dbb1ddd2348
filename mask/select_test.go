package mask

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/pattern"
)

func sparsity(tb testing.TB, s string) pattern.Sparsity {
	tb.Helper()
	p, err := pattern.ParseSparsity(s)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func mustSelect(tb testing.TB, scores []float32, rows, cols int, target pattern.Target) *Mask {
	tb.Helper()
	m, err := Select(scores, rows, cols, target)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// grid is m with # for kept and . for pruned, a row a word.
func grid(m *Mask) string {
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

// 2 × 4, by hand. The lowest four of all are 0, 1, and the first two of the 2s.
func TestSelectByHand(t *testing.T) {
	scores := []float32{
		2, 2, 2, 9,
		5, 0, 1, 4,
	}
	half := sparsity(t, "50%")
	for _, c := range []struct {
		target pattern.Target
		want   string
	}{
		{pattern.Target{Sparsity: half}, "..## #..#"},
		{pattern.Target{Sparsity: half, Group: pattern.Row}, "..## #..#"},
		{pattern.Target{Sparsity: sparsity(t, "40%")}, ".### #..#"}, // ⌊3.2⌋
		{pattern.Target{Sparsity: sparsity(t, "0")}, "#### ####"},
		{pattern.Target{Sparsity: sparsity(t, "24%"), Group: pattern.Row}, "#### ####"}, // ⌊0.96⌋ a row
		{pattern.Target{Sparsity: sparsity(t, "99%")}, "...# ...."},
		{pattern.Target{Pattern: pattern.Pattern{Keep: 1, Of: 2}}, ".#.# #..#"},
		{pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}, "..## #..#"},
		{pattern.Target{Pattern: pattern.Pattern{Keep: 1, Of: 4}}, "...# #..."},
	} {
		if got := grid(mustSelect(t, scores, 2, 4, c.target)); got != c.want {
			t.Errorf("%+v: %s, want %s", c.target, got, c.want)
		}
	}
}

// sorted is Select by stable sorts.
func sorted(scores []float32, rows, cols int, target pattern.Target) []bool {
	kept := make([]bool, len(scores))
	group, k := rows*cols, target.Sparsity.CountOf(rows*cols)
	switch {
	case target.Pattern.Of != 0:
		group, k = target.Pattern.Of, target.Pattern.Of-target.Pattern.Keep
	case target.Group == pattern.Row:
		group, k = cols, target.Sparsity.CountOf(cols)
	}
	for lo := 0; lo < len(scores); lo += group {
		at := make([]int, group)
		for i := range at {
			at[i] = lo + i
		}
		slices.SortStableFunc(at, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })
		for _, i := range at[k:] {
			kept[i] = true
		}
	}
	return kept
}

// shapes of scores: what a method gives, and what makes a search for the limit go wrong.
var kinds = map[string]func(rng *rand.Rand, i int) float32{
	"normal":    func(rng *rand.Rand, _ int) float32 { return float32(math.Abs(rng.NormFloat64())) },
	"heavy":     func(rng *rand.Rand, _ int) float32 { return float32(math.Exp(9 * rng.NormFloat64())) },
	"equal":     func(rng *rand.Rand, _ int) float32 { return 3 },
	"zero":      func(rng *rand.Rand, _ int) float32 { return 0 },
	"few":       func(rng *rand.Rand, _ int) float32 { return float32(rng.IntN(5)) },
	"minusZero": func(rng *rand.Rand, _ int) float32 { return float32(math.Copysign(float64(rng.IntN(2)), -1)) + 0 },
	"half zero": func(rng *rand.Rand, _ int) float32 { return max(0, float32(rng.NormFloat64())) },
	"subnormal": func(rng *rand.Rand, _ int) float32 { return math.Float32frombits(rng.Uint32N(1 << 12)) },
	"ascending": func(rng *rand.Rand, i int) float32 { return float32(i) },
	"one large": func(rng *rand.Rand, i int) float32 { return float32(1 / (1 + float64(i*i))) },
	"extremes": func(rng *rand.Rand, _ int) float32 {
		return []float32{0, 1e-45, 1e-30, 1, 3e38, math.MaxFloat32}[rng.IntN(6)]
	},
}

func fill(kind string, seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 0))
	s := make([]float32, n)
	for i := range s {
		s[i] = kinds[kind](rng, i)
		if s[i] < 0 {
			s[i] = float32(math.Copysign(0, -1)) // the only negative score
		}
	}
	return s
}

// Against sorting, at every level, with few and many threads: exact counts,
// ties by index, nothing pruned above something kept.
func TestSelectIsStableSort(t *testing.T) {
	var targets []pattern.Target
	for _, s := range []string{"0", "1%", "29%", "50%", "60%", "70%", "99.9%"} {
		targets = append(targets, pattern.Target{Sparsity: sparsity(t, s)},
			pattern.Target{Sparsity: sparsity(t, s), Group: pattern.Row})
	}
	for _, p := range []pattern.Pattern{{Keep: 1, Of: 2}, {Keep: 2, Of: 4}, {Keep: 4, Of: 8}, {Keep: 1, Of: 4}, {Keep: 2, Of: 3}} {
		targets = append(targets, pattern.Target{Pattern: p})
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for kind := range kinds {
		for _, shape := range [][2]int{{1, 1}, {1, 96}, {96, 1}, {7, 24}, {33, 120}, {3, 1000}, {66, 384}} {
			rows, cols := shape[0], shape[1]
			scores := fill(kind, 1, rows*cols)
			was := slices.Clone(scores)
			for _, target := range targets {
				if _, err := target.Pruned(rows, cols); err != nil {
					continue
				}
				want := sorted(scores, rows, cols, target)
				for n, level := range cpu.Levels() {
					restore := cpu.Use(level)
					runtime.GOMAXPROCS(1 + 2*n)
					m := mustSelect(t, scores, rows, cols, target)
					restore()
					for i, w := range want {
						if m.Kept(i/cols, i%cols) != w {
							t.Fatalf("%s %v %+v %v: [%d] kept %v", kind, shape, target, level, i, !w)
						}
					}
					checkCounts(t, m, target)
				}
			}
			if !slices.EqualFunc(scores, was, func(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }) {
				t.Errorf("%s %v: Select changed the scores", kind, shape)
			}
		}
	}
}

func checkCounts(t *testing.T, m *Mask, target pattern.Target) {
	t.Helper()
	want, err := target.Pruned(m.Rows, m.Cols)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for i := range m.Rows {
		sum += m.PrunedInRow(i)
	}
	if m.Pruned() != want || sum != want {
		t.Errorf("%+v of %d × %d: pruned %d, rows sum to %d, want %d", target, m.Rows, m.Cols, m.Pruned(), sum, want)
	}
}

// Larger than the sample of a whole matrix, in layouts that mislead it too.
func TestSelectSampled(t *testing.T) {
	const rows, cols = 131, 1027
	for kind := range kinds {
		scores := fill(kind, 2, rows*cols)
		for _, s := range []string{"0.5%", "50%", "99.7%"} {
			target := pattern.Target{Sparsity: sparsity(t, s)}
			m := mustSelect(t, scores, rows, cols, target)
			for i, w := range sorted(scores, rows, cols, target) {
				if m.Kept(i/cols, i%cols) != w {
					t.Fatalf("%s %s: [%d] kept %v", kind, s, i, !w)
				}
			}
			checkCounts(t, m, target)
		}
	}
	// All that the sample sees is large.
	scores := fill("normal", 3, rows*cols)
	seen := map[float32]bool{}
	for _, v := range sample(scores) {
		seen[v] = true
	}
	for i, v := range scores {
		if seen[v] {
			scores[i] += 100
		}
	}
	target := pattern.Target{Sparsity: sparsity(t, "50%")}
	m := mustSelect(t, scores, rows, cols, target)
	for i, w := range sorted(scores, rows, cols, target) {
		if m.Kept(i/cols, i%cols) != w {
			t.Fatalf("misled: [%d] kept %v", i, !w)
		}
	}
}

func TestSelectRefusesWhatIsNoScore(t *testing.T) {
	targets := []pattern.Target{{Sparsity: sparsity(t, "50%")}, {Sparsity: sparsity(t, "50%"), Group: pattern.Row},
		{Pattern: pattern.Pattern{Keep: 2, Of: 4}}, {}}
	for _, rows := range []int{40, 400} { // below and above the sample's size
		const cols = 264
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -1, -1e-45} {
			for _, target := range targets {
				scores := fill("normal", 4, rows*cols)
				for i := rows - 3; i < rows; i++ {
					scores[i*cols+259] = float32(v)
				}
				m, err := Select(scores, rows, cols, target)
				want := fmt.Sprintf("score [%d, 259] is %v, want a finite number of at least 0", rows-3, float32(v))
				if m != nil || err == nil || err.Error() != want {
					t.Errorf("%+v: error %v, want %s", target, err, want)
				}
				for i := range scores {
					scores[i] = float32(v)
				}
				if _, err := Select(scores, rows, cols, target); err == nil || !strings.Contains(err.Error(), "[0, 0]") {
					t.Errorf("%+v, all %v: error %v", target, v, err)
				}
			}
		}
	}
}

func TestSelectErrors(t *testing.T) {
	_, err := Select(make([]float32, 12), 2, 6, pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}})
	if want := "6 columns, want a multiple of 4 for pattern 2:4"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	for _, shape := range [][2]int{{0, 0}, {0, 4}, {4, 0}} {
		for _, target := range []pattern.Target{{Sparsity: sparsity(t, "50%")}, {Group: pattern.Row}, {Pattern: pattern.Pattern{Keep: 2, Of: 4}}} {
			if m := mustSelect(t, nil, shape[0], shape[1], target); m.Pruned() != 0 {
				t.Errorf("%v: pruned %d", shape, m.Pruned())
			}
		}
	}
	defer func() {
		if got, want := recover(), "mask: Select: len(scores) = 3, want 2 × 2"; got != want {
			t.Errorf("panic %v, want %s", got, want)
		}
	}()
	_, _ = Select(make([]float32, 3), 2, 2, pattern.Target{})
}
