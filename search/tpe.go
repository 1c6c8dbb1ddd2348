package search

import (
	"cmp"
	"math"
	"slices"
)

// tpe is the tree-structured Parzen estimator (Bergstra et al. 2011), each
// coordinate by itself: after tpeStartup random points, the best tenth of the
// points, tpeBestAtMost at most, makes density l, the others g, and of
// tpeCandidates drawn from l the one with the highest l/g is asked. A density is a
// mean of normal distributions at its points and of one at the middle as wide as
// the edge, cut off at the walls. A point's deviation is the distance to its
// farther neighbour, the walls and the middle among them, at least a share of the
// edge that falls with the number of points, as in Optuna.
type tpe struct {
	rng    rng
	dim    int
	trials []Trial
}

const (
	tpeStartup    = 10
	tpeCandidates = 24
	tpeBestAtMost = 25
)

func newTPE(o Options) (Sampler, error) { return &tpe{rng: newRNG(o.Seed), dim: len(o.Start)}, nil }

func (s *tpe) Tell(x []float64, value float64) error {
	s.trials = append(s.trials, Trial{Number: len(s.trials), X: slices.Clone(x), Value: value})
	return nil
}

func (s *tpe) Ask() ([]float64, error) {
	if len(s.trials) < tpeStartup {
		return s.rng.point(s.dim), nil
	}
	sorted := slices.Clone(s.trials)
	slices.SortStableFunc(sorted, func(a, b Trial) int { return cmp.Compare(a.Value, b.Value) })
	n := min((len(sorted)+9)/10, tpeBestAtMost)
	x := make([]float64, s.dim)
	for k := range x {
		l, g := newParzen(sorted[:n], k), newParzen(sorted[n:], k)
		top := math.Inf(-1)
		for range tpeCandidates {
			v := l.draw(&s.rng)
			if ratio := l.log(v) - g.log(v); ratio > top {
				x[k], top = v, ratio
			}
		}
	}
	return snap(x), nil
}

// parzen is a density over [0, 1].
type parzen struct{ at, width []float64 }

// newParzen returns the density of coordinate k of trials.
func newParzen(trials []Trial, k int) *parzen {
	const middle, most = 0.5, 100
	p := &parzen{at: []float64{middle}}
	for _, t := range trials {
		p.at = append(p.at, t.X[k])
	}
	slices.Sort(p.at)
	least := 1 / math.Min(most, float64(len(p.at)+1))
	seen := false
	for i, v := range p.at {
		left, right := 0.0, 1.0
		if i > 0 {
			left = p.at[i-1]
		}
		if i < len(p.at)-1 {
			right = p.at[i+1]
		}
		width := min(max(v-left, right-v, least), 1)
		if v == middle && !seen {
			seen, width = true, 1
		}
		p.width = append(p.width, width)
	}
	return p
}

// draw returns a number from the density: the inverse of the distribution of one
// of its parts, cut off at the walls.
func (p *parzen) draw(r *rng) float64 {
	i := int(r.Next() % uint64(len(p.at)))
	lo, hi := p.inside(i)
	q := lo + (hi-lo)*r.uniform()
	return min(max(p.at[i]+p.width[i]*math.Sqrt2*math.Erfinv(2*q-1), 0), 1)
}

// inside returns the distribution function of part i at the walls.
func (p *parzen) inside(i int) (lo, hi float64) {
	return normal((0 - p.at[i]) / p.width[i]), normal((1 - p.at[i]) / p.width[i])
}

// log returns the logarithm of the density at x.
func (p *parzen) log(x float64) float64 {
	total := 0.0
	for i, at := range p.at {
		z := (x - at) / p.width[i]
		lo, hi := p.inside(i)
		total += math.Exp(-z*z/2) / (math.Sqrt(2*math.Pi) * p.width[i] * (hi - lo))
	}
	return math.Log(total / float64(len(p.at)))
}

// normal is the standard normal distribution function.
func normal(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }
