package search

import (
	"slices"

	"github.com/c-bata/goptuna/cmaes"
)

// cma is CMA-ES (Hansen 2016, arXiv:1604.00772). It starts at Options.Start with
// a deviation of a sixth of the cube's edge, as Optuna's does. A point outside
// the cube is drawn again, and after maxRedraws moved to the nearest inside.
// When a population has converged, another starts at a random point.
type cma struct {
	opt  *cmaes.Optimizer
	rng  rng // of restarts
	dim  int
	told []*cmaes.Solution // of this generation
}

const (
	cmaSigma   = 1.0 / 6
	maxRedraws = 100
)

func newCMA(o Options) (Sampler, error) {
	c := &cma{rng: newRNG(o.Seed), dim: len(o.Start)}
	return c, c.begin(o.Start)
}

func (c *cma) begin(mean []float64) error {
	var err error
	c.opt, err = cmaes.NewOptimizer(slices.Clone(mean), cmaSigma, cmaes.OptimizerOptionSeed(int64(c.rng.Next()>>1)))
	return err
}

func (c *cma) Ask() ([]float64, error) {
	var x []float64
	for range maxRedraws {
		var err error
		if x, err = c.opt.Ask(); err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(x, func(v float64) bool { return v < 0 || v > 1 }) {
			break
		}
	}
	return snap(x), nil
}

func (c *cma) Tell(x []float64, value float64) error {
	c.told = append(c.told, &cmaes.Solution{Params: slices.Clone(x), Value: value})
	if len(c.told) < c.opt.PopulationSize() {
		return nil
	}
	// Equal values: the order of asking, whatever the library's sort does.
	slices.SortStableFunc(c.told, func(a, b *cmaes.Solution) int {
		switch {
		case a.Value < b.Value:
			return -1
		case a.Value > b.Value:
			return 1
		}
		return 0
	})
	err := c.opt.Tell(c.told)
	c.told = nil
	if err != nil || !c.opt.ShouldStop() {
		return err
	}
	return c.begin(c.rng.point(c.dim))
}
