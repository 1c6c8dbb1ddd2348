package model

import (
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// State is what running a block needs beside its weights: scratch memory,
// which is kept for the next sequence, and for decoding the memory of the
// tokens before. One goroutine uses it at a time.
type State struct {
	scratch [][]float32 // by depth: the i-th live buffer is cut from scratch[i]
	depth   int
	tables  map[ropeKey]*ropeTable
	tokens  int               // a decoder's whole sequence
	memory  []any             // a decoder's, by block: what it keeps of earlier tokens; else nil
	spare   *kernel.KeyValues // memory for the next block's, or nil
	pieces  []Piece           // that a ForwardPieces is at; else nil
}

// keyValues returns what a block's keys and values are appended to: a decoder's
// are those of the block, other States begin anew each time.
func (st *State) keyValues(a *attention) *kernel.KeyValues {
	if st.memory != nil && st.memory[a.block] != nil {
		return st.memory[a.block].(*kernel.KeyValues)
	}
	kv := st.spare
	heads, dim, bfloat := a.kernel.KVHeads, a.kernel.HeadDim, a.o.rounds()
	if kv == nil || !kv.Holds(heads, dim, bfloat) {
		kv = kernel.NewKeyValues(heads, dim, bfloat)
	}
	kv.Reset()
	st.spare = kv
	if st.memory != nil {
		st.spare, st.memory[a.block] = nil, kv
	}
	return kv
}

// ropeKey names a table: sequences of a length may have one of their own.
type ropeKey struct {
	rope   *rope
	regime int
}

// NewState returns a State for which each Forward is one whole sequence.
func (m *Model) NewState() *State { return &State{tables: map[ropeKey]*ropeTable{}} }

// NewDecoder returns a State for one sequence that comes in pieces: each
// Forward of a block takes up where its last one ended. tokens is the length
// of the whole sequence, or the most that it may reach: rotary embeddings that
// depend on the length (longrope) take this one from the start.
func (m *Model) NewDecoder(tokens int) *State {
	st := m.NewState()
	st.tokens = tokens
	st.memory = make([]any, m.Config.Blocks)
	return st
}

// remember returns what a block keeps of earlier tokens, nil if the State is
// not a decoder.
func remember[T any](st *State, block int) *T {
	if st.memory == nil {
		return nil
	}
	if st.memory[block] == nil {
		st.memory[block] = new(T)
	}
	return st.memory[block].(*T)
}

// alloc returns a rows × cols matrix of undefined content that lives until the
// release of an earlier mark.
func (st *State) alloc(rows, cols int) tensor.Matrix {
	n := rows * cols
	if st.depth == len(st.scratch) {
		st.scratch = append(st.scratch, nil)
	}
	if cap(st.scratch[st.depth]) < n {
		st.scratch[st.depth] = make([]float32, n)
	}
	data := st.scratch[st.depth][:n:n]
	st.depth++
	return tensor.Matrix{Rows: rows, Cols: cols, Data: data}
}

// mark and release frame the life of scratch: defer st.release(st.mark()).
func (st *State) mark() int        { return st.depth }
func (st *State) release(mark int) { st.depth = mark }

// rotation returns the table of r for the first n positions.
func (st *State) rotation(r *rope, n int) *ropeTable {
	key := ropeKey{r, r.regime(max(n, st.tokens))}
	t := st.tables[key]
	if t == nil {
		if r.kind == "dynamic" { // a table for each length: one at a time
			clear(st.tables)
		}
		t = &ropeTable{inv: r.frequencies(key.regime), scale: float32(r.scale)}
		st.tables[key] = t
	}
	t.grow(n)
	return t
}
