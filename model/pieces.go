package model

import (
	"fmt"

	"github.com/crepe-llm/crepe/tensor"
)

// Piece is the next tokens of one sequence, whose State is a decoder.
type Piece struct {
	State  *State
	Tokens int
}

// PiecesRows is how many rows products take not to change with their number:
// fewer are computed otherwise (kernel.MatMulT), which moves the last bits.
const PiecesRows = 16

func (d *decoder) ForwardPieces(st *State, x tensor.Matrix, pieces []Piece) error {
	rows := 0
	for _, p := range pieces {
		if p.State.memory == nil {
			panic("model: ForwardPieces: the State of a piece is no decoder, want one from NewDecoder")
		}
		rows += p.Tokens
	}
	if st.memory != nil || rows > x.Rows {
		panic(fmt.Sprintf("model: ForwardPieces: %d tokens in %d rows, with a decoder's State %v; want at most as many, and one from NewState",
			rows, x.Rows, st.memory != nil))
	}
	st.pieces = pieces
	defer func() { st.pieces = nil }()
	return d.runAll(st, d.branches, x, nil)
}

// each returns the pieces of what st runs, rows tokens: those it was given, or
// the one sequence that is its own. Piece i has rows starts[i] to starts[i+1]-1.
func (st *State) each(rows int) (pieces []Piece, starts []int) {
	pieces = st.pieces
	if pieces == nil {
		pieces = []Piece{{st, rows}}
	}
	starts = make([]int, len(pieces)+1)
	for i, p := range pieces {
		starts[i+1] = starts[i] + p.Tokens
	}
	return pieces, starts
}
