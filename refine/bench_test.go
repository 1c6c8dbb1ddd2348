package refine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// layer is a Linear of a 7B model: inputs of 64 common directions and noise,
// with a mean and a scale of each channel. The peer is tools/peer_refine.py.
func layer(rows, cols int, gram bool) (*tensor.Weight, *stats.Input, []float32) {
	rng := rand.New(rand.NewPCG(1, 0))
	const tokens, ranks = 2048, 64
	scale, mean, mixing := make([]float32, cols), make([]float32, cols), make([]float32, ranks*cols)
	for j := range cols {
		scale[j] = float32(math.Exp(0.5 * rng.NormFloat64()))
		mean[j] = float32(0.3 * rng.NormFloat64())
	}
	for k := range mixing {
		mixing[k] = float32(rng.NormFloat64() / 8)
	}
	x := tensor.NewMatrix(tokens, cols)
	common := make([]float32, ranks)
	for t := range tokens {
		for k := range common {
			common[k] = float32(rng.NormFloat64())
		}
		row := x.Row(t)
		for j := range row {
			row[j] = float32(rng.NormFloat64()) + mean[j]
		}
		for k, c := range common {
			for j, m := range mixing[k*cols : (k+1)*cols] {
				row[j] += c * m
			}
		}
		for j := range row {
			row[j] *= scale[j]
		}
	}
	in := enginetest.Stats(cpu.New(engine.F32), x, stats.Needs{Gram: gram, Moments: true})
	w := weightOf(rows, cols)
	scores := make([]float32, rows*cols)
	for k := range scores {
		v := float32(0.02 * rng.NormFloat64())
		w.Source().F32[k] = v
		scores[k] = float32(math.Abs(float64(v)) * math.Sqrt(in.ColSq[k%cols]))
	}
	return w, in, scores
}

func benchmark(b *testing.B, method Method, cycles ...int) {
	for _, cols := range []int{4096, 11008} {
		const rows = 4096
		var w *tensor.Weight
		var in *stats.Input
		var scores []float32
		for _, to := range []string{"60%", "2:4"} {
			for _, n := range cycles {
				b.Run(fmt.Sprintf("%dx%d/%s/%d", rows, cols, to, n), func(b *testing.B) {
					if w == nil {
						w, in, scores = layer(rows, cols, method.NeedsGram)
					}
					var r Result
					for b.Loop() {
						b.StopTimer()
						p := start(b, w, in, scores, target(b, to), n)
						p.Gram = nil
						b.StartTimer()
						if method.NeedsGram {
							p.Gram = NewGram(in.Gram)
						}
						r = do(b, method, p)
					}
					b.ReportMetric(float64(r.Exchanges)/rows, "exchanges/row")
					b.ReportMetric(100*r.After/r.Before, "%left")
				})
			}
		}
	}
}

func BenchmarkDSnoT(b *testing.B) { benchmark(b, DSnoT, usual(DSnoT)) }

func BenchmarkSwaps(b *testing.B) { benchmark(b, Swaps, 10, usual(Swaps)) }
