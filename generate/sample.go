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

// Ranking orders tokens by their logits, as far as it is asked to: a vocabulary of
// 150 000 is rarely needed beyond the first few.
type Ranking struct {
	logits []float32
	order  []int32 // the likeliest, as many as are known
}

// Reset makes r rank these logits, none of which is NaN.
func (r *Ranking) Reset(logits []float32) { r.logits, r.order = logits, r.order[:0] }

// before reports whether token a is likelier than b, or equal and the first.
func (r *Ranking) before(a, b int32) int {
	return cmp.Or(cmp.Compare(r.logits[b], r.logits[a]), cmp.Compare(a, b))
}

// Top returns the n likeliest tokens, or all where there are fewer, likeliest
// first, of equals the lower id.
func (r *Ranking) Top(n int) []int32 {
	n = min(n, len(r.logits))
	if len(r.order) < n {
		r.extend(n)
	}
	return r.order[:n]
}

// extend finds n tokens or more.
func (r *Ranking) extend(n int) {
	const few = 512 // beyond, sorting all is cheaper than inserting
	most := 64
	for most < n {
		most *= 8
	}
	r.order = r.order[:0]
	if most > few || most >= len(r.logits) {
		for i := range r.logits {
			r.order = append(r.order, int32(i))
		}
		slices.SortFunc(r.order, r.before)
		return
	}
	for i, v := range r.logits {
		full := len(r.order) == most
		if full && v <= r.logits[r.order[most-1]] {
			continue // of equals the first is there
		}
		if full {
			r.order = r.order[:most-1]
		}
		at, _ := slices.BinarySearchFunc(r.order, int32(i), r.before)
		r.order = slices.Insert(r.order, at, int32(i))
	}
}

// LogSum returns ln Σ exp(logit), which turns a logit into the token's
// log-probability, nats.
func (r *Ranking) LogSum() float64 {
	top := float64(r.logits[r.Top(1)[0]])
	sum := 0.0
	for _, v := range r.logits {
		sum += math.Exp(float64(v) - top)
	}
	return top + math.Log(sum)
}

// Sampler chooses the tokens of one text.
type Sampler struct {
	Sampling
	draws splitmix.Source
}

// NewSampler returns the Sampler of a text that begins.
func NewSampler(s Sampling) *Sampler { return &Sampler{s, splitmix.Source(s.Seed)} }

// uniform returns a number in [0, 1).
func (s *Sampler) uniform() float64 { return float64(s.draws.Next()>>11) / (1 << 53) }

// Next chooses a token by its logits, which it leaves in r. A logit that is NaN or
// infinite is an error.
func (s *Sampler) Next(logits []float32, r *Ranking) (int32, error) {
	for i, v := range logits {
		if math.IsNaN(float64(v)) {
			return 0, fmt.Errorf("the logit of token %d is NaN", i)
		}
	}
	r.Reset(logits)
	best := r.Top(1)[0]
	if math.IsInf(float64(logits[best]), 0) {
		return 0, errors.New("a logit is infinite")
	}
	if s.Temperature == 0 {
		return best, nil
	}
	n, sum := s.choice(r)
	u := s.uniform() * sum
	for i := range n {
		id := r.Top(i + 1)[i]
		if u -= s.weight(r, id); u < 0 {
			return id, nil
		}
	}
	return best, nil // the sum fell short by rounding
}

// weight is a token's probability, but for a factor.
func (s *Sampler) weight(r *Ranking, id int32) float64 {
	return math.Exp((float64(r.logits[id]) - float64(r.logits[r.order[0]])) / s.Temperature)
}

// choice returns how many of r's likeliest tokens there are to choose from, and
// the sum of their weights, in the order of transformers' processors: of the
// softmax of logits/temperature the K likeliest, and of these, with what they have
// between them as the whole, those likeliest that reach TopP.
func (s *Sampler) choice(r *Ranking) (n int, sum float64) {
	n = len(r.logits)
	if s.TopK > 0 && s.TopK < n {
		last := r.logits[r.Top(s.TopK)[s.TopK-1]]
		for n = s.TopK; n < len(r.logits) && r.logits[r.Top(n + 1)[n]] == last; n++ {
		}
		for _, id := range r.Top(n) {
			sum += s.weight(r, id)
		}
	} else {
		for id := range r.logits {
			sum += s.weight(r, int32(id))
		}
	}
	if s.TopP > 0 && s.TopP < 1 {
		kept, reach := 0.0, s.TopP*sum
		for i := range n {
			kept += s.weight(r, r.Top(i + 1)[i])
			if kept >= reach {
				return i + 1, kept
			}
		}
	}
	return n, sum
}
