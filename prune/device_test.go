package prune_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// Hidden states are in the device's memory while they fit beside the rest, then in the
// program's, then in a file; the bytes written are the same. What fits nowhere is refused.
func TestDeviceMemory(t *testing.T) {
	const fixture = "llama3-gqa"
	inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
	device := &enginetest.Separate{Engine: m.Engine().(*cpu.Engine), Bytes: 1 << 40}
	m = m.With(model.Options{Engine: device})
	opt := fixtureOptions(t, fixture, recipe.Recipe{Method: "crepe"})
	plan := func() (*prune.Plan, error) { return prune.MakePlan(inv, m, opt) }

	roomy, err := plan()
	if err != nil {
		t.Fatal(err)
	}
	all := roomy.Memory.Device.Hidden
	if all == 0 || roomy.Memory.Hidden != 0 || roomy.Memory.Spill || roomy.Memory.Device.Ahead != roomy.Memory.Ahead {
		t.Fatalf("%+v %+v: want all hidden states on the device", roomy.Memory, roomy.Memory.Device)
	}
	if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
		t.Fatal(err)
	}
	want := content(t, opt.Output)

	device.Bytes = roomy.Memory.Device.Total() - roomy.Memory.Device.Ahead - 1
	inHost, err := plan()
	if err != nil {
		t.Fatal(err)
	}
	one := inHost.Memory.Device.Hidden
	if one == 0 || one >= all || inHost.Memory.Hidden != all || inHost.Memory.Spill || inHost.Memory.Device.Total() > device.Bytes {
		t.Fatalf("%+v %+v: want the hidden states in the program's memory", inHost.Memory, inHost.Memory.Device)
	}
	opt.Output = filepath.Join(t.TempDir(), "host")
	if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
		t.Fatal(err)
	}
	compare(t, "in the program's memory", content(t, opt.Output), want)

	opt.Memory = inHost.Memory.Total() - inHost.Memory.Ahead - 1
	inFile, err := plan()
	if err != nil || !inFile.Memory.Spill || inFile.Memory.Total() > opt.Memory {
		t.Fatalf("%+v %+v, %v: want the hidden states in a file", inFile.Memory, inFile.Memory.Device, err)
	}
	opt.Output = filepath.Join(t.TempDir(), "file")
	if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
		t.Fatal(err)
	}
	compare(t, "in a file", content(t, opt.Output), want)

	device.Bytes = inHost.Memory.Device.Total() - inHost.Memory.Device.Ahead - 1
	if _, err := plan(); !errors.Is(err, prune.ErrMemory) || !strings.HasPrefix(err.Error(), "device memory budget too small: ") {
		t.Errorf("error %v, want one about the device's memory", err)
	}
}
