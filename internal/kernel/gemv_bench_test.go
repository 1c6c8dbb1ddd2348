package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkOneToken has products with one token, one after the other and together more
// than caches keep, as in decoding: dense and packed, of a Linear of SmolLM2-135M and of
// one of a model of a billion weights. GB/s are of what is stored.
func BenchmarkOneToken(b *testing.B) {
	for _, s := range []struct{ n, k, count int }{{1536, 576, 100}, {8192, 2048, 6}} {
		for _, v := range []struct {
			name    string
			bits    int // of a value: 16 for bfloat16
			density float64
		}{{"dense", 16, 1}, {"bf16 50%", 16, 0.5}, {"bf16 70%", 16, 0.3}, {"int8 50%", 8, 0.5}, {"int4 50%", 4, 0.5}, {"int8", 8, 1}, {"int4", 4, 1}} {
			b.Run(fmt.Sprintf("%dx%d/%s", s.n, s.k, v.name), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(5, 0))
				var weights []Source
				bytes := 0
				for range s.count {
					var plain, packed Source
					if v.bits == 16 {
						plain, packed = packedCase(rng, "bf16", s.n, s.k, v.density)
						bytes += 2*len(packed.Packed.Values.BF16) + len(packed.Packed.Mask)
					} else {
						_, packed = integersCase(rng, "bf16", v.bits, 64, s.n, s.k, v.density)
						q := packed.Packed.Integers
						bytes += len(q.Values) + 4*len(q.Scales) + len(packed.Packed.Mask)
					}
					if v.density == 1 { // no mask is read
						bytes -= len(packed.Packed.Mask)
						if v.bits == 16 {
							packed = plain
						}
					}
					weights = append(weights, packed)
				}
				x, dst := make([]float32, s.k), make([]float32, s.n)
				for b.Loop() {
					for _, w := range weights {
						MatMulT(dst, s.n, x, s.k, w, s.k, 1, s.n, s.k)
					}
				}
				b.ReportMetric(float64(b.N)*float64(bytes)/b.Elapsed().Seconds()/1e9, "GB/s")
			})
		}
	}
}
