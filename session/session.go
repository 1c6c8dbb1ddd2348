// Package session gives programs the path that crepe's commands take: it opens a
// model by name, chooses the engine, loads texts, prunes and measures.
//
// The packages below do the work, and can be used without a Session. They know
// neither names of models nor defaults that depend on the machine.
package session

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/gguf/hf"
	"github.com/crepe-llm/crepe/hub"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

// Demo names the model and the texts inside the program.
const Demo = "demo"

// Auto asks for bf16, for speed, if what computes multiplies it and the checkpoint
// is stored in it, and for f32 otherwise. As a Device it asks for a card if there is one.
const Auto = "auto"

// Options of a Session. The zero value is what the commands do by default.
type Options struct {
	// Compute is the type of the inputs of matrix products: "f32", "bf16" or
	// Auto, the default.
	Compute string

	// Device is what computes; Engine, if not nil, does in its place.
	Device Device
	Engine engine.Engine

	// Memory is the budget in bytes. 0: 3/4 of the free memory.
	Memory int64

	Progress progress.Func
	Warn     func(format string, args ...any) // may be nil
	Notice   func(format string, args ...any) // what is worth a line and no warning; may be nil
}

// Session is an open model.
type Session struct {
	Name      string // as given to Open
	Dir       string // of its files, or the GGUF file
	Inventory *checkpoint.Inventory
	Model     *model.Model

	hub *hub.Client
	opt Options
}

// Open opens the model called name: "demo", a local folder or GGUF file, or a
// Hugging Face id org/name[@revision], which is downloaded into Hugging Face's own
// cache. It reads no weights.
func Open(ctx context.Context, name string, opt Options) (*Session, error) {
	client := opt.Hub()
	dir, err := Locate(ctx, name, client)
	if err != nil {
		return nil, err
	}
	inv, err := hf.OpenModel(dir)
	if err != nil {
		return nil, err
	}
	s := &Session{Name: name, Dir: dir, Inventory: inv, hub: client, opt: opt}
	for _, line := range inv.Warnings() {
		opt.warn("%s", line)
	}
	if err := s.open(); err != nil {
		inv.Close()
		return nil, err
	}
	return s, nil
}

// open opens the model with the engine that the options ask for.
func (s *Session) open() error {
	e, auto, fast, c := s.opt.Engine, false, false, engine.F32
	var on engines
	if e == nil {
		var err error
		if c, auto, err = ParseCompute(s.opt.Compute); err != nil {
			return err
		}
		if on, fast, err = s.opt.device(); err != nil {
			return err
		}
		e = on(c)
	}
	m, err := model.Open(s.Inventory, model.Options{Engine: e})
	if err != nil {
		return err
	}
	if auto && fast && m.Linears(0)[0].DType == tensor.BF16 {
		m = m.With(model.Options{Engine: on(engine.BF16)})
	}
	s.Model = m
	return nil
}

// ParseCompute reads an Options.Compute. If auto, the checkpoint decides, and c is
// what every processor has.
func ParseCompute(name string) (c engine.Compute, auto bool, err error) {
	if name == "" || name == Auto {
		return engine.F32, true, nil
	}
	if c, err = engine.ParseCompute(name); err != nil {
		err = fmt.Errorf("compute %q, want f32, bf16 or auto", name)
	}
	return c, false, err
}

// Close closes the files of the model.
func (s *Session) Close() error { return s.Inventory.Close() }

// Hub returns the hub that the environment describes (HF_HOME, HF_TOKEN,
// HF_ENDPOINT, HF_HUB_OFFLINE), which reports to Progress and Warn.
func (o Options) Hub() *hub.Client {
	client := hub.FromEnv()
	if o.Progress != nil {
		client.Progress = func(file string, done, total int64) {
			o.Progress(progress.Update{Phase: "fetch " + file, Done: done, Total: total, Unit: "bytes", PartDone: done, PartTotal: total})
		}
	}
	client.Notice = func(line string) { o.warn("%s", line) }
	return client
}

func (o Options) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(format, args...)
	}
}

// Locate returns the folder, or the GGUF file, of the model called name. It
// downloads a model that is on the hub.
func Locate(ctx context.Context, name string, client *hub.Client) (string, error) {
	if name == Demo {
		return demo.ModelDir()
	}
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	repo, err := hub.ParseRepo(name)
	if err != nil || strings.HasPrefix(name, ".") {
		hint := ""
		if _, id, ok := strings.Cut(name, "://"); ok {
			if parts := strings.Split(id, "/"); len(parts) >= 3 {
				hint = fmt.Sprintf("; of a page's address, the id is %q", parts[1]+"/"+parts[2])
			}
		}
		return "", fmt.Errorf("model %.200q: no such folder or file, and not a hub id org/name[@revision]%s", name, hint)
	}
	dir, err := client.Model(ctx, repo)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w (and there is no folder %s)", err, name)
	}
	return dir, err
}

// Loader returns a loader of token windows for the model.
func (s *Session) Loader() *windows.Loader {
	c := s.Model.Config
	return &windows.Loader{
		Hub: s.hub, ModelDir: s.Dir, ReadFile: s.Inventory.ReadFile, Vocab: c.Vocab, MaxSeqLen: c.MaxPositions,
		Warn: s.opt.Warn, Progress: s.opt.Progress,
	}
}

// budget returns the memory that may be taken, in bytes; 0 if nothing is said and the
// system does not tell its free memory.
func (s *Session) budget() int64 {
	if s.opt.Memory != 0 {
		return s.opt.Memory
	}
	return sysinfo.Budget()
}

// Bounded returns the model with each block's weights held to half of the memory
// budget, and of that of the engine's own memory, and the other half in bytes, which is
// for hidden states that the engine has in its memory. If there is no budget, and the
// system does not tell its free memory, nothing is bounded and the half is 0.
func (s *Session) Bounded() (m *model.Model, half int64) {
	weights, half := s.budget()/2, s.budget()/2
	if own, separate := engine.OwnMemory(s.Model.Engine()); separate {
		half = own / 2
		weights = min(cmp.Or(weights, half), half)
	}
	if weights == 0 {
		return s.Model, 0
	}
	return s.Model.Within(weights), half
}
