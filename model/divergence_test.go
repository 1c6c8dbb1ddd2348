package model

import (
	"fmt"
	"math"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// TestCompareEqualsItsDefinition computes the divergence from whole rows of
// logits, and holds the streamed one against it, the vocabulary in one part
// and in several; and that of a model with itself, which is none, exactly.
func TestCompareEqualsItsDefinition(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		ids := sequences(want["input_ids"])[0]
		x := embed(t, m, [][]int32{ids})[0]
		y := tensor.NewMatrix(x.Rows, x.Cols)
		for i, v := range x.Data {
			y.Data[i] = v * (1 + 0.3*float32(i%5))
		}
		q, p := wholeLogits(t, m, x), wholeLogits(t, m, y)
		var wants []engine.Divergence
		for i, id := range ids {
			wants = append(wants, diverge(p.Row(i), q.Row(i), int(id)))
		}
		for _, rows := range [][2]int{{m.Config.Vocab, m.Config.Vocab}, {7, m.Config.Vocab}, {50, 33}} {
			for name, other := range map[string]tensor.Matrix{"other": y, "itself": x} {
				got := compareHeads(t, m, rows, x, other, ids)
				for i, d := range got {
					w := wants[i]
					if name == "itself" {
						if d.KL != 0 || !d.SameTop || d.NLL != d.DenseNLL {
							t.Fatalf("%v: token %d with itself: %+v, want no divergence", rows, i, d)
						}
						continue
					}
					// Both are float64 sums of the same float32 logits.
					golden.Compare(t, fmt.Sprintf("%v: token %d", rows, i),
						[]float64{d.KL, d.NLL, d.DenseNLL}, []float64{w.KL, w.NLL, w.DenseNLL}, golden.Tolerance{Abs: 1e-5})
					if d.SameTop != w.SameTop {
						t.Errorf("%v: token %d: same top %v, want %v", rows, i, d.SameTop, w.SameTop)
					}
				}
			}
		}
	})
}

func wholeLogits(t *testing.T, m *Model, x tensor.Matrix) tensor.Matrix {
	t.Helper()
	h, err := m.LoadHead()
	if err != nil {
		t.Fatal(err)
	}
	y := m.Engine().NewMat(x.Rows, m.Config.Vocab)
	if err := h.Logits(y, enginetest.Upload(m.Engine(), x)); err != nil {
		t.Fatal(err)
	}
	return enginetest.Download(m.Engine(), y)
}

func compareHeads(t *testing.T, m *Model, rows [2]int, x, y tensor.Matrix, ids []int32) []engine.Divergence {
	t.Helper()
	var heads [2]*Head
	for i := range heads {
		var err error
		if heads[i], err = m.loadHead(rows[i]); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]engine.Divergence, len(ids))
	if err := heads[0].Compare(heads[1], enginetest.Upload(m.Engine(), x), enginetest.Upload(m.Engine(), y), ids, got); err != nil {
		t.Fatal(err)
	}
	return got
}

// diverge is the definition of a Divergence.
func diverge(p, q []float32, target int) engine.Divergence {
	logP, logQ := logSoftmax(p), logSoftmax(q)
	d := engine.Divergence{NLL: -logQ[target], DenseNLL: -logP[target], SameTop: argmax(p) == argmax(q)}
	for v := range logP {
		d.KL += math.Exp(logP[v]) * (logP[v] - logQ[v])
	}
	return d
}

func logSoftmax(x []float32) []float64 {
	sum := 0.0
	for _, v := range x {
		sum += math.Exp(float64(v))
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v) - math.Log(sum)
	}
	return y
}
