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
	r := recipe.Recipe{Method: "crepe", Params: param.Values{"alpha": alpha, "beta": beta, "gamma": gamma}, Sparsity: "60%"}
	if pattern != "" {
		r.Sparsity, r.Pattern = "", pattern
	}
	return r
}

// bitsApart returns how many of the weights only one of a and b keeps.
func bitsApart(a, b prune.Masks) (apart, total int) {
	for name := range a {
		for part, k := range a[name] {
			for i := range k.Rows {
				for j := range k.Cols {
					total++
					if k.Kept(i, j) != b[name][part].Kept(i, j) {
						apart++
					}
				}
			}
		}
	}
	return apart, total
}

// apart is by how many of total bits the masks of two recipes differ.
type apart struct {
	itself   int // the reference's, pruned and screened
	screened int // the other's, pruned and screened
	recipes  int // the reference's and the other's, pruned
	total    int
}

// screen screens other by ria on p, and both recipes are pruned too.
func screen(t *testing.T, m *model.Model, p *prune.InMemory, ria, other recipe.Recipe) (a apart) {
	t.Helper()
	ref, masks, err := p.Reference(t.Context(), "x", ria, noBlock)
	if err != nil {
		t.Fatal(err)
	}
	same, err := ref.Screen(t.Context(), "x", ria, noBlock)
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	screened, err := ref.Screen(t.Context(), "x", other, func(*model.Block) error { blocks++; return nil })
	if err != nil || blocks != m.Blocks() {
		t.Fatalf("%v after %d blocks", err, blocks)
	}
	want, err := p.Prune(t.Context(), "x", other, noBlock)
	if err != nil {
		t.Fatal(err)
	}
	a.itself, a.total = bitsApart(masks, same)
	a.screened, _ = bitsApart(want, screened)
	a.recipes, _ = bitsApart(want, masks)
	return a
}

// What the reference saw is exact for itself: screened it has the masks that Prune
// makes. Another recipe's are nearly Prune's, much nearer than one recipe is to the
// other; with as many sequences to screen as there are, but for rounding.
func TestScreenIsNearlyPrune(t *testing.T) {
	_, m := openDemo(t)
	for _, pattern := range []string{"", "2:4"} {
		for sequences, limit := range map[int]float64{4: 1e-5, 96: 0.01} {
			p := prune.NewInMemory(m, tokens(sequences, 16, 7))
			a := screen(t, m, p, crepe(1, 1, 0, pattern), crepe(0.7, 0.1, 0.2, pattern))
			t.Logf("%q, %d sequences: %+v", pattern, sequences, a)
			if a.itself != 0 {
				t.Errorf("%d sequences: the reference itself is screened %d bits apart", sequences, a.itself)
			}
			if float64(a.screened) > limit*float64(a.total) || a.screened > a.recipes/4 {
				t.Errorf("%q, %d sequences: %d of %d bits apart, the recipes %d", pattern, sequences, a.screened, a.total, a.recipes)
			}
		}
	}
}

// Experts that few tokens reach in screening are taken as the reference saw them.
func TestScreenExperts(t *testing.T) {
	for _, fixture := range []string{"mixtral", "qwen3_moe", "qwen3_5"} {
		_, m := openModel(t, filepath.Join(fixturesDir, fixture))
		text := tokens(96, 24, 7)
		for _, w := range text.Tokens {
			for i := range w {
				w[i] %= int32(m.Config.Vocab)
			}
		}
		a := screen(t, m, prune.NewInMemory(m, text), crepe(1, 1, 0, ""), crepe(0.7, 0.1, 0.2, ""))
		t.Logf("%s: %+v", fixture, a)
		if a.itself != 0 || a.total == 0 {
			t.Errorf("%s: the reference itself is screened %d of %d bits apart", fixture, a.itself, a.total)
		}
		if 3*a.screened > 2*a.recipes { // random weights: two recipes are hardly further apart than two texts
			t.Errorf("%s: %d of %d bits apart, the recipes %d", fixture, a.screened, a.total, a.recipes)
		}
	}
}

func TestScreenNeedsNormsAlone(t *testing.T) {
	_, m := openDemo(t)
	p := prune.NewInMemory(m, tokens(4, 16, 7))
	r := crepe(1, 1, 0, "")
	r.Refine = "dsnot"
	if _, _, err := p.Reference(t.Context(), "x", r, noBlock); err == nil || !strings.Contains(err.Error(), "reads more of it than norms") {
		t.Errorf("error %v, want one that says what is missing", err)
	}
}
