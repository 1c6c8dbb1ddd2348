package search

import (
	"cmp"
	"math"
	"slices"
)

// tpe is the tree-structured Parzen estimator (Bergstra et al. 2011), of all
// coordinates together as in Falkner et al. 2018: after tpeStartup random
// points, the best tenth of the points, 25 at most, makes density l, the
// others g, and of tpeCandidates drawn from l the one with the highest l/g is
// asked. A density is a mean of Gaussians at its points and an even one, cut off
// at the cube's walls; their width is the mean distance that n even points have
// in it, n^(−1/(4+d)) of a third of the edge.
type tpe struct {
	rng    rng
	dim    int
	trials []Trial
}

const (
	tpeStartup    = 10
	tpeCandidates = 24
	tpeBestAtMost = 25
	tpeMinWidth   = 0.01
)

func newTPE(o Options) (Sampler, error) { return &tpe{rng: rng(o.Seed), dim: len(o.Start)}, nil }

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
	l, g := newParzen(s.dim, sorted[:n]), newParzen(s.dim, sorted[n:])
	var best []float64
	top := math.Inf(-1)
	for range tpeCandidates {
		x := l.draw(&s.rng)
		if v := l.log(x) - g.log(x); v > top {
			best, top = x, v
		}
	}
	return snap(best), nil
}

// parzen is a density over the unit cube.
type parzen struct {
	at    [][]float64
	dim   int
	width float64
}

func newParzen(dim int, trials []Trial) *parzen {
	const edge = 1.0 / 3
	p := &parzen{dim: dim, width: max(tpeMinWidth, edge*math.Pow(float64(len(trials)), -1/float64(4+dim)))}
	for _, t := range trials {
		p.at = append(p.at, t.X)
	}
	return p
}

// draw returns a point of the density.
func (p *parzen) draw(r *rng) []float64 {
	x := r.point(p.dim)
	i := int(r.next() % uint64(len(p.at)+1))
	if i == len(p.at) {
		return x
	}
	for k := range x { // the inverse of the distribution, cut off at the walls
		lo, hi := normal((0-p.at[i][k])/p.width), normal((1-p.at[i][k])/p.width)
		q := lo + (hi-lo)*r.uniform()
		x[k] = min(max(p.at[i][k]+p.width*math.Sqrt2*math.Erfinv(2*q-1), 0), 1)
	}
	return x
}

// log returns the logarithm of the density at x.
func (p *parzen) log(x []float64) float64 {
	total := 1.0 // the even one
	for _, at := range p.at {
		v := 1.0
		for k := range x {
			z := (x[k] - at[k]) / p.width
			inside := normal((1-at[k])/p.width) - normal((0-at[k])/p.width)
			v *= math.Exp(-z*z/2) / (math.Sqrt(2*math.Pi) * p.width * inside)
		}
		total += v
	}
	return math.Log(total / float64(len(p.at)+1))
}

// normal is the standard normal distribution function.
func normal(z float64) float64 { return math.Erfc(-z/math.Sqrt2) / 2 }
