package generate

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/internal/splitmix"
)

// Sampling says how a token is chosen. The zero value is greedy: the likeliest,
// the first of equals.
type Sampling struct {
	Temperature float64 // logits are divided by it; 0: greedy
	TopK        int     // choose among the K likeliest, and those equal to the last; 0: all
	TopP        float64 // choose among the likeliest that together reach this probability; 0: all
	Seed        uint64
}

// Validate refuses what is no way to choose.
func (s Sampling) Validate() error {
	switch {
	case !(s.Temperature >= 0) || math.IsInf(s.Temperature, 0):
		return fmt.Errorf("temperature %v, want a number from 0 (greedy) up", s.Temperature)
	case s.TopK < 0:
		return fmt.Errorf("top k %d, want at least 1 (or 0 for all)", s.TopK)
	case !(s.TopP >= 0 && s.TopP <= 1):
		return fmt.Errorf("top p %v, want a number in (0, 1] (or 0 for all)", s.TopP)
	}
	return nil
}

// sampler chooses the tokens of one text.
type sampler struct {
	Sampling
	draws splitmix.Source
	order []int32   // tokens, likeliest first
	p     []float64 // by order
}

func newSampler(s Sampling, vocab int) *sampler {
	return &sampler{Sampling: s, draws: splitmix.Source(s.Seed), order: make([]int32, vocab), p: make([]float64, vocab)}
}

// uniform returns a number in [0, 1).
func (s *sampler) uniform() float64 { return float64(s.draws.Next()>>11) / (1 << 53) }

// next chooses a token by its logits.
func (s *sampler) next(logits []float32) (int32, error) {
	best := 0
	for i, v := range logits {
		if math.IsNaN(float64(v)) {
			return 0, fmt.Errorf("the logit of token %d is NaN", i)
		}
		if v > logits[best] {
			best = i
		}
	}
	if math.IsInf(float64(logits[best]), 0) {
		return 0, errors.New("a logit is infinite")
	}
	if s.Temperature == 0 {
		return int32(best), nil
	}
	ids, p := s.distribution(logits)
	u := s.uniform()
	for i, v := range p {
		if u -= v; u < 0 {
			return ids[i], nil
		}
	}
	return ids[0], nil // the sum fell short of 1 by rounding
}

// distribution returns the tokens to choose from, likeliest first, and their
// probabilities, in the order of transformers' processors: softmax of
// logits/temperature, of these the K likeliest, and of these, with what they
// have between them as the whole, those likeliest that reach TopP.
func (s *sampler) distribution(logits []float32) ([]int32, []float64) {
	for i := range s.order {
		s.order[i] = int32(i)
	}
	slices.SortFunc(s.order, func(a, b int32) int {
		return cmp.Or(cmp.Compare(logits[b], logits[a]), cmp.Compare(a, b))
	})
	n := len(s.order)
	if s.TopK > 0 && s.TopK < n {
		last := logits[s.order[s.TopK-1]]
		for n = s.TopK; n < len(s.order) && logits[s.order[n]] == last; n++ {
		}
	}
	p := s.p[:n]
	top := float64(logits[s.order[0]])
	for i := range p {
		p[i] = math.Exp((float64(logits[s.order[i]]) - top) / s.Temperature)
	}
	normalize(p)
	if s.TopP > 0 && s.TopP < 1 {
		n, sum := 0, 0.0
		for n < len(p) && sum < s.TopP {
			sum += p[n]
			n++
		}
		p = p[:n]
		normalize(p)
	}
	return s.order[:len(p)], p
}

func normalize(p []float64) {
	sum := 0.0
	for _, v := range p {
		sum += v
	}
	for i := range p {
		p[i] /= sum
	}
}
