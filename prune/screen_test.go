package prune_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

func noBlock(model.Block) error { return nil }

func crepe(alpha, beta, gamma float64, pattern string) recipe.Recipe {
	r := recipe.Recipe{Method: "crepe", Alpha: &alpha, Beta: &beta, Gamma: &gamma, Sparsity: "60%"}
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

// What the reference saw is exact for itself: screened it has the masks that Prune
// makes. Another recipe's are nearly Prune's, much nearer than one recipe is to the
// other; with as many sequences to screen as there are, but for rounding.
func TestScreenIsNearlyPrune(t *testing.T) {
	_, m := openDemo(t)
	for _, pattern := range []string{"", "2:4"} {
		ria, other := crepe(1, 1, 0, pattern), crepe(0.7, 0.1, 0.2, pattern)
		for sequences, limit := range map[int]float64{4: 1e-5, 96: 0.01} {
			p := prune.NewInMemory(m, tokens(sequences, 16, 7))
			ref, masks, err := p.Reference(t.Context(), "x", ria, noBlock)
			if err != nil {
				t.Fatal(err)
			}
			same, err := ref.Screen(t.Context(), "x", ria, noBlock)
			if err != nil {
				t.Fatal(err)
			}
			if n, _ := bitsApart(masks, same); n != 0 {
				t.Errorf("%d sequences: the reference itself is screened %d bits apart", sequences, n)
			}
			blocks := 0
			screened, err := ref.Screen(t.Context(), "x", other, func(model.Block) error { blocks++; return nil })
			if err != nil || blocks != m.Blocks() {
				t.Fatalf("%v after %d blocks", err, blocks)
			}
			want, err := p.Prune(t.Context(), "x", other, noBlock)
			if err != nil {
				t.Fatal(err)
			}
			n, total := bitsApart(want, screened)
			differ, _ := bitsApart(want, masks)
			t.Logf("%q, %d sequences: %d of %d bits apart, the recipes %d", pattern, sequences, n, total, differ)
			if float64(n) > limit*float64(total) || n > differ/4 {
				t.Errorf("%q, %d sequences: %d of %d bits apart, the recipes %d", pattern, sequences, n, total, differ)
			}
		}
	}
}

// Experts that few tokens reach in screening are taken as the reference saw them.
func TestScreenExperts(t *testing.T) {
	for _, fixture := range []string{"mixtral", "qwen3_moe", "qwen3_5"} {
		r := crepe(1, 1, 0, "")
		_, m := openModel(t, filepath.Join(fixturesDir, fixture))
		text := tokens(96, 24, 7)
		for _, w := range text.Tokens {
			for i := range w {
				w[i] %= int32(m.Config.Vocab)
			}
		}
		p := prune.NewInMemory(m, text)
		ref, masks, err := p.Reference(t.Context(), "x", r, noBlock)
		if err != nil {
			t.Fatal(err)
		}
		same, err := ref.Screen(t.Context(), "x", r, noBlock)
		if err != nil {
			t.Fatal(err)
		}
		if n, total := bitsApart(masks, same); n != 0 || total == 0 {
			t.Errorf("%s: the reference itself is screened %d of %d bits apart", fixture, n, total)
		}
		other := crepe(0.7, 0.1, 0.2, "")
		screened, err := ref.Screen(t.Context(), "x", other, noBlock)
		if err != nil {
			t.Fatal(err)
		}
		want, err := p.Prune(t.Context(), "x", other, noBlock)
		if err != nil {
			t.Fatal(err)
		}
		n, total := bitsApart(want, screened)
		differ, _ := bitsApart(want, masks)
		t.Logf("%s: %d of %d bits apart, the recipes %d", fixture, n, total, differ)
		if 3*n > 2*differ { // random weights: two recipes are hardly further apart than two texts
			t.Errorf("%s: %d of %d bits apart, the recipes %d", fixture, n, total, differ)
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
