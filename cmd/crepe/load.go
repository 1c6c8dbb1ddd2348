package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/hub"
	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

const demoName = "demo"

// opened is a MODEL of the command line.
type opened struct {
	name string // as given
	dir  string // the folder, or the GGUF file
	inv  *checkpoint.Inventory
	m    *model.Model
	hub  *hub.Client
}

func (o *opened) Close() error { return o.inv.Close() }

// open finds MODEL, fetching it from the hub if it is an id, and reads its
// headers.
func (a *app) open(ctx context.Context, name string, meter *meter) (*opened, error) {
	o := &opened{name: name, hub: a.newHub(meter)}
	var err error
	if o.dir, err = a.locate(ctx, name, o.hub); err != nil {
		return nil, err
	}
	meter.finish()
	if o.inv, err = hf.OpenModel(o.dir); err != nil {
		return nil, err
	}
	for _, line := range o.inv.Warnings() {
		a.warn("%s", line)
	}
	if o.m, err = model.Open(o.inv, model.Options{Engine: cpu.New(engine.F32)}); err != nil {
		o.inv.Close()
		return nil, err
	}
	return o, nil
}

// newHub returns the hub that the environment describes, which reports to meter.
func (a *app) newHub(meter *meter) *hub.Client {
	client := hub.FromEnv()
	client.Progress = func(file string, done, total int64) {
		meter.update(progress.Update{Phase: "fetch " + file, Done: done, Total: total, Unit: "bytes", PartDone: done, PartTotal: total})
	}
	client.Notice = func(line string) { a.warn("%s", line) }
	return client
}

// locate returns the folder, or the GGUF file, that name means.
func (a *app) locate(ctx context.Context, name string, client *hub.Client) (string, error) {
	if name == demoName {
		return demo.ModelDir()
	}
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	repo, err := hub.ParseRepo(name)
	if err != nil || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("model %q: no such folder or file, and not a hub id org/name[@revision]", name)
	}
	dir, err := client.Model(ctx, repo)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w (nor is there a folder %s)", err, name)
	}
	return dir, err
}

// loader makes token windows for o.
func (a *app) loader(o *opened, meter *meter) *windows.Loader {
	return &windows.Loader{
		Hub: o.hub, ModelDir: o.dir, ReadFile: o.inv.ReadFile, Vocab: o.m.Config.Vocab, MaxSeqLen: o.m.Config.MaxPositions,
		Warn: a.warn, Progress: meter.update,
	}
}

// compute makes o compute as --compute says: auto is bf16 where the processor multiplies it
// and the checkpoint is stored in it, for speed, else f32.
func (o *opened) compute(name string) error {
	c, err := engine.ParseCompute(name)
	switch {
	case name == "auto":
		if cpu.FastBF16() && o.m.Linears(0)[0].DType == tensor.BF16 {
			c = engine.BF16
		}
	case err != nil:
		return usageError{fmt.Errorf("--compute: %q, want f32, bf16 or auto", name)}
	}
	o.m = o.m.With(model.Options{Engine: cpu.New(c)})
	return nil
}
