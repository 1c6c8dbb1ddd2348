package model

import "github.com/crepe-llm/crepe/tensor"

// LinearInfo describes a prunable Linear by its header.
type LinearInfo struct {
	Name       string // of the checkpoint, without ".weight"
	Rows, Cols int    // out, in
	DType      tensor.DType
	Steers     bool // as in Linear
}

// Linears returns the prunable Linears of block i in execution order. It reads
// no weights.
func (m *Model) Linears(i int) []LinearInfo {
	var infos []LinearInfo
	for _, in := range m.bind(m.binder(), i).Inputs() {
		for _, l := range in.Linears {
			t, _ := m.inv.Tensor(l.Name + ".weight") // Open has found it
			infos = append(infos, LinearInfo{Name: l.Name, Rows: t.Shape[0], Cols: t.Shape[1], DType: t.DType, Steers: l.Steers})
		}
	}
	return infos
}
