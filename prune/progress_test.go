package prune_test

import (
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// Progress counts the sequences that pass the block which it names, never
// sequences × blocks, and the whole ends at its total.
func TestProgressCountsSequences(t *testing.T) {
	opt := options(t.TempDir())
	opt.Evaluation = nil
	opt.Recipe.Allocate = "owl"
	opt.Recipe.Refine = "dsnot"
	const sequences = 3 // of options
	parts := map[string]int64{}
	var last progress.Update
	opt.Progress = func(u progress.Update) {
		if u.PartDone > u.PartTotal {
			t.Errorf("%+v: more than there are", u)
		}
		if u.Unit != "sequences" || u.Done == 0 {
			return
		}
		last = u
		parts[u.Phase] = u.PartDone
		if u.PartTotal != sequences {
			t.Errorf("%+v, want parts of %d sequences", u, sequences)
		}
	}
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	for _, phase := range []string{"block 1 of 6: measure", "block 2 of 6: calibrate", "block 5 of 6: propagate", "block 6 of 6: done"} {
		if n := parts[phase]; n != sequences {
			t.Errorf("%s: ended at %d sequences, want %d", phase, n, sequences)
		}
	}
	if last.Done != last.Total {
		t.Errorf("the last is %+v, want all of the total", last)
	}
}

// In memory every candidate passes all blocks under its own name.
func TestProgressOfCandidates(t *testing.T) {
	_, m := openDemo(t)
	phases := map[string]int64{}
	in := prune.NewInMemory(m, tokens(3, 12, 7))
	in.Progress = func(u progress.Update) {
		if u.PartDone > u.PartTotal || u.Done > 0 && u.PartTotal != 3 {
			t.Errorf("%+v, want parts of 3 sequences", u)
		}
		phases[u.Phase] = u.PartDone
	}
	for range 2 { // the second has seen block 0
		if _, err := in.Prune(t.Context(), "candidate", recipe.Recipe{Method: "ria"}, func(*model.Block) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for phase, n := range phases {
		if strings.HasPrefix(phase, "candidate: block ") && n != 3 {
			t.Errorf("%s: ended at %d sequences, want 3", phase, n)
		}
	}
	if phases["candidate: block 6 of 6"] != 3 {
		t.Errorf("phases %v, want the blocks of the candidate", phases)
	}
}
