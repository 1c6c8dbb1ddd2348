package prune_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// TestAnotherFormOfWeights prunes with an engine that keeps weights in a form of
// its own, so that an edit counts only where it is written back: to the same
// bytes, propagation, permutation, refinement, update and allocation included.
func TestAnotherFormOfWeights(t *testing.T) {
	const fixture = "llama3-gqa"
	for name, r := range map[string]recipe.Recipe{
		"2:4":       {Method: "wanda", Pattern: "2:4", Permute: "cp", Refine: "swaps", Update: "sparsegpt"},
		"allocated": {Method: "ria", Sparsity: "60%", Allocate: "owl", Refine: "dsnot"},
	} {
		var bytes []map[string][]byte
		for _, e := range []engine.Engine{cpu.New(engine.F32), enginetest.Bitmap{Engine: cpu.New(engine.F32)}} {
			inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
			opt := fixtureOptions(t, fixture, r)
			if _, err := prune.Run(t.Context(), inv, m.With(model.Options{Engine: e}), opt); err != nil {
				t.Fatal(err)
			}
			bytes = append(bytes, content(t, opt.Output))
		}
		compare(t, name, bytes[1], bytes[0])
	}
}

// TestSelectionOnADevice prunes with an engine that has its own copy of the weights, and
// scores and selects by it: to the same bytes, measures included.
func TestSelectionOnADevice(t *testing.T) {
	for name, r := range map[string]recipe.Recipe{
		"rows":   {Method: "wanda", Sparsity: "50%"},
		"matrix": {Method: "ria", Sparsity: "61.3%", Refine: "dsnot"},
		"split":  {Method: "crepe", Pattern: "2:4", Fused: "split", Params: param.Values{"gamma": 1.}},
		"chosen": {Method: "ria", Pattern: "4:8", Permute: "cp"},
	} {
		var bytes []map[string][]byte
		selected := 0
		for _, e := range []engine.Engine{cpu.New(engine.F32), enginetest.Card{Engine: cpu.New(engine.F32), Selected: &selected}} {
			inv, m := openDemo(t)
			opt := options(t.TempDir())
			opt.Recipe = r
			rep, err := prune.Run(t.Context(), inv, m.With(model.Options{Engine: e}), opt)
			if err != nil {
				t.Fatal(err)
			}
			all := rep.Selected.Device + rep.Selected.Host
			if rep.Selected.Device != selected || selected > 0 && rep.Selected.Host > 0 || all < len(rep.Linears) {
				t.Errorf("%s: selected %+v, by the device %d", name, rep.Selected, selected)
			}
			bytes = append(bytes, content(t, opt.Output))
		}
		if selected == 0 {
			t.Errorf("%s: the device selected nothing", name)
		}
		selected = 0
		compare(t, name, bytes[1], bytes[0])
	}
}

// A score that is not finite is named by the host.
func TestSelectionOnADeviceRefuses(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(fixturesDir+"/llama-mha")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "model.safetensors")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Offsets [2]uint64 `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	at := header["model.layers.2.mlp.down_proj.weight"]
	const most = 0x7f7f // the greatest finite bfloat16, in a Linear whose output nothing reads
	binary.LittleEndian.PutUint16(file[8+n+at.Offsets[0]:], most)
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	var errs []string
	for _, e := range []engine.Engine{cpu.New(engine.F32), enginetest.Card{Engine: cpu.New(engine.F32), Selected: new(int)}} {
		inv, m := openModel(t, dir)
		opt := fixtureOptions(t, "llama-mha", recipe.Recipe{Method: "crepe", Pattern: "2:4", Params: param.Values{"delta": 1e6}})
		opt.Output, opt.Evaluation = filepath.Join(t.TempDir(), "out"), nil
		_, err := prune.Run(t.Context(), inv, m.With(model.Options{Engine: e}), opt)
		if err == nil {
			t.Fatal("no error")
		}
		text, _, _ := strings.Cut(err.Error(), "\n")
		errs = append(errs, text)
	}
	if errs[0] != errs[1] || !strings.Contains(errs[0], "down_proj.weight: score [0, 0] is +Inf") {
		t.Errorf("errors %q", errs)
	}
}
