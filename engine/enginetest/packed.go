package enginetest

import (
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/tensor"
)

// Packed is the cpu engine with every weight in packed form.
type Packed struct{ *cpu.Engine }

// Load packs w and leaves its memory alone.
func (p Packed) Load(w *tensor.Weight) (engine.Op, error) { return p.LoadPacked(tensor.Pack(w)) }
