package prune_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// Where nothing is pruned, the pruned stream is the dense one: what is fitted lacks
// nothing, and every weight comes back to the bit, in every architecture.
func TestNothingPrunedNothingLacks(t *testing.T) {
	for _, fixture := range classes(t) {
		r := recipe.Recipe{Method: "wanda", Refine: "swaps", Fused: "split", Sparsity: "0%"}
		opt := fixtureOptions(t, fixture, r.With("fit_to", fit.Dense).With("fit_tokens", fit.Energy))
		opt.Evaluation = nil
		inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
		if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
			t.Fatalf("%s: %v", fixture, err)
		}
		got, err := checkpoint.Open(opt.Output)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range inv.Tensors() {
			at, ok := got.Tensor(want.Name)
			if !ok {
				t.Fatalf("%s: no tensor %s", fixture, want.Name)
			}
			a, b := make([]byte, want.Size), make([]byte, want.Size)
			if err := inv.ReadAt(want, a, 0); err != nil {
				t.Fatal(err)
			}
			if err := got.ReadAt(at, b, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(a, b) {
				t.Errorf("%s: tensor %s changed", fixture, want.Name)
			}
		}
		got.Close()
	}
}
