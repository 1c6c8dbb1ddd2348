package model

import (
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// TestForkGoesOnFromTheSharedBeginning runs two ends after one beginning, the
// other one first: what it adds must not reach the second, nor what the states
// held before.
func TestForkGoesOnFromTheSharedBeginning(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		ids := sequences(want["input_ids"])[0]
		p := len(ids) / 2
		other := slices.Concat(ids[:p], slices.Repeat(ids[:1], len(ids)-p))
		wants := [][]float32{
			run(t, m, atOnce(m), other, []int{len(ids)}).Data,
			run(t, m, atOnce(m), ids, []int{len(ids)}).Data,
		}
		xs := embed(t, m, [][]int32{other, ids})
		shared, branch := inPieces(m, 0), inPieces(m, 0)
		for i := range m.Blocks() {
			b := load(t, m, i)
			shared.cache.Begin(len(ids))
			forward(t, b, shared, xs[0].Slice(0, p))
			copy(xs[1].Data, xs[0].Slice(0, p).Data)
			for _, x := range xs {
				shared.cache.Fork(branch.cache)
				forward(t, b, branch, x.Slice(p, len(ids)))
			}
			b.Release()
		}
		for i, x := range xs {
			golden.Compare(t, []string{"other", "own"}[i], x.Data, wants[i], piecesTol)
		}
	})
}

func TestSameRotation(t *testing.T) {
	c := &Config{rope: &rope{kind: "longrope", original: 10}}
	m := &Model{Config: c}
	if m.SameRotation(10, 11) || !m.SameRotation(11, 12) || !m.SameRotation(3, 10) {
		t.Error("longrope after 10 tokens: 10 and 11 are not alike, 11 and 12, 3 and 10 are")
	}
	c.rope.kind = "default"
	if !m.SameRotation(10, 11) {
		t.Error("without longrope all lengths are alike")
	}
}
