package cpu

import (
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/kernel"
)

// Route implements engine.Stream.
func (s *stream) Route(x engine.Mat, router engine.Proj, used int, renormalise bool) [][]engine.Routed {
	defer s.Release(s.Mark())
	p := s.matrix(x.Rows, router.N)
	s.linear(p, operandOf(x), router)
	chosen := make([]choice, x.Rows*used)
	eachToken(x.Rows, func(t int) {
		row := p.Row(t)
		top, sum := kernel.MaxSumExp(row)
		for e, v := range row {
			row[e] = float32(math.Exp(float64(v-top)) / sum)
		}
		choose(chosen[t*used:][:used], row, renormalise)
	})
	counts := make([]int, router.N)
	for _, c := range chosen {
		if c.weight >= 0 {
			counts[c.expert]++
		}
	}
	routed := make([][]engine.Routed, router.N)
	for e, n := range counts {
		routed[e] = make([]engine.Routed, 0, n)
	}
	for i, c := range chosen {
		if c.weight >= 0 {
			routed[c.expert] = append(routed[c.expert], engine.Routed{Token: i / used, Weight: c.weight})
		}
	}
	return routed
}

type choice struct {
	expert int
	weight float32 // below 0: none
}

// choose writes the experts of one token, from the largest probability down, and
// overwrites p. If its hidden state is not finite it has none.
func choose(chosen []choice, p []float32, renormalise bool) {
	total := float32(0)
	for i := range chosen {
		best := -1
		for e, v := range p {
			if v >= 0 && (best < 0 || v > p[best]) {
				best = e
			}
		}
		if best < 0 {
			for i := range chosen {
				chosen[i] = choice{weight: -1}
			}
			return
		}
		chosen[i] = choice{best, p[best]}
		total += p[best]
		p[best] = -1
	}
	if renormalise {
		for i := range chosen {
			chosen[i].weight /= total
		}
	}
}

// Gather implements engine.Stream.
func (s *stream) Gather(dst, x engine.Mat, tokens []engine.Routed) {
	to, from := host(dst), host(x)
	eachToken(len(tokens), func(i int) { copy(to.Row(i), from.Row(tokens[i].Token)) })
}

// ScatterAdd implements engine.Stream.
func (s *stream) ScatterAdd(x, y engine.Mat, tokens []engine.Routed) {
	to, from := host(x), host(y)
	eachToken(len(tokens), func(i int) {
		kernel.AddScaled(to.Row(tokens[i].Token), from.Row(i), tokens[i].Weight)
	})
}
