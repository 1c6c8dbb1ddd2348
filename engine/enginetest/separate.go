package enginetest

import "github.com/crepe-llm/crepe/engine/cpu"

// Separate is the cpu engine, which says that it has so much memory of its own.
type Separate struct {
	*cpu.Engine
	Bytes int64
}

// Memory implements engine.Own.
func (s *Separate) Memory() int64 { return s.Bytes }
