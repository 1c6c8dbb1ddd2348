package prune_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

// TestSparseGPTEqualsPyTorch prunes on the goldens' text. The perplexities are
// tools/oracle/sparsegpt.py's (torch 2.15.0); other roundings
// flip near ties, and what a flip moves to the right flips more.
func TestSparseGPTEqualsPyTorch(t *testing.T) {
	read := func(name string) *windows.Set {
		tokens := rows(golden.Read(t, filepath.Join(goldenDir, name))["input_ids"])
		return &windows.Set{Source: name, Tokens: tokens, SeqLen: len(tokens[0])}
	}
	calibration, evaluation := read("calibration.safetensors"), read("evaluation.safetensors")
	for name, c := range map[string]struct {
		r    recipe.Recipe
		want float64
	}{
		"50":   {recipe.Recipe{Method: "sparsegpt", Sparsity: "50%"}, 106.0012},
		"70":   {recipe.Recipe{Method: "sparsegpt", Sparsity: "70%"}, 119.6937},
		"2of4": {recipe.Recipe{Method: "sparsegpt", Pattern: "2:4"}, 109.1571},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			inv, m := openDemo(t)
			rep, err := prune.Run(t.Context(), inv, m, prune.Options{Recipe: c.r, Output: out, Calibration: calibration, Evaluation: evaluation})
			if err != nil {
				t.Fatal(err)
			}
			if got := rep.Pruned.Perplexity; !(math.Abs(got-c.want) <= 5e-3*c.want) {
				t.Errorf("perplexity %v, want %v", got, c.want)
			}
			if got := rep.Sparsity.Measured; !(math.Abs(got-rep.Sparsity.Target) <= 1e-4) {
				t.Errorf("sparsity %v, want %v", got, rep.Sparsity.Target)
			}
		})
	}
}
