package model

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/tensor"
)

// Divergence is how far a model's prediction of one token is from a dense one's.
type Divergence struct {
	KL            float64 // of the model's distribution from the dense one's, nats
	NLL, DenseNLL float64 // of the target, nats
	SameTop       bool    // both find the same token likeliest
}

// Compare holds h's predictions after x against those of dense after y, the
// same tokens' hidden states:
//
//	KL = Σ_v p_v · (ln p_v − ln q_v)
//
// p = softmax of dense's logits, q of h's. x and y are tokens × width; both
// models have one vocabulary, or it is an error. Logits are float32, sums
// float64 and streamed over the vocabulary as in NLL; a KL that rounding makes
// negative is 0. Of equal logits the first counts as the largest.
func (h *Head) Compare(dense *Head, x, y tensor.Matrix, targets []int32, dst []Divergence) error {
	if x.Rows != y.Rows || len(targets) != x.Rows || len(dst) != x.Rows {
		panic(fmt.Sprintf("model: Compare: %d and %d rows, %d targets, %d results, want as many", x.Rows, y.Rows, len(targets), len(dst)))
	}
	if a, b := h.m.Config.Vocab, dense.m.Config.Vocab; a != b {
		return fmt.Errorf("vocabularies of %d and %d tokens, want the same", a, b)
	}
	// The parts of the vocabulary must be the same; the larger head is cut.
	rows := min(h.chunk.Rows, dense.chunk.Rows)
	h.cut(rows)
	dense.cut(rows)
	pairs := make([]pair, x.Rows)
	for first := 0; first < h.m.Config.Vocab; first += rows {
		part, err := h.load(first)
		if err != nil {
			return err
		}
		densePart, err := dense.load(first)
		if err != nil {
			return err
		}
		const tokens = 512 // whose logits over a part are kept
		for lo := 0; lo < x.Rows; lo += tokens {
			hi := min(lo+tokens, x.Rows)
			logits := tensor.NewMatrix(hi-lo, part.n)
			h.logits(part, x.Slice(lo, hi), func(t, i int, q []float32) { copy(logits.Row(t)[i:], q) })
			dense.logits(densePart, y.Slice(lo, hi), func(t, i int, p []float32) {
				pairs[lo+t].add(first+i, p, logits.Row(t)[i:][:len(p)], int(targets[lo+t]))
			})
		}
	}
	for t := range dst {
		dst[t] = pairs[t].divergence()
	}
	return nil
}

// cut makes h read at most rows vocabulary rows at once.
func (h *Head) cut(rows int) {
	if rows < h.chunk.Rows {
		h.chunk.Rows, h.first = rows, nowhere
		h.chunk.W = tensor.NewWeight(h.chunk.W.DType, rows, h.chunk.W.Cols)
	}
}

// pair is one position's two rows of logits, p the dense one's, that come in parts.
type pair struct {
	p, q  logSum
	cross float64    // Σ exp(p − max p)·(p − q)
	top   [2]float32 // the largest of p and of q
	at    [2]int     // and where they are
}

func (s *pair) add(first int, p, q []float32, target int) {
	began, before := s.p.any, s.p.max
	s.p.add(p)
	s.q.add(q)
	if began {
		s.cross *= math.Exp(before - s.p.max)
	}
	for v := range p {
		a, b := float64(p[v]), float64(q[v])
		s.cross += math.Exp(a-s.p.max) * (a - b)
	}
	for i, row := range [][]float32{p, q} {
		for v, x := range row {
			if !began && v == 0 || x > s.top[i] {
				s.top[i], s.at[i] = x, first+v
			}
		}
	}
	if i := target - first; i >= 0 && i < len(p) {
		s.p.target, s.q.target = float64(p[i]), float64(q[i])
	}
}

func (s *pair) divergence() Divergence {
	p, q := s.p.log(), s.q.log()
	return Divergence{
		KL:  math.Max(0, s.cross/s.p.sum-p+q), // Max keeps a NaN
		NLL: q - s.q.target, DenseNLL: p - s.p.target, SameTop: s.at[0] == s.at[1],
	}
}
