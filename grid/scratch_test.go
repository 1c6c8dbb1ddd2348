package grid

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What another build has left in the scratch folder goes once nobody has written to
// it for long, and nothing else does.
func TestAbandonedCellsAreRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "g.cells")
	const ours, other, key = "0123456789ab", "ba9876543210", "0123456789abcdef01234567"
	var said []string
	g := &runner{program: ours, opt: Options{Scratch: dir, Warn: func(format string, args ...any) { said = append(said, args[0].(string)) }}}
	if err := g.sweep(time.Now()); err != nil {
		t.Fatal(err)
	}
	names := []string{ours + "-" + key, other + "-" + key, key, "mine"}
	for _, name := range names {
		if err := os.MkdirAll(filepath.Join(dir, name, "model"), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	left := func(now time.Time) string {
		t.Helper()
		if err := g.sweep(now); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, name := range names {
			if _, err := os.Stat(filepath.Join(dir, name, "model")); err == nil {
				left = append(left, name)
			}
		}
		return strings.Join(left, " ")
	}
	if got, want := left(time.Now()), strings.Join(names, " "); got != want {
		t.Errorf("at once, %s are left, want %s", got, want)
	}
	if got, want := left(time.Now().Add(2*Abandoned)), names[0]+" mine"; got != want || len(said) != 2 {
		t.Errorf("after two days, %s are left, want %s; said %q", got, want, said)
	}
	if err := os.Rename(dir, dir+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir+"2", dir); err != nil {
		t.Skip(err)
	}
	if err := g.sweep(time.Now()); err == nil || !strings.Contains(err.Error(), "a link or a file") {
		t.Errorf("a link: %v", err)
	}
}
