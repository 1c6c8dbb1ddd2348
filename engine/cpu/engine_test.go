package cpu_test

import (
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/engine/reference"
	levels "github.com/crepe-llm/crepe/internal/cpu"
)

// TestOperationsEqualReference holds every operation to its formula, at every
// instruction level.
func TestOperationsEqualReference(t *testing.T) {
	for _, level := range levels.Levels() {
		for _, compute := range []engine.Compute{engine.F32, engine.BF16} {
			t.Run(level.String()+"/"+compute.String(), func(t *testing.T) {
				defer levels.Use(level)()
				s := enginetest.Suite{Engine: cpu.New(compute), Reference: reference.New(compute)}
				if compute == engine.BF16 && cpu.FastBF16() {
					s.Attention = 0x1p-8
				}
				s.Run(t)
			})
		}
	}
}

// TestOtherFormsOfWeights holds products with weights that are packed, and expanded as
// they are read, to the same formulas.
func TestOtherFormsOfWeights(t *testing.T) {
	for _, compute := range []engine.Compute{engine.F32, engine.BF16} {
		for name, e := range map[string]engine.Engine{
			"form": enginetest.Bitmap{Engine: cpu.New(compute)}, "packed": enginetest.Packed{Engine: cpu.New(compute)},
		} {
			t.Run(name+"/"+compute.String(), func(t *testing.T) {
				s := enginetest.Suite{Engine: e, Reference: reference.New(compute)}
				if compute == engine.BF16 && cpu.FastBF16() {
					s.Attention = 0x1p-8
				}
				s.Run(t)
			})
		}
	}
}

// Every level is an engine of its own, and with bfloat16 products two.
func TestID(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range levels.Levels() {
		restore := levels.Use(l)
		f32, bf16 := cpu.New(engine.F32).ID(), cpu.New(engine.BF16).ID()
		want := "cpu/" + l.String()
		suffix := map[bool]string{true: "+bf16", false: "+bf16-emulated"}[levels.AVX512BF16]
		if f32 != want || bf16 != want+suffix {
			t.Errorf("%s: %s and %s", l, f32, bf16)
		}
		seen[f32], seen[bf16] = true, true
		restore()
	}
	if len(seen) != 2*len(levels.Levels()) {
		t.Errorf("%v, want two for each level", seen)
	}
}
