package model

import (
	"fmt"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// stack returns the rows of xs in one matrix of rows rows, the last ones zero.
func stack(rows int, xs ...tensor.Matrix) tensor.Matrix {
	all, at := tensor.NewMatrix(rows, xs[0].Cols), 0
	for _, x := range xs {
		at += copy(all.Data[at:], x.Data)
	}
	return all
}

func runPieces(t *testing.T, b *Block, st *State, e engine.Engine, x tensor.Matrix, pieces ...Piece) {
	t.Helper()
	y := enginetest.Upload(e, x)
	if err := b.Run(st, y, Mode{Pieces: pieces}); err != nil {
		t.Fatal(err)
	}
	e.Download(x, y)
}

// TestPiecesEqualSequences runs a beginning that two sequences share, then what
// follows in both beside another whole sequence, in one matrix.
func TestPiecesEqualSequences(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		ids := sequences(want["input_ids"])
		begin, one, two, other := ids[0][:9], ids[0][9:20], ids[1][:3], ids[1]
		alone := func(ids []int32) tensor.Matrix { return run(t, m, atOnce(m), ids, []int{len(ids)}) }
		wants := []tensor.Matrix{alone(ids[0][:20]), alone(append(slices.Clone(begin), two...)), alone(other)}

		emb := func(ids []int32) tensor.Matrix { return embed(t, m, [][]int32{ids})[0] }
		x, y := stack(PiecesRows, emb(begin)), stack(len(one)+len(two)+len(other)+3, emb(one), emb(two), emb(other))
		st := m.NewState()
		states := []*Cache{m.NewCache(20), m.NewCache(20), m.NewCache(len(other)), m.NewCache(20)}
		for i := range m.Blocks() {
			b := load(t, m, i)
			runPieces(t, b, st, m.Engine(), x, Piece{states[3], len(begin)})
			states[3].Fork(states[0])
			states[3].Fork(states[1])
			runPieces(t, b, st, m.Engine(), y, Piece{states[0], len(one)}, Piece{states[1], len(two)}, Piece{states[2], len(other)})
			b.Release()
		}
		if !m.SameRotation(20, 9+len(two)) {
			wants[1] = tensor.Matrix{} // the beginning is not shared
		}
		at := 0
		for i, n := range []int{len(one), len(two), len(other)} {
			if w := wants[i]; w.Rows > 0 {
				golden.Compare(t, fmt.Sprintf("piece %d", i), y.Slice(at, at+n).Data, w.Slice(w.Rows-n, w.Rows).Data, piecesTol)
			}
			at += n
		}
		golden.Compare(t, "beginning", x.Slice(0, len(begin)).Data, wants[0].Slice(0, len(begin)).Data, piecesTol)
	})
}

// A piece has the same bits whatever is beside it; with experts, whose rows are
// as many as tokens reach them, nearly the same.
func TestPiecesDoNotDependOnOthers(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		ids := sequences(want["input_ids"])
		a, b := embed(t, m, [][]int32{ids[0][:5]})[0], embed(t, m, [][]int32{ids[1]})[0]
		alone, beside := stack(PiecesRows, a), stack(80, b, a, b)
		st := m.NewState()
		cache := func() *Cache { return m.NewCache(len(ids[1])) }
		first, others := cache(), []*Cache{cache(), cache(), cache()}
		for i := range m.Blocks() {
			block := load(t, m, i)
			runPieces(t, block, st, m.Engine(), alone, Piece{first, 5})
			runPieces(t, block, st, m.Engine(), beside, Piece{others[0], b.Rows}, Piece{others[1], 5}, Piece{others[2], b.Rows})
			block.Release()
		}
		tol := golden.Tolerance{}
		if m.Config.experts.count > 0 {
			tol = piecesTol
		}
		golden.Compare(t, "a piece beside others", beside.Slice(b.Rows, b.Rows+5).Data, alone.Slice(0, 5).Data, tol)
	})
}
