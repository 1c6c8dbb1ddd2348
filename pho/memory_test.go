package pho

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/model"
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
		if err := o.Fit(m, budget, dir); err != nil || o.States.Dir != want {
			t.Errorf("%d MiB: files in %q (%v), want %q", budget>>20, o.States.Dir, err, want)
		}
	}
	if err := opt.Fit(m, 100<<20, dir); !errors.Is(err, prune.ErrMemory) || !strings.Contains(err.Error(), "want at least") {
		t.Errorf("error %v, want one that says what is needed", err)
	}
	device := m.With(model.Options{Engine: &enginetest.Separate{Engine: m.Engine().(*cpu.Engine), Bytes: 1 << 30}})
	left, _ := device.OwnLeft(max(opt.Calibration.SeqLen, opt.Verify.SeqLen))
	for own, want := range map[int64]engine.Place{1 << 30: {}, 1<<30 - left: {Host: true}} {
		device.Engine().(*enginetest.Separate).Bytes = own
		o := opt
		if err := o.Fit(device, 1<<30, dir); err != nil || o.States != want {
			t.Errorf("device with %d MiB: %+v (%v), want %+v", own>>20, o.States, err, want)
		}
	}
	device.Engine().(*enginetest.Separate).Bytes = 1 << 20
	if err := opt.Fit(device, 1<<30, dir); !errors.Is(err, prune.ErrMemory) || !strings.HasPrefix(err.Error(), "device memory") {
		t.Errorf("error %v, want one about the device's memory", err)
	}
	opt = options(newMemory())
	opt.Trials, opt.Top = 2, 1
	want := find(t, m, opt)
	opt.Store, opt.States = newMemory(), engine.Place{Dir: dir}
	if got := find(t, m, opt); !reflect.DeepEqual(got, want) {
		t.Errorf("with files %+v, want %+v", got, want)
	}
}
