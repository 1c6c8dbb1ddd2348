package prune_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// rebuilt is a recipe that rebuilds a little.
func rebuilt(r recipe.Recipe) recipe.Recipe {
	r.Rebuild = "subblock"
	return r.With("rebuild_epochs", 3).With("rebuild_rate", 1e-3).With("rebuild_batch", 1)
}

// No branch's error rises, and behind a mask alone most fall; what is pruned stays so, with norms behind
// branches, fused Linears, biases, norms of heads, and a Linear that is left dense.
func TestRebuildLowersErrors(t *testing.T) {
	for fixture, r := range map[string]recipe.Recipe{
		"llama3-gqa":  {Method: "magnitude", Pattern: "2:4"},
		"gemma3-text": {Method: "ria", Pattern: "2:4"},
		"phi3":        {Method: "wanda", Pattern: "2:4", Fused: "split", Skip: "down_proj"},
		"qwen2":       {Method: "admm", Pattern: "2:4"},
		"qwen3":       {Method: "wanda", Pattern: "2:4", Update: "sparsegpt"},
	} {
		opt := fixtureOptions(t, fixture, rebuilt(r))
		opt.Evaluation = nil
		dir := filepath.Join(fixturesDir, fixture)
		inv, m := openModel(t, dir)
		rep, err := prune.Run(t.Context(), inv, m, opt)
		if err != nil {
			t.Fatalf("%s: %v", fixture, err)
		}
		branches, lower := 0, 0
		for _, l := range rep.Linears {
			b := l.Rebuilt
			if b == nil {
				continue
			}
			branches++
			if b.After < b.Before {
				lower++
			}
			if !(b.After <= b.Before) || (b.After < b.Before) != (b.Epoch > 0) {
				t.Errorf("%s: %s: %+v", fixture, l.Name, *b)
			}
		}
		least := branches / 2
		if r.Update != "" || r.Method == "admm" {
			least = 0 // least squares on 48 tokens leave nothing that holds on others
		}
		if branches != 2*m.Blocks() || lower < least {
			t.Errorf("%s: %d of %d branches have a lower error, want %d of %d", fixture, lower, branches, least, 2*m.Blocks())
		}
		eachLinear(t, opt.Output, func(l *model.Linear) {
			if !strings.Contains(l.Name, "down_proj") {
				if err := mask.NonZero(weightOf(t, l)).Verify(pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}, mask.AtLeast); err != nil {
					t.Errorf("%s: %s: %v", fixture, l.Name, err)
				}
			}
		})
	}
}

// Where nothing is pruned there is nothing to rebuild.
func TestRebuildOfADenseModel(t *testing.T) {
	opt := fixtureOptions(t, "qwen2", rebuilt(recipe.Recipe{Method: "magnitude", Sparsity: "0%"}))
	opt.Evaluation = nil
	inv, m := openModel(t, filepath.Join(fixturesDir, "qwen2"))
	rep, err := prune.Run(t.Context(), inv, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range rep.Linears {
		if b := l.Rebuilt; b != nil && (b.Before > 1e-10 || b.After > b.Before) { // rounding of bfloat16 products against float32
			t.Errorf("%s: %+v", l.Name, *b)
		}
	}
}

func TestRebuildIsRefused(t *testing.T) {
	opt := fixtureOptions(t, "mixtral", rebuilt(recipe.Recipe{Method: "ria"}))
	inv, m := openModel(t, filepath.Join(fixturesDir, "mixtral"))
	const want = "rebuild subblock: MixtralForCausalLM: block 0 has a mixture of experts"
	if _, err := prune.MakePlan(inv, m, opt); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	inv, m = openModel(t, filepath.Join(fixturesDir, "qwen2"))
	if _, err := prune.NewInMemory(m, opt.Calibration).Prune(t.Context(), "x", opt.Recipe, nil); err == nil || !strings.Contains(err.Error(), "rebuilding subblock") {
		t.Errorf("%v, want that masks cannot hold it", err)
	}
	plain := fixtureOptions(t, "qwen2", recipe.Recipe{Method: "ria"})
	plain.Evaluation, opt.Evaluation = nil, nil // whose hidden states are of the plan too
	a, errA := prune.MakePlan(inv, m, plain)
	opt.Recipe.Method = "ria"
	b, errB := prune.MakePlan(inv, m, opt)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if weights := int64(64*64*4 + 3*64*152); a.Memory.Rebuild != 0 || b.Memory.Rebuild < 29*weights/2 || b.Memory.Hidden != 2*a.Memory.Hidden || b.FLOP32 <= a.FLOP32 {
		t.Errorf("planned %+v, and without rebuilding %+v", b.Memory, a.Memory)
	}
}

// A run that was stopped while it rebuilt ends with the bytes of one that was not.
func TestRebuildResumes(t *testing.T) {
	opt := fixtureOptions(t, "llama3-gqa", rebuilt(recipe.Recipe{Method: "ria", Sparsity: "60%"}))
	opt.Evaluation = nil
	checkResume(t, "resumed", opt, [2]int{2, 3}, func(ctx context.Context, opt prune.Options) error {
		_, err := runFixture(t, ctx, "llama3-gqa", opt)
		return err
	})
}
