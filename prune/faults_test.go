package prune_test

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/faults"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tensor"
)

// TestFaults lets every file operation of a run fail: of one that begins, replaces
// an output, packs it, goes on, or has its hidden states in a file and keeps copies of them.
// The output then is as it was, or complete; and the same command with --resume
// ends with the bytes of a run that nothing disturbed.
func TestFaults(t *testing.T) {
	const fixture = "llama-mha"
	inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
	asked := fixtureOptions(t, fixture, recipe.Recipe{Method: "wanda", Sparsity: "60%"})
	asked.Evaluation, asked.Recipe.Eval.Source = nil, "none"
	// whole returns what opt writes where nothing disturbs it.
	whole := func(opt prune.Options) map[string]string {
		opt.Output = filepath.Join(t.TempDir(), "out")
		if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
			t.Fatal(err)
		}
		return written(t, opt.Output)
	}
	plain := whole(asked)
	plan, err := prune.MakePlan(inv, m, asked)
	if err != nil {
		t.Fatal(err)
	}
	// run does one run in dir; if stops, until the second block is at work.
	run := func(t *testing.T, dir string, opt prune.Options, stops bool) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		opt.Output = filepath.Join(dir, "out")
		opt.Progress = func(u progress.Update) {
			if stops && strings.HasPrefix(u.Phase, "block 2") {
				cancel()
			}
		}
		_, err := prune.Run(ctx, inv, m, opt)
		return err
	}
	replaces, packs, goesOn, spills := asked, asked, asked, asked
	replaces.Overwrite = true
	packs.Overwrite, packs.Pack = true, &tensor.Integers{}
	goesOn.Resume = true
	spills.Memory = plan.Memory.Total() - plan.Memory.Ahead - 1

	magnitude := func(t *testing.T, dir string) {
		if err := run(t, dir, prune.Options{Recipe: recipe.Recipe{Method: "magnitude"}}, false); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		opt      prune.Options
		prepares func(t *testing.T, dir string)
	}{
		"begins":   {asked, func(*testing.T, string) {}},
		"spills":   {spills, func(*testing.T, string) {}},
		"replaces": {replaces, magnitude},
		"packs":    {packs, magnitude},
		"goes on": {goesOn, func(t *testing.T, dir string) {
			if err := run(t, dir, asked, true); !errors.Is(err, context.Canceled) {
				t.Fatalf("%v, want it interrupted", err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if c.opt.Memory == spills.Memory {
				defer prune.SaveAlways()()
			}
			before, want := map[string]string{}, plain
			if c.opt.Pack != nil {
				want = whole(c.opt)
			}
			faults.Run{
				Prepare: func(t *testing.T, dir string) {
					c.prepares(t, dir)
					before = written(t, filepath.Join(dir, "out"))
				},
				Work: func(dir string) error { return run(t, dir, c.opt, false) },
				GoOn: func(dir string) error {
					again := c.opt
					again.Resume = true
					return run(t, dir, again, false)
				},
				Check: func(t *testing.T, dir string, whole bool) {
					got := written(t, filepath.Join(dir, "out"))
					switch {
					case same(got, want):
					case whole:
						t.Errorf("the output has %s, want the %d files of a run that nothing disturbed", names(got), len(want))
					case len(got) == len(before) && maps.Equal(got, before):
					case len(got) == 0 && same(written(t, filepath.Join(dir, ".out.crepe-partial", "replaced")), before):
					default:
						t.Errorf("there are %s, neither what was nor what is to be", names(got))
					}
				},
			}.Each(t)
		})
	}
}

// written returns the files of an output folder, by path; none if it is not there.
func written(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(rel)] = string(text)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return files
}

func same(a, b map[string]string) bool { return len(a) > 0 && maps.Equal(a, b) }

func names(files map[string]string) string {
	return strings.Join(slices.Sorted(maps.Keys(files)), ", ")
}
