package prune_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// turned is a recipe that first rotates a little.
func turned(r recipe.Recipe) recipe.Recipe {
	r.Rotate = "denoise"
	return r.With("rotate_steps", 4).With("rotate_vectors", 400)
}

// runFixture prunes a fixture.
func runFixture(t *testing.T, ctx context.Context, name string, opt prune.Options) (*prune.Report, error) {
	t.Helper()
	inv, m := openModel(t, filepath.Join(fixturesDir, name))
	return prune.Run(ctx, inv, m, opt)
}

// A rotated model is pruned like any other: counts are exact, the dense perplexity is
// that of the model as it came, the manifest says what was rotated, and nothing is left
// beside the output. A tied head becomes one of its own, as planned.
func TestRotated(t *testing.T) {
	for name, r := range map[string]recipe.Recipe{
		"llama3-gqa":  {Method: "wanda", Pattern: "2:4"},
		"gemma3-text": {Method: "admm", Sparsity: "60%"},
		"mixtral":     {Method: "ria", Sparsity: "50%", Update: "sparsegpt"},
		"qwen2":       rebuilt(recipe.Recipe{Method: "wanda"}),
	} {
		opt := fixtureOptions(t, name, turned(r))
		inv, m := openModel(t, filepath.Join(fixturesDir, name))
		plan, err := prune.MakePlan(inv, m, opt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rep, err := prune.Run(t.Context(), inv, m, opt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkPerplexity(t, name, rep)
		for i, l := range rep.Linears {
			if want := plan.Linears[i]; l.Name != want.Name || l.Zeros < want.Pruned {
				t.Errorf("%s: %s has %d zeros, %s was planned with %d", name, l.Name, l.Zeros, want.Name, want.Pruned)
			}
		}
		out, err := checkpoint.Open(opt.Output)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		_, tied := out.Tensor("lm_head.weight")
		if stream := name != "gemma3-text"; tied != stream || (rep.Rotation.Stream != nil) != stream || rep.Rotation.Values == nil {
			t.Errorf("%s: a head of its own: %v; %+v", name, tied, rep.Rotation)
		}
		if written := out.WeightBytes(); plan.Disk.Output < written || plan.Memory.Rotate == 0 || plan.Disk.Extra < written {
			t.Errorf("%s: planned %+v, %+v, written %d", name, plan.Disk, plan.Memory, written)
		}
		man, err := prune.ReadManifest(opt.Output)
		if err != nil || man.Rotation == nil || man.Recipe.Rotate != "denoise" {
			t.Errorf("%s: manifest %+v, %v", name, man, err)
		}
		entries, err := os.ReadDir(filepath.Dir(opt.Output))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") {
				t.Errorf("%s: %s is left", name, e.Name())
			}
		}
	}
}

// A run that is stopped while it rotates, and again while it prunes, ends with the bytes
// of one that is not; without --resume the next is refused.
func TestRotatedResumes(t *testing.T) {
	const name = "llama3-gqa"
	opt := fixtureOptions(t, name, turned(recipe.Recipe{Method: "wanda"}))
	opt.Evaluation = nil
	if _, err := runFixture(t, t.Context(), name, opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)
	opt.Output = filepath.Join(t.TempDir(), "again")
	for i, at := range []string{"rotate: block 2", "rotate: write", "block 2"} {
		ctx, cancel := context.WithCancel(t.Context())
		opt.Progress = func(u progress.Update) {
			if strings.HasPrefix(u.Phase, at) {
				cancel()
			}
		}
		opt.Resume = i > 0
		_, err := runFixture(t, ctx, name, opt)
		cancel()
		var incomplete *prune.IncompleteError
		if !errors.Is(err, context.Canceled) || !errors.As(err, &incomplete) {
			t.Fatalf("%s: %v", at, err)
		}
		opt.Resume, opt.Progress = false, nil
		_, err = runFixture(t, t.Context(), name, opt)
		wantAdvice(t, err)
	}
	opt.Resume, opt.Recipe = true, opt.Recipe.With("rotate_steps", 5)
	if _, err := runFixture(t, t.Context(), name, opt); err == nil || !strings.Contains(err.Error(), "cannot be resumed") {
		t.Errorf("with another recipe: %v", err)
	}
	opt.Recipe = opt.Recipe.With("rotate_steps", 4)
	if _, err := runFixture(t, t.Context(), name, opt); err != nil {
		t.Fatal(err)
	}
	compare(t, "resumed", content(t, opt.Output), want)
	if rep, err := runFixture(t, t.Context(), name, opt); err != nil || !rep.Finished || rep.Rotation == nil {
		t.Errorf("once more: %+v, %v", rep, err)
	}
}

func TestRotationIsRefused(t *testing.T) {
	opt := fixtureOptions(t, "qwen3_5-vl", turned(recipe.Recipe{Method: "wanda"}))
	inv, m := openModel(t, filepath.Join(fixturesDir, "qwen3_5-vl"))
	if _, err := prune.MakePlan(inv, m, opt); err == nil || !strings.Contains(err.Error(), "rotate denoise: nothing can be turned: the residual stream: Qwen3_5ForConditionalGeneration: tensor model.visual") {
		t.Errorf("%v, want that nothing can be turned", err)
	}
	whole := fixtureOptions(t, "qwen2", turned(recipe.Recipe{Method: "wanda", Sparsity: "0%"}))
	if _, err := prune.MakePlan(inv, m, whole); err == nil || !strings.Contains(err.Error(), "rotate_for: loss where no weight is pruned, want entropy") {
		t.Errorf("%v, want that there is no loss", err)
	}
	if _, err := prune.NewInMemory(m, opt.Calibration).Prune(t.Context(), "x", opt.Recipe, nil); err == nil || !strings.Contains(err.Error(), "rotation denoise: makes new weights") {
		t.Errorf("%v, want that masks cannot hold it", err)
	}
	none := fixtureOptions(t, "qwen2", turned(recipe.Recipe{Method: "magnitude"}))
	none.Calibration = nil
	if err := none.Validate(); err == nil || !strings.Contains(err.Error(), "rotation denoise needs it") {
		t.Errorf("%v, want that the rotation needs a text", err)
	}
}
