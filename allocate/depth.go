package allocate

import (
	"math"

	"github.com/crepe-llm/crepe/param"
)

// Depth prunes by a block's place alone, along a curve that a search can find.
var Depth = Method{
	Name: "depth",
	Doc:  "shares along a curve over depth, whose parameters crepe search finds; needs no data",
	Params: []param.Spec{
		{Name: "depth_slope", Doc: "how much more the last block is pruned than the middle, in log-odds", Default: 0.25, Min: -4, Max: 4},
		{Name: "depth_curve", Doc: "how much more both ends are pruned than the middle, in log-odds", Default: 0., Min: -4, Max: 4},
		{Name: "depth_first", Doc: "how much more the first block is pruned beside that, in log-odds", Default: -0.75, Min: -4, Max: 4},
	},
	FromPlace: func(b, n int) float64 {
		if n == 1 {
			return 0
		}
		return 2*float64(b)/float64(n-1) - 1
	},
	spread: spreadByDepth,
}

// spreadByDepth gives block b of n the share
//
//	p_b = 1/(1 + exp(−(c + slope·t + curve·t² + first·[b = 0]))),  t = 2b/(n−1) − 1
//
// with c such that the mean is p, weighted by n_b. In log-odds no share leaves (0, 1),
// whatever p is, and one curve serves several sparsities.
func spreadByDepth(share []float64, blocks []Block, p float64, params param.Values) {
	slope, curve, first := params.Number("depth_slope"), params.Number("depth_curve"), params.Number("depth_first")
	fill := func(c float64) (mean float64) {
		total := 0.0
		for b, at := range blocks {
			if at.Weights == 0 {
				continue
			}
			t := at.Measure
			odds := c + slope*t + curve*t*t
			if t == -1 {
				odds += first
			}
			share[b] = 1 / (1 + math.Exp(-odds))
			total += float64(at.Weights)
			mean += float64(at.Weights) * share[b]
		}
		return mean / total
	}
	lo, hi := -100.0, 100.0 // e⁻⁸⁸ is a share of nothing
	for range 100 {
		c := (lo + hi) / 2
		if fill(c) < p {
			lo = c
		} else {
			hi = c
		}
	}
	fill(hi)
	for b := range share { // the same on every processor
		share[b] = math.Round(share[b]*1e9) / 1e9
	}
	level(share, blocks, p)
}

// level moves all shares by what rounding moved their mean.
func level(share []float64, blocks []Block, p float64) {
	total, got := 0.0, 0.0
	for b, at := range blocks {
		total += float64(at.Weights)
		got += float64(at.Weights) * share[b]
	}
	for b, at := range blocks {
		if at.Weights > 0 {
			share[b] += p - got/total
		}
	}
}
