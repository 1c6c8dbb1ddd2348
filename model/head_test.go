package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// TestNLL holds NLL, with the vocabulary in chunks of several sizes, against
// the definition evaluated in float64 on stored logits.
func TestNLL(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		var x tensor.Matrix
		var targets []int32
		for _, ids := range sequences(want["input_ids"]) {
			y := run(t, m, atOnce(m), ids, []int{len(ids)})
			x = tensor.Matrix{Rows: x.Rows + y.Rows, Cols: y.Cols, Data: append(x.Data, y.Data...)}
			targets = append(append(targets, ids[1:]...), -1)
		}
		v := m.Config.Vocab
		exact := make([]float64, x.Rows)
		for i, id := range targets {
			if id >= 0 {
				exact[i] = nll(want["logits"].F32[i*v:(i+1)*v], int(id))
			}
		}
		for _, rows := range []int{v, 2 * v, 7, v - 1, 1} {
			var first []float64
			for _, keep := range []bool{false, true} {
				opt := m.Options()
				opt.KeepHead = keep
				h, err := m.With(opt).loadHead(rows)
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					got := make([]float64, x.Rows)
					if err := h.NLL(enginetest.Upload(m.Engine(), x), targets, got); err != nil {
						t.Fatal(err)
					}
					golden.Compare(t, "nll", got, exact, golden.Tolerance{Abs: 2 * logitsTol.Abs})
					if first == nil {
						first = got
					}
					if !slices.Equal(got, first) {
						t.Errorf("%d rows at once, all kept %v: %v, want the same bits as before, %v", rows, keep, got, first)
					}
				}
				want := 1
				if keep {
					want = (v + h.rows - 1) / h.rows
				}
				if len(h.ops) != want {
					t.Errorf("%d rows at once, all kept %v: %d chunks in memory, want %d", rows, keep, len(h.ops), want)
				}
			}
		}
	})
}

// Whatever the vocabulary and the number of tokens, memory holds the logits of
// chunkTokens tokens over a part of the vocabulary.
func TestNLLKeepsFewLogits(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, _ map[string]golden.Tensor) {
		rows, tokens := 7, 5*chunkTokens+3
		h, err := m.loadHead(rows)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.NLL(m.NewMat(tokens), make([]int32, tokens), make([]float64, tokens)); err != nil {
			t.Fatal(err)
		}
		held := int(h.stream.Bytes() / 4)
		if most := chunkTokens * (rows + m.Config.Width); held > most {
			t.Errorf("%d numbers in memory for %d tokens and a vocabulary of %d, want at most %d", held, tokens, m.Config.Vocab, most)
		}
	})
}

func nll(logits []float32, target int) float64 {
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v))
	}
	return math.Log(sum) - float64(logits[target])
}

func TestTokensOutOfRange(t *testing.T) {
	m := open(t, fixturesDir+"/llama-mha")
	x := m.NewMat(2)
	for _, id := range []int32{-1, int32(m.Config.Vocab)} {
		if err := m.Embed(x, []int32{0, id}); err == nil || !strings.Contains(err.Error(), "token 1 has id") {
			t.Errorf("Embed of id %d: %v, want an error naming token 1", id, err)
		}
	}
	h, err := m.LoadHead()
	if err != nil {
		t.Fatal(err)
	}
	err = h.NLL(x, []int32{0, int32(m.Config.Vocab)}, make([]float64, 2))
	if err == nil || !strings.Contains(err.Error(), "target 1 has id") {
		t.Errorf("NLL: %v, want an error naming target 1", err)
	}
}
