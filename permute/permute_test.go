package permute

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
)

// TestEqualsNumPy: tools/golden_permute.py made the scores and, by sorting every
// group with every candidate, the orders. Retained scores are float64 in both;
// gains are float32 here, and no two assignments of these are that near.
func TestEqualsNumPy(t *testing.T) {
	text, err := os.ReadFile("testdata/permute.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Rows, Cols, Keep, Of int
		Scores               []float32
		Before               float64
		CP, LSA              []int
		CPAfter              float64 `json:"cp_after"`
		LSAAfter             float64 `json:"lsa_after"`
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) != 7 {
		t.Fatalf("%d cases (%v), want 7", len(cases), err)
	}
	near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-12*b }
	for _, c := range cases {
		p := pattern.Pattern{Keep: c.Keep, Of: c.Of}
		for _, level := range cpu.Levels() {
			restore := cpu.Use(level)
			for _, want := range []struct {
				m     Method
				order []int
				after float64
			}{{CP, c.CP, c.CPAfter}, {LSA, c.LSA, c.LSAAfter}} {
				got := want.m.Find(c.Scores, c.Rows, c.Cols, p, 1)
				if want.after <= c.Before {
					want.order, want.after = nil, c.Before
				}
				if !slices.Equal(got.Order, want.order) || !near(got.Before, c.Before) || !near(got.After, want.after) {
					t.Errorf("%s of %d × %d for %s at %v: order %v, %v to %v, want %v, %v to %v",
						want.m.Name, c.Rows, c.Cols, p, level, got.Order, got.Before, got.After, want.order, c.Before, want.after)
				}
			}
			restore()
		}
	}
}

func randomScores(rng *rand.Rand, rows, cols int) []float32 {
	scale := make([]float64, cols)
	for j := range scale {
		scale[j] = math.Exp(rng.NormFloat64())
	}
	s := make([]float32, rows*cols)
	for i := range s {
		s[i] = float32(math.Abs(rng.NormFloat64()) * scale[i%cols])
	}
	return s
}

// TestOrderKeepsWhatIsReported: the order has every column once, a mask selected
// in it keeps the score that is reported, never less than without, LSA
// no less than CP, whatever the number of threads and blocks.
func TestOrderKeepsWhatIsReported(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	rng := rand.New(rand.NewPCG(1, 0))
	for _, c := range []struct {
		rows, cols int
		p          pattern.Pattern
	}{{1, 4, pattern.Pattern{Keep: 2, Of: 4}}, {100, 256, pattern.Pattern{Keep: 2, Of: 4}}, {1500, 64, pattern.Pattern{Keep: 4, Of: 8}},
		{31, 96, pattern.Pattern{Keep: 1, Of: 3}}, {64, 128, pattern.Pattern{Keep: 16, Of: 32}}} {
		s := randomScores(rng, c.rows, c.cols)
		cp := CP.Find(s, c.rows, c.cols, c.p, 1)
		for _, blocks := range []int{1, 3, 16} {
			var first Result
			for _, threads := range []int{1, 2, 5} {
				runtime.GOMAXPROCS(threads)
				got := LSA.Find(s, c.rows, c.cols, c.p, blocks)
				if threads == 1 {
					first = got
				}
				if !slices.Equal(got.Order, first.Order) || got.After != first.After {
					t.Errorf("%+v: %d threads differ from one", c, threads)
				}
			}
			if first.After < first.Before || first.After < cp.After*(1-1e-6) {
				t.Errorf("%+v in %d blocks: keeps %v, want at least %v and CP's %v", c, blocks, first.After, first.Before, cp.After)
			}
			if first.Order == nil {
				continue
			}
			sorted := slices.Sorted(slices.Values(first.Order))
			for k, j := range sorted {
				if k != j {
					t.Fatalf("%+v: order %v", c, first.Order)
				}
			}
			kept, err := mask.SelectIn(s, c.rows, c.cols, c.p, first.Order)
			if err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for i := range c.rows {
				for j := range c.cols {
					if kept.Kept(i, j) {
						sum += float64(s[i*c.cols+j])
					}
				}
			}
			if !(math.Abs(sum-first.After) <= 1e-12*sum) || kept.Pruned() != c.rows*c.cols/c.p.Of*(c.p.Of-c.p.Keep) {
				t.Errorf("%+v: the mask keeps %v, reported %v; %d pruned", c, sum, first.After, kept.Pruned())
			}
		}
	}
}

// By hand: 2:4 of one row 4 3 2 1 1 1 1 1 keeps 7 + 2; dealt, the sorted columns
// 3…7 and 2, 1, 0 make groups that keep 4+3 no longer together.
func TestWorseOrdersAreGivenUp(t *testing.T) {
	// Equal columns: nothing to win, so they stay.
	s := []float32{1, 1, 1, 1, 1, 1, 1, 1}
	for _, m := range Methods() {
		if got := m.Find(s, 1, 8, pattern.Pattern{Keep: 2, Of: 4}, 1); got.Order != nil || got.Before != 4 || got.After != 4 {
			t.Errorf("%s: %+v, want the columns as they are, which keep 4", m.Name, got)
		}
	}
	// Four large columns in one group of two rows: apart, all are kept.
	s = []float32{9, 9, 9, 9, 1, 1, 1, 1, 8, 8, 8, 8, 1, 1, 1, 1}
	for _, m := range Methods() {
		if got := m.Find(s, 2, 8, pattern.Pattern{Keep: 2, Of: 4}, 1); got.Before != 38 || got.After != 68 {
			t.Errorf("%s: %+v, want 38 to 68", m.Name, got)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	for _, c := range []struct {
		name       string
		rows, cols int
		p          pattern.Pattern
		blocks     int
	}{
		{"4096x4096/2:4", 4096, 4096, pattern.Pattern{Keep: 2, Of: 4}, 1},
		{"4096x4096/2:4/fast", 4096, 4096, pattern.Pattern{Keep: 2, Of: 4}, 4},
		{"4096x4096/4:8", 4096, 4096, pattern.Pattern{Keep: 4, Of: 8}, 1},
		{"4096x11008/2:4", 4096, 11008, pattern.Pattern{Keep: 2, Of: 4}, 1},
	} {
		s := randomScores(rand.New(rand.NewPCG(1, 0)), c.rows, c.cols)
		for _, m := range Methods() {
			b.Run(c.name+"/"+m.Name, func(b *testing.B) {
				for b.Loop() {
					m.Find(s, c.rows, c.cols, c.p, c.blocks)
				}
			})
		}
	}
}
