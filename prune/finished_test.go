package prune_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tensor"
)

// stopped runs opt and stops it while it prunes.
func stopped(t *testing.T, opt prune.Options) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opt.Progress = func(u progress.Update) {
		if strings.HasPrefix(u.Phase, "block 3") {
			cancel()
		}
	}
	if _, err := run(t, ctx, opt); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want the interruption", err)
	}
}

// wantAdvice checks that err names --resume and advises nothing that would throw
// work away.
func wantAdvice(t *testing.T, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "--resume") || strings.Contains(err.Error(), "--overwrite") {
		t.Errorf("error %v, want one that advises --resume and not --overwrite", err)
	}
}

// A run that was to replace a model and was interrupted goes on without being told
// to replace it once more; until it ends the old model stays.
func TestResumeOfAnOverwritingRun(t *testing.T) {
	opt := options(t.TempDir())
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)

	opt = options(t.TempDir())
	old := opt
	old.Recipe = recipe.Recipe{Method: "magnitude", Sparsity: "10%"}
	if _, err := run(t, t.Context(), old); err != nil {
		t.Fatal(err)
	}
	before := content(t, opt.Output)
	opt.Overwrite = true
	stopped(t, opt)
	compare(t, "until it ends", content(t, opt.Output), before)
	opt.Overwrite = false
	_, err := run(t, t.Context(), opt)
	wantAdvice(t, err)
	opt.Resume = true
	rep, err := run(t, t.Context(), opt)
	if err != nil || rep.Finished {
		t.Fatalf("resumed: %+v, %v", rep, err)
	}
	compare(t, "resumed", content(t, opt.Output), want)
}

// To resume what is finished says so and changes nothing; another recipe's is not.
func TestResumeOfWhatIsFinished(t *testing.T) {
	opt := options(t.TempDir())
	first, err := run(t, t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)
	partial := filepath.Join(filepath.Dir(opt.Output), "."+filepath.Base(opt.Output)+".crepe-partial")
	record := prune.RecordPath(opt.Output) + ".partial"
	opt.Resume = true
	for _, left := range []string{"", "lock"} { // that of a kill after the last renaming
		if err := os.WriteFile(record, []byte("{"), 0o666); err != nil { // and while the record was written
			t.Fatal(err)
		}
		if left != "" {
			if err := errors.Join(os.Mkdir(partial, 0o777), os.WriteFile(filepath.Join(partial, left), nil, 0o666)); err != nil {
				t.Fatal(err)
			}
		}
		rep, err := run(t, t.Context(), opt)
		if err != nil || !rep.Finished || *rep.Pruned != *first.Pruned || rep.Sparsity != first.Sparsity {
			t.Errorf("%+v, %v, want %+v, finished", rep, err, first)
		}
		if _, err := os.Stat(partial); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", partial, err)
		}
		if _, err := os.Stat(record); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left (%v)", record, err)
		}
		compare(t, "finished", content(t, opt.Output), want)
	}
	opt.Recipe.Sparsity = "40%"
	if _, err := run(t, t.Context(), opt); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("another recipe: error %v", err)
	}
	compare(t, "another recipe", content(t, opt.Output), want)
}

// What changes in the partial folder is noticed, and the run ends as it should.
func TestResumeOfADamagedRun(t *testing.T) {
	opt := options(t.TempDir())
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)
	opt = options(t.TempDir())
	stopped(t, opt)
	shard := filepath.Join(filepath.Dir(opt.Output), "."+filepath.Base(opt.Output)+".crepe-partial", "out", "model.safetensors")
	partial, err := checkpoint.Open(filepath.Dir(shard))
	if err != nil {
		t.Fatal(err)
	}
	x, ok := partial.Tensor("model.layers.0.mlp.down_proj.weight")
	partial.Close()
	text, err := os.ReadFile(shard)
	if err != nil || !ok {
		t.Fatal("no such tensor in the partial folder", err)
	}
	text[x.Offset+x.Size/2] ^= 4
	if err := os.WriteFile(shard, text, 0o666); err != nil {
		t.Fatal(err)
	}
	var said []string
	opt.Resume, opt.Warn = true, func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, x.Name+" is not as it was written") }) {
		t.Errorf("said %q, want what is damaged", said)
	}
	compare(t, "resumed", content(t, opt.Output), want)
}

// A folder called crepe.json in the input is none of ours, and does not stand in the
// manifest's way.
func TestFolderInTheManifestsPlace(t *testing.T) {
	dir, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(t.TempDir(), "in")
	if err := os.CopyFS(in, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"crepe.json", "Model.safetensors"} {
		folder := filepath.Join(in, name)
		if err := errors.Join(os.Mkdir(folder, 0o777), os.WriteFile(filepath.Join(folder, "notes.txt"), []byte("mine"), 0o666)); err != nil {
			t.Skip(err) // the file system takes both names for one
		}
	}
	inv, err := checkpoint.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prune.ReadManifest(in); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("manifest of the input: error %v, want that there is none", err)
	}
	opt := options(t.TempDir())
	opt.Recipe = recipe.Recipe{Method: "magnitude"}
	plan, err := prune.MakePlan(inv, m, opt)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, l := range plan.LeftOut() {
		if l.Path == "crepe.json/" || l.Path == "Model.safetensors/notes.txt" {
			left++
		}
	}
	if left != 2 {
		t.Errorf("left out: %v, want both folders", plan.LeftOut())
	}
	if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
		t.Fatal(err)
	}
	if _, err := prune.ReadManifest(opt.Output); err != nil {
		t.Error(err)
	}
}

// A name that leaves no room for those beside it is refused before work.
func TestNameTooLong(t *testing.T) {
	for _, length := range []int{230, 236, 241, 250} { // of 255: room for all, not for the recipe's, nor for the partial folder's
		opt := options(t.TempDir())
		opt.Output = filepath.Join(filepath.Dir(opt.Output), strings.Repeat("x", length))
		inv, m := openDemo(t)
		plan, err := prune.MakePlan(inv, m, opt)
		if err != nil {
			t.Fatal(err)
		}
		err = plan.Check(inv, opt)
		if refused := err != nil && strings.Contains(err.Error(), "output folder") && strings.Contains(err.Error(), "too long"); refused != (length > 235) {
			t.Errorf("name of %d bytes: error %v", length, err)
		}
		if entries, err := os.ReadDir(filepath.Dir(opt.Output)); err != nil || len(entries) != 0 {
			t.Errorf("name of %d bytes: left %v (%v)", length, entries, err)
		}
	}
}

// A run that packs and was interrupted goes on in another form, and a finished output is
// not taken for one of another form.
func TestResumeInAnotherForm(t *testing.T) {
	opt := options(t.TempDir())
	if _, err := run(t, t.Context(), opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)

	opt = options(t.TempDir())
	opt.Pack = &tensor.Integers{Bits: 8, Group: 64}
	stopped(t, opt)
	opt.Pack, opt.Resume = nil, true
	if rep, err := run(t, t.Context(), opt); err != nil || rep.Packed != nil {
		t.Fatalf("resumed: %+v, %v", rep, err)
	}
	compare(t, "resumed", content(t, opt.Output), want)
	opt.Pack = &tensor.Integers{}
	if _, err := run(t, t.Context(), opt); err == nil || !strings.Contains(err.Error(), "finished already, and plain") {
		t.Errorf("packed after all: error %v", err)
	}
	compare(t, "finished", content(t, opt.Output), want)
}
