package recipe

import (
	"strings"
	"testing"
)

// Every preset is a recipe at every kind of target, what was chosen beside it stays, and
// it takes no method or step of another.
func TestPresets(t *testing.T) {
	for _, p := range Presets() {
		for _, r := range []Recipe{{Sparsity: "60%"}, {Pattern: "2:4"}, {}} {
			got, err := r.WithPreset(p.Name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := got.Resolve(); err != nil {
				t.Errorf("%s: %v", p.Name, err)
			}
			if got.Pattern != r.Pattern || got.Sparsity != r.Sparsity || got.Method == "" {
				t.Errorf("%s of %+v is %+v", p.Name, r, got)
			}
		}
	}
	got, err := Recipe{}.With("rebuild_epochs", 2).With("depth_first", -0.5).WithPreset("best")
	if err != nil || got.Params.Whole("rebuild_epochs") != 2 || got.Params.Number("depth_first") != -0.5 {
		t.Errorf("chosen parameters become %v, %v", got.Params, err)
	}
	for r, want := range map[*Recipe]string{
		{Method: "wanda"}:     "method wanda: want none beside preset best",
		{Rebuild: "subblock"}: "rebuild subblock: want none",
	} {
		if _, err := r.WithPreset("best"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := (Recipe{}).WithPreset("slow"); err == nil || !strings.Contains(err.Error(), `unknown preset "slow", want one of fast, balanced, best`) {
		t.Errorf("%v", err)
	}
}
