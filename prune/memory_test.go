package prune_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// Masks made in memory, written, are what Run writes, byte for byte: also of the
// second recipe, for which what enters block 0 is known.
func TestMasksInMemoryAreThoseOfRun(t *testing.T) {
	const fixture = "llama3-gqa"
	inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
	text := fixtureIDs(t, fixture)
	for name, place := range map[string]engine.Place{"in memory": {}, "in a file": {Dir: t.TempDir()}} {
		in := prune.NewInMemory(m, text)
		in.States = place
		for _, r := range []recipe.Recipe{{Method: "crepe"}, {Method: "wanda", Pattern: "2:4"}, {Method: "ria", Skip: "o_proj"}} {
			opt := fixtureOptions(t, fixture, r)
			blocks := 0
			masks, err := in.Prune(t.Context(), "x", r, func(*model.Block) error { blocks++; return nil })
			if err != nil || blocks != m.Blocks() {
				t.Fatalf("%s: %v after %d blocks", name, err, blocks)
			}
			if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
				t.Fatal(err)
			}
			want := content(t, opt.Output)
			opt.Output, opt.Masks = t.TempDir(), masks
			if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
				t.Fatal(err)
			}
			compareMasked(t, name+", "+r.Method, content(t, opt.Output), want)
		}
	}
	opt := fixtureOptions(t, fixture, recipe.Recipe{Method: "crepe"})
	opt.Masks = prune.Masks{}
	if _, err := prune.Run(t.Context(), inv, m, opt); err == nil || !strings.Contains(err.Error(), "q_proj.weight: no mask for this Linear") {
		t.Errorf("error %v, want one that names the first Linear", err)
	}
}

// Masks that do not prune what the recipe asks for are refused before anything of
// the Linear is written.
func TestMasksOfAnotherTargetAreNotWritten(t *testing.T) {
	inv, m := openDemo(t)
	opt := options(t.TempDir())
	opt.Evaluation = nil
	more := opt.Recipe
	more.Sparsity = "60%"
	var err error
	if opt.Masks, err = prune.NewInMemory(m, opt.Calibration).Prune(t.Context(), "x", more, noBlock); err != nil {
		t.Fatal(err)
	}
	_, err = prune.Run(t.Context(), inv, m, opt)
	if want := "block 0: tensor model.layers.0.self_attn.q_proj.weight: mask: row 0: 153 pruned, want 128 (50% of 256)"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	opt.Masks, opt.Resume = nil, true
	if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
		t.Errorf("after the refusal: %v", err)
	}
}
