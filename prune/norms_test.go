package prune_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

func noBlock(*model.Block) error { return nil }

func crepe(alpha, beta, gamma float64, pattern string) recipe.Recipe {
	r := recipe.Recipe{Method: "crepe", Params: param.Values{"alpha": alpha, "beta": beta, "gamma": gamma, "power": 0.5}, Sparsity: "60%", Compare: "matrix"}
	if pattern != "" {
		r.Sparsity, r.Compare, r.Pattern = "", "", pattern
	}
	return r
}

// bitsApart returns how many of the weights of block 0, and of all, only one of a and b
// keeps.
func bitsApart(a, b prune.Masks) (first, all, total int) {
	for name := range a {
		for part, k := range a[name] {
			for i := range k.Rows {
				for j := range k.Cols {
					total++
					if k.Kept(i, j) != b[name][part].Kept(i, j) {
						all++
						if strings.HasPrefix(name, "model.layers.0.") {
							first++
						}
					}
				}
			}
		}
	}
	return first, all, total
}

// By the norms that a recipe leaves its own masks are those of Prune. Those of another are
// in the first block, where what enters is the same, and nearly in the others, much nearer
// than the two recipes are.
func TestNormsPruneNearlyAsPrune(t *testing.T) {
	for fixture, patterns := range map[string][]string{"": {"", "2:4"}, "mixtral": {""}, "qwen3_moe": {""}, "qwen3_5": {""}} {
		var m *model.Model
		if fixture == "" {
			_, m = openDemo(t)
		} else {
			_, m = openModel(t, filepath.Join(fixturesDir, fixture))
		}
		text := tokens(96, 24, 7)
		for _, w := range text.Tokens {
			for i := range w {
				w[i] %= int32(m.Config.Vocab)
			}
		}
		p := prune.NewInMemory(m, text)
		for _, pattern := range patterns {
			one, other := crepe(0.7, 0.1, 0.2, pattern), crepe(1, 1, 0, pattern)
			norms, err := p.Norms(t.Context(), "x", other)
			if err != nil {
				t.Fatal(err)
			}
			blocks := 0
			got, err := norms.Prune(t.Context(), "x", one, func(*model.Block) error { blocks++; return nil })
			if err != nil || blocks != m.Blocks() {
				t.Fatalf("%v after %d blocks", err, blocks)
			}
			want, err := p.Prune(t.Context(), "x", one, noBlock)
			if err != nil {
				t.Fatal(err)
			}
			another, err := norms.Prune(t.Context(), "x", other, noBlock)
			if err != nil {
				t.Fatal(err)
			}
			itself, err := p.Prune(t.Context(), "x", other, noBlock)
			if err != nil {
				t.Fatal(err)
			}
			if _, all, _ := bitsApart(another, itself); all != 0 {
				t.Errorf("%s %s: %d bits apart of the recipe whose norms they are, want none", fixture, pattern, all)
			}
			first, all, total := bitsApart(got, want)
			_, recipes, _ := bitsApart(got, another)
			t.Logf("%s %s: %d bits of block 0 and %d of %d apart, the recipes %d", fixture, pattern, first, all, total, recipes)
			if first != 0 && fixture == "" {
				t.Errorf("%s %s: %d bits of block 0 apart, want none", fixture, pattern, first)
			}
			if total == 0 || all > recipes {
				t.Errorf("%s %s: %d of %d bits apart, the recipes %d", fixture, pattern, all, total, recipes)
			}
		}
	}
}

func TestTryingNeedsNormsAlone(t *testing.T) {
	_, m := openDemo(t)
	norms, err := prune.NewInMemory(m, tokens(4, 16, 7)).Norms(t.Context(), "x", crepe(1, 1, 0, ""))
	if err != nil {
		t.Fatal(err)
	}
	r := crepe(1, 1, 0, "")
	r.Refine = "dsnot"
	if _, err := norms.Prune(t.Context(), "x", r, noBlock); err == nil || !strings.Contains(err.Error(), "reads more of it than norms") {
		t.Errorf("error %v, want that norms are not enough", err)
	}
}
