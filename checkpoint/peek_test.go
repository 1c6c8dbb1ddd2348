package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What a journal tells is told without touching it, and a folder's name says whose it
// is.
func TestPeek(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if _, err := Peek(dir); !errors.Is(err, ErrNoPartial) {
		t.Errorf("%v, want that there is none", err)
	}
	partial := partialPath(dir)
	if err := os.Mkdir(partial, 0o777); err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(partial, journalName)
	var text []byte
	for _, l := range []line{{Begin: &begin{Version: journalVersion}}, {Done: "rest"}, {Done: "block 0", Info: []byte(`[1]`)}} {
		one, err := formatLine(l)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, one...)
	}
	if err := os.WriteFile(journal, append(text, "torn"...), 0o444); err != nil {
		t.Fatal(err)
	}
	s, err := Peek(dir)
	if err != nil || len(s.Steps) != 2 || s.Steps[1].Name != "block 0" || string(s.Steps[1].Info) != "[1]" || filepath.Dir(s.Folder) != partial {
		t.Errorf("%+v (%v)", s, err)
	}
	if output, ok := PartialOf(partial); !ok || output != dir {
		t.Errorf("%s is of %s (%v), want %s", partial, output, ok, dir)
	}
	for _, name := range []string{dir, ".crepe-partial", "a.crepe-partial"} {
		if output, ok := PartialOf(name); ok {
			t.Errorf("%s is of %s, want of none", name, output)
		}
	}
}
