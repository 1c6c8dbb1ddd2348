package model

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/cuda"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// The fixtures are tiny random models with what transformers 5.23.0 computes
// with them in float32. Their own float32 differs from float64 by up to 3e-5;
// a wrong formula shows near 1e-2 (fixtures' meta.json, sensitivity).
const fixturesDir = "../testdata/fixtures"

var (
	logitsTol = golden.Tolerance{Abs: 2e-4}
	hiddenTol = golden.Tolerance{Abs: 2e-4}
	sqnormTol = golden.Tolerance{Abs: 1e-5, Rel: 1e-3}
)

// forFixtures runs f for every fixture.
func forFixtures(t *testing.T, f func(t *testing.T, m *Model, want map[string]golden.Tensor)) {
	for _, name := range golden.Folders(t, fixturesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixturesDir, name)
			f(t, open(t, dir), golden.Read(t, filepath.Join(dir, "golden.safetensors")))
		})
	}
}

func open(t testing.TB, dir string) *Model {
	t.Helper()
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := Open(inv, Options{Engine: testEngine(t)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// testEngine is what computes the goldens: with CREPE_TEST_CUDA a card, else the
// processor.
func testEngine(t testing.TB) engine.Engine {
	if os.Getenv("CREPE_TEST_CUDA") == "" {
		return cpu.New(engine.F32)
	}
	d, err := openCard()
	if err != nil {
		t.Fatal(err)
	}
	return cuda.New(d, engine.F32)
}

var openCard = sync.OnceValues(func() (*cuda.Device, error) { return cuda.Open(cuda.Options{}) })

// sequences returns the rows of an integer tensor as ids.
func sequences(ids golden.Tensor) [][]int32 {
	out := make([][]int32, ids.Shape[0])
	for i := range out {
		for _, id := range ids.I64[i*ids.Shape[1] : (i+1)*ids.Shape[1]] {
			out[i] = append(out[i], int32(id))
		}
	}
	return out
}

// The tests hold hidden states as matrices, which these helpers take to the
// engine and back.

func embed(t testing.TB, m *Model, seqs [][]int32) []tensor.Matrix {
	t.Helper()
	xs := make([]tensor.Matrix, len(seqs))
	for i, ids := range seqs {
		x := m.NewMat(len(ids))
		if err := m.Embed(x, ids); err != nil {
			t.Fatal(err)
		}
		xs[i] = enginetest.Download(m.Engine(), x)
	}
	return xs
}

func load(t testing.TB, m *Model, i int) *Block {
	t.Helper()
	b, err := m.LoadBlock(i)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sequence is where a test's tokens pass: whole sequences, or one in pieces.
type sequence struct {
	*State
	e     engine.Engine
	cache *Cache // nil for whole sequences
}

func atOnce(m *Model) *sequence { return &sequence{m.NewState(), m.Engine(), nil} }

func inPieces(m *Model, tokens int) *sequence {
	return &sequence{m.NewState(), m.Engine(), m.NewCache(tokens)}
}

func (s *sequence) run(b *Block, x tensor.Matrix, mode Mode) error {
	if s.cache != nil {
		mode.Pieces = []Piece{{s.cache, x.Rows}}
	}
	y := enginetest.Upload(s.e, x)
	err := b.Run(s.State, y, mode)
	s.e.Download(x, y)
	return err
}

func forward(t testing.TB, b *Block, s *sequence, x tensor.Matrix) {
	t.Helper()
	if err := s.run(b, x, Mode{}); err != nil {
		t.Fatal(err)
	}
}

func observe(t testing.TB, b *Block, s *sequence, x tensor.Matrix, tap Tap) {
	t.Helper()
	if err := s.run(b, x, Mode{Tap: tap, Keep: true}); err != nil {
		t.Fatal(err)
	}
}

func logits(t testing.TB, m *Model, xs []tensor.Matrix) []float32 {
	t.Helper()
	h, err := m.LoadHead()
	if err != nil {
		t.Fatal(err)
	}
	var out []float32
	for _, x := range xs {
		y := m.Engine().NewMat(x.Rows, m.Config.Vocab)
		if err := h.Logits(y, enginetest.Upload(m.Engine(), x)); err != nil {
			t.Fatal(err)
		}
		out = append(out, enginetest.Download(m.Engine(), y).Data...)
	}
	return out
}

func join(xs []tensor.Matrix) []float32 {
	var all []float32
	for _, x := range xs {
		all = append(all, x.Data...)
	}
	return all
}

// statistics gathers the statistics of every Input of a block.
func statistics(t testing.TB, b *Block, st *sequence, xs []tensor.Matrix) map[string]*stats.Input {
	sums := map[*Input]engine.Stats{}
	for _, in := range b.Inputs() {
		sums[in] = st.e.NewStats(in.Linears[0].Cols, stats.Needs{})
	}
	for _, x := range xs {
		observe(t, b, st, x, func(in *Input, x engine.Mat) { sums[in].Add(x) })
	}
	out := map[string]*stats.Input{}
	for in, a := range sums {
		for _, l := range in.Linears {
			out[l.Name] = a.Input(len(xs))
		}
	}
	return out
}

func TestGolden(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		xs := embed(t, m, sequences(want["input_ids"]))
		st := atOnce(m)
		seen := map[string]*stats.Input{}
		for i := range m.Blocks() {
			before := append([]float32(nil), join(xs)...)
			golden.Compare(t, fmt.Sprintf("hidden.%d", i), before, want[fmt.Sprintf("hidden.%d", i)].F32, hiddenTol)
			b := load(t, m, i)
			for name, s := range statistics(t, b, st, xs) {
				seen[name] = s
			}
			golden.Compare(t, "hidden states that a Run keeps", join(xs), before, golden.Tolerance{})
			for _, x := range xs {
				forward(t, b, st, x)
			}
			b.Release()
		}
		golden.Compare(t, "last hidden", join(xs), want[fmt.Sprintf("hidden.%d", m.Blocks())].F32, hiddenTol)
		got := logits(t, m, xs)
		golden.Compare(t, "logits", got, want["logits"].F32, logitsTol)
		t.Logf("logits: largest difference %.2g", golden.MaxAbs(got, want["logits"].F32))
		compareStatistics(t, seen, want)
		compareLengths(t, m, want)
	})
}

// compareLengths holds the logits of sequences of other lengths, where a
// fixture has them, against the stored.
func compareLengths(t *testing.T, m *Model, want map[string]golden.Tensor) {
	for _, kind := range []string{"short", "long"} {
		ids, ok := want[kind+".input_ids"]
		if !ok {
			continue
		}
		var xs []tensor.Matrix
		for _, ids := range sequences(ids) {
			xs = append(xs, run(t, m, atOnce(m), ids, []int{len(ids)}))
		}
		golden.Compare(t, kind+".logits", logits(t, m, xs), want[kind+".logits"].F32, logitsTol)
	}
}

// compareStatistics holds the statistics against sqnorm.*, name for name.
func compareStatistics(t *testing.T, got map[string]*stats.Input, want map[string]golden.Tensor) {
	const prefix = "sqnorm."
	stored := 0
	for name, w := range want {
		if len(name) <= len(prefix) || name[:len(prefix)] != prefix {
			continue
		}
		stored++
		s := got[name[len(prefix):]]
		if s == nil {
			t.Errorf("%s: no Linear of that name", name)
			continue
		}
		sum := make([]float32, len(s.ColSq))
		for j, v := range s.ColSq {
			sum[j] = float32(v)
		}
		golden.Compare(t, name, sum, w.F32, sqnormTol)
	}
	if stored == 0 || stored != len(got) {
		t.Errorf("%d Linears were seen, want the %d stored", len(got), stored)
	}
}
