package prune

import (
	"time"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// EstimateSeconds times one matrix product of e on this machine and scales it to
// the plan's. Reading, scoring and writing are small beside it and are counted
// at a modest rate.
func (p *Plan) EstimateSeconds(e engine.Engine) (float64, error) {
	const (
		ioRate = 500e6 // bytes a second: a plain disk
		share  = 0.8   // of a large product's speed that a whole block reaches
		rate64 = 2e9   // float64 operations a second of singular values
	)
	seconds := p.FLOP64/rate64 + float64(p.Disk.Output)/ioRate
	for _, work := range []struct {
		flop    float64
		weights tensor.DType // whose products it is counted in
	}{{p.FLOP, tensor.BF16}, {p.FLOP32, tensor.F32}} {
		if work.flop == 0 {
			continue
		}
		rate, err := productRate(e, work.weights)
		if err != nil {
			return 0, err
		}
		seconds += work.flop / (share * rate)
	}
	return seconds, nil
}

// productRate returns the operations a second of a product with weights of that
// type.
func productRate(e engine.Engine, weights tensor.DType) (float64, error) {
	const tokens, width = 256, 1024
	op, err := e.Load(tensor.NewWeight(weights, width, width))
	if err != nil {
		return 0, err
	}
	x, y, stream := e.NewMat(tokens, width), e.NewMat(tokens, width), e.NewStream()
	multiply := func() { stream.Linear(y, x, engine.Proj{W: op, N: width}) }
	multiply() // the first takes memory
	start, runs := time.Now(), 0
	for time.Since(start) < 100*time.Millisecond {
		multiply()
		runs++
	}
	return 2 * tokens * width * width * float64(runs) / time.Since(start).Seconds(), nil
}
