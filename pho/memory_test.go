package pho

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/prune"
)

// A budget below what a block takes is refused, one that leaves no room for hidden
// states sends them to files, and the search finds the same.
func TestFit(t *testing.T) {
	m := demoModel(t)
	opt := options(newMemory())
	opt.Calibration = tokens(500, 7)
	dir := t.TempDir()
	for budget, want := range map[int64]string{1 << 30: "", 134 << 20: dir} {
		o := opt
		if err := o.Fit(m, budget, dir); err != nil || o.SpillDir != want {
			t.Errorf("%d MiB: files in %q (%v), want %q", budget>>20, o.SpillDir, err, want)
		}
	}
	if err := opt.Fit(m, 100<<20, dir); !errors.Is(err, prune.ErrMemory) || !strings.Contains(err.Error(), "want at least") {
		t.Errorf("error %v, want one that says what is needed", err)
	}
	opt = options(newMemory())
	opt.Trials, opt.Top = 2, 1
	want := find(t, m, opt)
	opt.Store, opt.SpillDir = newMemory(), dir
	if got := find(t, m, opt); !reflect.DeepEqual(got, want) {
		t.Errorf("with files %+v, want %+v", got, want)
	}
}
