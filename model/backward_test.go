package model

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/engine/reference"
	"github.com/crepe-llm/crepe/internal/golden"
)

// Gradients of whole branches are PyTorch's (tools/golden_gradients.py), on both
// engines.
func TestGradientsEqualPyTorch(t *testing.T) {
	var want map[string][]struct {
		Branch  string
		Loss    float64
		Linears map[string]struct {
			Norm        float64
			First, Last []float64
		}
	}
	text, err := os.ReadFile("testdata/gradients.json")
	if err == nil {
		err = json.Unmarshal(text, &want)
	}
	if err != nil || len(want) == 0 {
		t.Fatalf("%d fixtures, %v", len(want), err)
	}
	for _, e := range []engine.Engine{cpu.New(engine.F32), reference.New(engine.F32)} {
		for name, branches := range want {
			m := open(t, filepath.Join(fixturesDir, name)).With(Options{Engine: e})
			if err := m.CheckTrainable(); err != nil {
				t.Fatal(err)
			}
			block, st := load(t, m, 0), m.NewState()
			x := enginetest.Upload(e, embed(t, m, sequences(golden.Read(t, filepath.Join(fixturesDir, name, "golden.safetensors"))["input_ids"])[:1])[0])
			half, weights := enginetest.Download(e, x), make([]float64, x.Rows)
			for i := range half.Data {
				half.Data[i] /= 2
			}
			for i := range weights {
				weights[i] = 1 / float64(i+1)
			}
			y := enginetest.Upload(e, half)
			for i, of := range branches {
				b, grads := block.Branches()[i], map[*Linear]engine.Mat{}
				for _, l := range linears(b.Inputs()) {
					grads[l] = e.NewMat(l.Rows, l.Cols)
				}
				if got := b.Loss(st, x, y, weights, nil); !(math.Abs(got-of.Loss) <= 1e-5*of.Loss) {
					t.Errorf("%s, %s, %s: loss %v, want %v", e.ID(), name, of.Branch, got, of.Loss)
				}
				b.Loss(st, x, y, weights, grads)
				if len(grads) != len(of.Linears) {
					t.Fatalf("%s, %s: %d Linears, want %d", name, of.Branch, len(grads), len(of.Linears))
				}
				for l, g := range grads {
					want, got := of.Linears[l.Name[strings.LastIndexByte(l.Name, '.')+1:]], enginetest.Download(e, g)
					sum := 0.0
					for _, v := range got.Data {
						sum += float64(v) * float64(v)
					}
					// Float32 sums of a few hundred terms, through softmax and norms.
					const tolerance = 1e-4
					if norm := math.Sqrt(sum); !(math.Abs(norm-want.Norm) <= tolerance*want.Norm) {
						t.Errorf("%s, %s, %s: gradient of norm %v, want %v", e.ID(), name, l.Name, norm, want.Norm)
					}
					for j, v := range want.First {
						if d := float64(got.Row(0)[j]) - v; !(math.Abs(d) <= tolerance*want.Norm) {
							t.Errorf("%s, %s, %s: gradient [0, %d] is off by %v", e.ID(), name, l.Name, j, d)
						}
					}
					for j, v := range want.Last {
						if d := float64(got.Row(got.Rows - 1)[j]) - v; !(math.Abs(d) <= tolerance*want.Norm) {
							t.Errorf("%s, %s, %s: gradient of the last row, column %d, is off by %v", e.ID(), name, l.Name, j, d)
						}
					}
				}
			}
			block.Release()
		}
	}
}

// What has no backward pass is refused by its name.
func TestUntrainableIsNamed(t *testing.T) {
	for fixture, want := range map[string]string{
		"mixtral": "MixtralForCausalLM: block 0 has a mixture of experts, which has no backward pass",
		"qwen3_5": "Qwen3_5ForCausalLM: block 0 has Gated DeltaNet, which has no backward pass",
	} {
		if err := open(t, filepath.Join(fixturesDir, fixture)).CheckTrainable(); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", fixture, err, want)
		}
	}
}
