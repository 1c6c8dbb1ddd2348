package model

import (
	"slices"

	"github.com/crepe-llm/crepe/internal/kernel"
)

// Begin makes st, a decoder, forget its sequence for one of tokens tokens.
func (st *State) Begin(tokens int) {
	if st.memory == nil {
		panic("model: Begin: the State is no decoder, want one from NewDecoder")
	}
	for i := range st.memory {
		st.forget(i)
	}
	st.tokens = tokens
}

// forget forgets what block i keeps of its tokens. The memory of one block's
// keys and values stays for the next.
func (st *State) forget(i int) {
	if kv, ok := st.memory[i].(*kernel.KeyValues); ok {
		st.spare = kv
	}
	st.memory[i] = nil
}

// Fork makes to go on from where st is, so that several sequences share the
// computation of their beginning. What to held before is lost, st stays as it
// is; both are decoders of one Model.
func (st *State) Fork(to *State) {
	if st.memory == nil || len(st.memory) != len(to.memory) {
		panic("model: Fork: want two decoders of one Model")
	}
	to.tokens = st.tokens
	for i, m := range st.memory {
		to.forget(i)
		switch m := m.(type) {
		case *kernel.KeyValues:
			kv := to.spare
			if to.spare = nil; kv == nil {
				kv = new(kernel.KeyValues)
			}
			kv.CopyFrom(m)
			to.memory[i] = kv
		case *deltaMemory:
			to.memory[i] = &deltaMemory{slices.Clone(m.before), slices.Clone(m.state)}
		}
	}
}

// SameRotation says whether sequences of a and of b tokens turn a token at the
// same position alike. With longrope it is not so where one is long only, with dynamic
// scaling where one is longer than the model was made for.
func (m *Model) SameRotation(a, b int) bool {
	for _, r := range []*rope{m.Config.rope, m.Config.localRope} {
		if r != nil && r.regime(a) != r.regime(b) {
			return false
		}
	}
	return true
}
