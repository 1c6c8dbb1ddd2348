package prune

import (
	"time"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

// EstimateSeconds times one matrix product on this machine and scales it to
// the plan's. Reading, scoring and writing are small beside it and are counted
// at a modest rate.
func (p *Plan) EstimateSeconds(c model.Compute) float64 {
	const (
		tokens, width = 256, 1024
		ioRate        = 500e6 // bytes a second: a plain disk
		share         = 0.8   // of a large product's speed that a whole block reaches
		rate64        = 2e9   // float64 operations a second of singular values
	)
	x, y := tensor.NewMatrix(tokens, width), tensor.NewMatrix(tokens, width)
	w := tensor.NewWeight(tensor.BF16, width, width)
	multiply := func(c model.Compute) {
		product := kernel.MatMulT
		if c == model.BF16 {
			product = kernel.MatMulTBF16
		}
		product(y.Data, width, x.Data, width, w.Source(), width, tokens, width, width)
	}
	seconds := func(flop float64, c model.Compute) float64 {
		if flop == 0 {
			return 0
		}
		multiply(c) // the first takes memory
		start, runs := time.Now(), 0
		for time.Since(start) < 100*time.Millisecond {
			multiply(c)
			runs++
		}
		perSecond := 2 * tokens * width * width * float64(runs) / time.Since(start).Seconds()
		return flop / (share * perSecond)
	}
	return seconds(p.FLOP, c) + seconds(p.FLOP32, model.F32) + p.FLOP64/rate64 + float64(p.Disk.Output)/ioRate
}
