package model

import "github.com/crepe-llm/crepe/internal/cpu"

// EngineID names what computes m, as part of the provenance of every number.
func (m *Model) EngineID() string { return cpu.EngineID(m.Compute == BF16) }
