package engine

import (
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
)

// LogSum is ln Σ exp of the logits of one token, which come in parts. The zero
// value is the sum over no logits.
type LogSum struct {
	Target float64 // the target's logit

	max, sum float64 // sum = Σ exp(logit − max)
	any      bool
}

// Add takes in a part: its largest logit and the sum of exp(logit − largest).
func (s *LogSum) Add(largest, sum float64) {
	switch {
	case !s.any:
		s.max, s.sum, s.any = largest, sum, true
	case largest > s.max:
		s.max, s.sum = largest, s.sum*math.Exp(s.max-largest)+sum
	default:
		s.sum += sum * math.Exp(largest-s.max)
	}
}

func (s *LogSum) add(part []float32) {
	largest, sum := kernel.MaxSumExp(part)
	s.Add(float64(largest), sum)
}

// Log returns ln Σ exp.
func (s *LogSum) Log() float64 { return s.max + math.Log(s.sum) }

// NLL returns the target's negative log-likelihood, nats.
func (s *LogSum) NLL() float64 { return s.Log() - s.Target }

// LogPair is one token's two rows of logits, p the dense model's and q the
// other's, which come in parts. The zero value is that of none.
type LogPair struct {
	p, q  LogSum
	cross float64    // Σ exp(p − max p)·(p − q)
	top   [2]float32 // the largest of p and of q
	at    [2]int     // and where they are
}

// Add takes in the logits p and q of the vocabulary from first on.
func (s *LogPair) Add(first int, p, q []float32, target int) {
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
		s.p.Target, s.q.Target = float64(p[i]), float64(q[i])
	}
}

// Divergence is how far a model's prediction of one token is from a dense one's.
type Divergence struct {
	KL            float64 // of the model's distribution from the dense one's, nats
	NLL, DenseNLL float64 // of the target, nats
	SameTop       bool    // both find the same token likeliest
}

// Divergence sums the parts up:
//
//	KL = Σ_v p_v · (ln p_v − ln q_v)
//
// p = softmax of the dense model's logits, q of the other's. A KL that rounding
// makes negative is 0. Of equal logits the first counts as the largest.
func (s *LogPair) Divergence() Divergence {
	return Divergence{
		KL:  math.Max(0, s.cross/s.p.sum-s.p.Log()+s.q.Log()), // Max keeps a NaN
		NLL: s.q.NLL(), DenseNLL: s.p.NLL(), SameTop: s.at[0] == s.at[1],
	}
}
