package model

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// piecesTol bounds what the order of float32 sums may change between a
// sequence at once and in pieces: hidden states stay below 8 in size, so a few
// thousand roundings of 2⁻²⁴ each, as in TestGolden.
var piecesTol = golden.Tolerance{Abs: 1e-4}

// run passes one sequence through all blocks, in pieces of the given lengths.
func run(t *testing.T, m *Model, st *sequence, ids []int32, pieces []int) tensor.Matrix {
	t.Helper()
	x := embed(t, m, [][]int32{ids})[0]
	for i := range m.Blocks() {
		b := load(t, m, i)
		at := 0
		for _, n := range pieces {
			forward(t, b, st, x.Slice(at, at+n))
			at += n
		}
		b.Release()
	}
	return x
}

func TestPiecesOfASequenceEqualTheWhole(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		ids := sequences(want["input_ids"])[0]
		all := run(t, m, atOnce(m), ids, []int{len(ids)})
		for _, pieces := range [][]int{slices.Repeat([]int{1}, len(ids)), {5, 1, 17, 1}, {len(ids)}} {
			got := run(t, m, inPieces(m, len(ids)), ids, pieces)
			golden.Compare(t, fmt.Sprintf("pieces %v", pieces), got.Data, all.Data, piecesTol)
		}
	})
}

// TestLongSequence passes more tokens than fit a chunk.
func TestLongSequence(t *testing.T) {
	defer func(was int) { chunkTokens = was }(chunkTokens)
	chunkTokens = 512
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range golden.Folders(t, fixturesDir) {
		t.Run(name, func(t *testing.T) {
			m := open(t, fixturesDir+"/"+name)
			ids := make([]int32, chunkTokens+37)
			for i := range ids {
				ids[i] = int32(rng.IntN(m.Config.Vocab))
			}
			all := run(t, m, atOnce(m), ids, []int{len(ids)})
			got := run(t, m, inPieces(m, len(ids)), ids, []int{200, 1, 99, 200, len(ids) - 500})
			golden.Compare(t, "hidden", got.Data, all.Data, piecesTol)
		})
	}
}

func TestGreedyDecoding(t *testing.T) {
	const prompt = 8
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		stored, ok := want["greedy.ids"]
		if !ok {
			t.Skip("the fixture has no greedy.ids")
		}
		ids := sequences(stored)[0]
		blocks := make([]*Block, m.Blocks())
		for i := range blocks {
			blocks[i] = load(t, m, i)
		}
		st := inPieces(m, len(ids))
		got := slices.Clone(ids[:prompt])
		for at := 0; len(got) < len(ids); {
			x := embed(t, m, [][]int32{got[at:]})[0]
			for _, b := range blocks {
				forward(t, b, st, x)
			}
			at = len(got)
			got = append(got, argmax(logits(t, m, []tensor.Matrix{x.Slice(x.Rows-1, x.Rows)})))
		}
		if !slices.Equal(got, ids) {
			t.Errorf("got %v, want %v", got, ids)
		}
	})
}

func argmax(x []float32) int32 {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return int32(best)
}

// TestComputeBF16 rounds the inputs of products to 8 bits rather than 24: its
// roundings are 2¹⁵ times those of float32. So the logits may move by 2¹⁵ times
// what float32 moved them against float64 (meta.json), each model amplifying
// as it does; that is 0.3 to 2.2, a wrong product moves them by 10. And they
// must move, or the mode does nothing.
func TestComputeBF16(t *testing.T) {
	for _, name := range golden.Folders(t, fixturesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixturesDir, name)
			var meta struct {
				Rounding float64 `json:"f32_vs_f64_max_abs"`
			}
			readJSON(t, filepath.Join(dir, "meta.json"), &meta)
			m, want := open(t, dir).With(Options{Engine: cpu.New(engine.BF16)}), golden.Read(t, filepath.Join(dir, "golden.safetensors"))
			var xs []tensor.Matrix
			for _, ids := range sequences(want["input_ids"]) {
				xs = append(xs, run(t, m, atOnce(m), ids, []int{len(ids)}))
			}
			moved := golden.MaxAbs(logits(t, m, xs), want["logits"].F32)
			t.Logf("logits moved by %.3f", moved)
			if most := meta.Rounding * (1 << 15); !(moved > 0.01 && moved <= most) {
				t.Errorf("logits moved by %v, want more than 0.01 and at most %v", moved, most)
			}
		})
	}
}

func readJSON(t testing.TB, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestThreads demands the same bits from one worker and from several.
func TestThreads(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		var results [2][]float32
		for i, n := range []int{1, 4} {
			old := runtime.GOMAXPROCS(n)
			ids := sequences(want["input_ids"])[1]
			results[i] = logits(t, m, []tensor.Matrix{run(t, m, atOnce(m), ids, []int{len(ids)})})
			runtime.GOMAXPROCS(old)
		}
		golden.Compare(t, "4 threads against 1", results[1], results[0], golden.Tolerance{})
	})
}

// TestMemoryIsReused demands that a second pass takes no memory of the size of
// weights or activations.
func TestMemoryIsReused(t *testing.T) {
	m := open(t, fixturesDir+"/llama-mha")
	st := atOnce(m)
	x := tensor.NewMatrix(64, m.Width())
	pass := func() {
		for i := range m.Blocks() {
			b := load(t, m, i)
			observe(t, b, st, x, func(*Input, engine.Mat) {})
			forward(t, b, st, x)
			b.Release()
		}
	}
	pass()
	before := bytesHeld(m, st)
	pass()
	if after := bytesHeld(m, st); after != before {
		t.Errorf("weights and scratch hold %d bytes after a second pass, want %d", after, before)
	}
	block := 0
	b := load(t, m, 0)
	for _, in := range b.Inputs() {
		for _, l := range in.Linears {
			block += l.Rows * l.Cols * l.stored.tensor.DType.Size()
		}
	}
	b.Release()
	if got := poolBytes(m.pool); got != block {
		t.Errorf("the pool holds %d bytes, want one block's %d", got, block)
	}
}

func poolBytes(p *pool) int {
	n := 0
	for _, free := range p.free {
		for _, w := range free {
			n += len(w.Bytes())
		}
	}
	return n
}

func bytesHeld(m *Model, st *sequence) int { return poolBytes(m.pool) + int(stateBytes(st.State)) }

func stateBytes(st *State) int64 {
	n := st.stream.Bytes()
	if st.spare != nil {
		n += st.spare.Bytes()
	}
	return n
}

func TestMisuseOfPiecesPanics(t *testing.T) {
	m := open(t, fixturesDir+"/llama-mha")
	b := load(t, m, 0)
	x, st := m.NewMat(3), m.NewState()
	of := func(c *Cache, n int) Mode { return Mode{Pieces: []Piece{{c, n}}} }
	kept := of(m.NewCache(3), 3)
	kept.Keep = true
	for name, mode := range map[string]Mode{
		"a piece that is kept":  kept,
		"too many tokens":       of(m.NewCache(2), 3),
		"a piece without Cache": of(nil, 3),
		"too few rows":          of(m.NewCache(4), 4),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			_ = b.Run(st, x, mode)
		}()
	}
}
