package checkpoint

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/crepe-llm/crepe/internal/faults"
)

// TestFaults lets every file operation of a writer fail: of one that begins, one
// that replaces an output, one that goes on. The target then is as it was, or
// complete; and going on completes it.
func TestFaults(t *testing.T) {
	inv := open(t, folder(t, sharded(t)))
	p := plan(t, inv, 300) // three shards
	want := finished(t, inv, p)
	old := map[string]string{"config.json": "old", "notes/x": "old", "crepe.json": manifest}
	replaces := options
	replaces.Overwrite = true
	target := func(dir string) string { return filepath.Join(dir, "pruned") }

	work := func(begin func(string, *Plan, *Inventory, Options) (*Writer, error), o Options) func(dir string) error {
		return func(dir string) error {
			w, err := begin(target(dir), p, inv, o)
			if errors.Is(err, ErrFinished) {
				return nil
			}
			if err != nil {
				return err
			}
			defer w.Close()
			return drive(t, w, inv, never)
		}
	}
	for name, c := range map[string]struct {
		old      map[string]string
		o        Options
		begin    func(string, *Plan, *Inventory, Options) (*Writer, error)
		prepares func(t *testing.T, dir string)
	}{
		"begins":   {nil, options, Create, func(*testing.T, string) {}},
		"replaces": {old, replaces, Create, func(t *testing.T, dir string) { write(t, target(dir), old) }},
		"goes on": {nil, options, Resume, func(t *testing.T, dir string) {
			w, err := Create(target(dir), p, inv, options)
			if err != nil {
				t.Fatal(err)
			}
			calls := 0
			if err := drive(t, w, inv, func() bool { calls++; return calls == 5 }); err != nil {
				t.Fatal(err)
			}
			w.Close()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			run := faults.Run{
				Prepare: c.prepares,
				Work:    work(c.begin, c.o),
				GoOn: func(dir string) error {
					err := work(Resume, c.o)(dir)
					if errors.Is(err, ErrNoPartial) {
						err = work(Create, c.o)(dir)
					}
					if err != nil && isTree(target(dir), want) {
						return nil // it failed past the last renaming
					}
					return err
				},
				Check: func(t *testing.T, dir string, whole bool) {
					switch {
					case isTree(target(dir), want):
					case whole:
						t.Error("the output is not as that of a run that nothing disturbed")
					case c.old == nil:
						wantAbsent(t, target(dir))
					case isTree(target(dir), c.old), isTree(filepath.Join(partialPath(target(dir)), replacedName), c.old):
					default:
						t.Error("the old output is lost, and the new one not there")
					}
				},
			}
			run.Each(t)
		})
	}
}

// isTree reports whether path is a folder with just these files.
func isTree(path string, want map[string]string) bool {
	got := map[string]string{}
	err := filepath.WalkDir(path, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(name)
		rel, _ := filepath.Rel(path, name)
		got[filepath.ToSlash(rel)] = string(text)
		return err
	})
	return err == nil && maps.Equal(got, want)
}
