package model

import (
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/engine/reference"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// allLogits are those of a fixture's first sequence, at once and in pieces.
func allLogits(t *testing.T, m *Model, want map[string]golden.Tensor) (once, parts []float32) {
	t.Helper()
	ids := sequences(want["input_ids"])[0]
	x := run(t, m, atOnce(m), ids, []int{len(ids)})
	y := run(t, m, inPieces(m, len(ids)), ids, []int{7, 1, len(ids) - 8})
	return logits(t, m, []tensor.Matrix{x}), logits(t, m, []tensor.Matrix{y})
}

// TestReferenceEqualsTransformers runs every fixture by the reference engine: it
// is the oracle of the others, so it is held to transformers itself.
func TestReferenceEqualsTransformers(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		once, parts := allLogits(t, m.With(Options{Engine: reference.New(engine.F32)}), want)
		golden.Compare(t, "logits", once, want["logits"].F32[:len(once)], logitsTol)
		golden.Compare(t, "logits, in pieces", parts, want["logits"].F32[:len(parts)], logitsTol)
	})
}

// TestOtherFormsOfWeights packs all weights: no architecture's file knows of it,
// and every bit is the same.
func TestOtherFormsOfWeights(t *testing.T) {
	for _, compute := range []engine.Compute{engine.F32, engine.BF16} {
		forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
			e := cpu.New(compute)
			dense, denseParts := allLogits(t, m.With(Options{Engine: e}), want)
			for _, other := range []engine.Engine{enginetest.Bitmap{Engine: e}, enginetest.Packed{Engine: e}} {
				once, parts := allLogits(t, m.With(Options{Engine: other}), want)
				golden.Compare(t, "logits", once, dense, golden.Tolerance{})
				golden.Compare(t, "logits, in pieces", parts, denseParts, golden.Tolerance{})
			}
		})
	}
}

// TestEngineWithoutDelta refuses what the engine lacks by name.
func TestEngineWithoutDelta(t *testing.T) {
	m := open(t, fixturesDir+"/qwen3_5")
	_, err := Open(m.inv, Options{Engine: plain{cpu.New(engine.F32)}})
	if err == nil || err.Error() != m.inv.Dir()+": engine cpu without delta has no Gated DeltaNet, which Qwen3_5ForCausalLM needs" {
		t.Errorf("got %v, want an error that names the engine and what it lacks", err)
	}
}

// plain is an engine whose Streams have no Delta.
type plain struct{ *cpu.Engine }

func (p plain) ID() string { return "cpu without delta" }

func (p plain) NewStream() engine.Stream { return struct{ engine.Stream }{p.Engine.NewStream()} }
