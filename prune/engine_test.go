package prune_test

import (
	"path/filepath"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// TestAnotherFormOfWeights prunes with an engine that keeps weights in a form of
// its own, so that an edit counts only where it is written back: to the same
// bytes, propagation, permutation, refinement, update and allocation included.
func TestAnotherFormOfWeights(t *testing.T) {
	const fixture = "llama3-gqa"
	for name, r := range map[string]recipe.Recipe{
		"2:4":       {Method: "wanda", Pattern: "2:4", Permute: "cp", Refine: "swaps", Update: "sparsegpt"},
		"allocated": {Method: "ria", Sparsity: "60%", Allocate: "owl", Refine: "dsnot"},
	} {
		var bytes []map[string][]byte
		for _, e := range []engine.Engine{cpu.New(engine.F32), enginetest.Bitmap{Engine: cpu.New(engine.F32)}} {
			inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
			opt := fixtureOptions(t, fixture, r)
			if _, err := prune.Run(t.Context(), inv, m.With(model.Options{Engine: e}), opt); err != nil {
				t.Fatal(err)
			}
			bytes = append(bytes, content(t, opt.Output))
		}
		compare(t, name, bytes[1], bytes[0])
	}
}
