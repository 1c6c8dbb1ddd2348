package prune_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

// TestSparseExperts calibrates mixtures of experts on so little that some
// experts see too few tokens, and some none. Those are named and pruned by
// magnitude; the others are not.
func TestSparseExperts(t *testing.T) {
	for _, c := range []struct {
		fixture        string
		windows        int
		none, few, all bool // experts of the first block that it takes to see no, too few and enough tokens
	}{
		{"mixtral", 5, false, true, true},
		{"mixtral", 0, true, true, false}, // one window of two tokens
		{"qwen3_moe", 7, false, true, true},
		{"qwen3_moe", 0, true, true, false},
	} {
		t.Run(fmt.Sprintf("%s/%d", c.fixture, c.windows), func(t *testing.T) {
			r := recipe.Recipe{Method: "wanda", Compare: "matrix"}
			opt := fixtureOptions(t, c.fixture, r)
			opt.Evaluation = nil
			opt.Calibration.Tokens = sparseTokens(opt.Calibration.Tokens, c.windows)
			opt.Calibration.SeqLen = len(opt.Calibration.Tokens[0])
			var warned []string
			opt.Warn = func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) }
			inv, m := openModel(t, filepath.Join(fixturesDir, c.fixture))
			plan, err := prune.MakePlan(inv, m, opt)
			if err != nil {
				t.Fatal(err)
			}
			seen := tokensSeen(t, m, opt.Calibration)
			rep, err := prune.Run(t.Context(), inv, m, opt)
			if err != nil {
				t.Fatal(err)
			}
			checkCounts(t, inv, plan, rep, r)

			magnitude := opt
			magnitude.Recipe.Method, magnitude.Output = "magnitude", filepath.Join(t.TempDir(), "magnitude")
			if _, err := prune.Run(t.Context(), inv, m, magnitude); err != nil {
				t.Fatal(err)
			}
			byMagnitude := map[string][]byte{}
			eachLinear(t, magnitude.Output, func(l *model.Linear) { byMagnitude[l.Name] = bytes.Clone(weightOf(t, l).Bytes()) })
			eachLinear(t, opt.Output, func(l *model.Linear) {
				fellBack := slices.ContainsFunc(warned, func(w string) bool { return strings.HasPrefix(w, expert(l.Name)+" saw ") })
				if fellBack && !strings.Contains(l.Name, ".experts.") {
					t.Errorf("%s is no expert and fell back", l.Name)
				}
				if bytes.Equal(weightOf(t, l).Bytes(), byMagnitude[l.Name]) != fellBack {
					t.Errorf("%s: warned of: %v, yet as pruned by magnitude: %v", l.Name, fellBack, !fellBack)
				}
			})
			if sorted := slices.Sorted(slices.Values(warned)); len(slices.Compact(sorted)) != len(warned) {
				t.Errorf("an expert is warned of twice: %q", warned)
			}
			var none, few, all bool
			for name, n := range seen {
				want := fmt.Sprintf("%s saw %d tokens, fewer than %d: pruned by magnitude", expert(name), n, prune.MinTokens)
				if slices.Contains(warned, want) != (n < prune.MinTokens) {
					t.Errorf("%s saw %d tokens; warned of: %v", name, n, n >= prune.MinTokens)
				}
				none, few, all = none || n == 0, few || n > 0 && n < prune.MinTokens, all || n >= prune.MinTokens
			}
			if none != c.none || few != c.few || all != c.all {
				t.Errorf("experts that saw no token %v, too few %v, enough %v: the test says %+v", none, few, all, c)
			}
		})
	}
}

// expert is the name of the expert that a Linear is of.
func expert(linear string) string { return linear[:strings.LastIndexByte(linear, '.')] }

// sparseTokens is n windows made of ids, or one of two tokens.
func sparseTokens(ids [][]int32, n int) [][]int32 {
	if n == 0 {
		return [][]int32{ids[0][:2]}
	}
	var all [][]int32
	for i := range n {
		w := slices.Clone(ids[i%len(ids)])
		if i >= len(ids) {
			slices.Reverse(w)
			w[0] = int32(i)
		}
		all = append(all, w)
	}
	return all
}

// tokensSeen counts the tokens that reach each expert's Linears in the first
// block, which no pruning has come before.
func tokensSeen(t *testing.T, m *model.Model, c *windows.Set) map[string]int {
	t.Helper()
	b, err := m.LoadBlock(0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	seen := map[string]int{}
	for _, in := range b.Inputs() {
		for _, l := range in.Linears {
			if strings.Contains(l.Name, ".experts.") {
				seen[l.Name] = 0
			}
		}
	}
	for _, ids := range c.Tokens {
		x := m.NewMat(len(ids))
		if err := m.Embed(x, ids); err != nil {
			t.Fatal(err)
		}
		err := b.Run(m.NewState(), x, model.Mode{Keep: true, Tap: func(in *model.Input, x engine.Mat) {
			for _, l := range in.Linears {
				if _, ok := seen[l.Name]; ok {
					seen[l.Name] += x.Rows
				}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	return seen
}

// TestExpertsWithinABudget prunes mixtures with less memory than a block
// takes, down to one expert at a time: the bytes written are the same, those
// of a resumed run too.
func TestExpertsWithinABudget(t *testing.T) {
	for _, c := range []struct {
		fixture string
		r       recipe.Recipe
	}{{"mixtral", recipe.Recipe{}}, {"qwen3_moe", recipe.Recipe{}}, {"mixtral", dense(updates["crepe+admm"])}, {"qwen3_moe", dense(updates["sparsegpt"])}} {
		name := c.fixture
		t.Run(name+" "+c.r.Method, func(t *testing.T) {
			opt := fixtureOptions(t, name, c.r)
			inv, m := openModel(t, filepath.Join(fixturesDir, name))
			roomy, err := prune.MakePlan(inv, m, opt)
			if err != nil || roomy.Memory.Experts != 0 {
				t.Fatalf("experts held to %d bytes (%v), want no limit", roomy.Memory.Experts, err)
			}
			if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
				t.Fatal(err)
			}
			want := content(t, opt.Output)

			opt.Memory = 1
			least, err := prune.MakePlan(inv, m, opt)
			if !errors.Is(err, prune.ErrMemory) || least.Memory.Block >= roomy.Memory.Block {
				t.Fatalf("block of %d bytes (%v), want below %d and %v", least.Memory.Block, err, roomy.Memory.Block, prune.ErrMemory)
			}
			most := roomy.Memory.Total() - roomy.Memory.Hidden - roomy.Memory.Ahead
			for _, budget := range []int64{least.Memory.Total(), (least.Memory.Total() + most) / 2, most - 1} {
				opt.Memory = budget
				opt.Output = filepath.Join(t.TempDir(), "out")
				plan, err := prune.MakePlan(inv, m, opt)
				if err != nil || plan.Memory.Experts == 0 || plan.Memory.Total() > budget {
					t.Fatalf("budget %d: %+v (%v), want experts held to less", budget, plan.Memory, err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				opt.Progress = func(u progress.Update) {
					if strings.HasPrefix(u.Phase, "block 2") {
						cancel()
					}
				}
				if _, err := prune.Run(ctx, inv, m, opt); !errors.Is(err, context.Canceled) {
					t.Fatalf("got %v, want it cancelled", err)
				}
				opt.Progress, opt.Resume = nil, true
				if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
					t.Fatal(err)
				}
				compare(t, fmt.Sprintf("budget %d", budget), content(t, opt.Output), want)
			}
		})
	}
}
