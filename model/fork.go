package model

import "slices"

// Begin makes st, a decoder, forget its sequence for one of tokens tokens.
func (st *State) Begin(tokens int) {
	if st.memory == nil {
		panic("model: Begin: the State is no decoder, want one from NewDecoder")
	}
	clear(st.memory)
	st.tokens = tokens
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
		to.memory[i] = nil
		if m != nil {
			to.memory[i] = m.(forker).fork()
		}
	}
}

// forker is what a block remembers. The copy may share what is never written
// again.
type forker interface{ fork() any }

func (c *kvCache) fork() any { return &kvCache{slices.Clip(c.k), slices.Clip(c.v)} }

func (d *deltaMemory) fork() any {
	return &deltaMemory{slices.Clone(d.before), slices.Clone(d.state)}
}

// SameRotation says whether sequences of a and of b tokens turn a token at the
// same position alike. With longrope it is not so where one is long only.
func (m *Model) SameRotation(a, b int) bool {
	for _, r := range []*rope{m.Config.rope, m.Config.localRope} {
		if r != nil && r.isLong(a) != r.isLong(b) {
			return false
		}
	}
	return true
}
