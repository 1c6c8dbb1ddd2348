package update

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Layers of a 7B model: attention and the MLP's last Linear. The peer is
// tools/peer_sparsegpt.py.
func benchmarkShapes(b *testing.B, f func(b *testing.B, rows, cols int, g *stats.Gram)) {
	for _, cols := range []int{4096, 11008} {
		rng := rand.New(rand.NewPCG(1, 0))
		x := tensor.NewMatrix(2048, cols)
		for i := range x.Data {
			x.Data[i] = float32(rng.NormFloat64())
		}
		g := gramFrom(x)
		b.Run(fmt.Sprintf("4096x%d", cols), func(b *testing.B) { f(b, 4096, cols, g) })
	}
}

func BenchmarkFactorize(b *testing.B) {
	benchmarkShapes(b, func(b *testing.B, rows, cols int, g *stats.Gram) {
		for b.Loop() {
			if _, err := Factorize(g, pattern.Pattern{}); err != nil {
				b.Fatal(err)
			}
		}
		n := float64(cols)
		b.ReportMetric(n*n*n/3*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
	})
}

// BenchmarkADMM is given a mask, or selects, with what it prepares.
func BenchmarkADMM(b *testing.B) {
	benchmarkShapes(b, func(b *testing.B, rows, cols int, g *stats.Gram) {
		rng := rand.New(rand.NewPCG(2, 0))
		w, work := weightOf(rng, rows, cols), make([]float32, rows*cols)
		to := target(b, "2:4")
		given := randomMask(b, rng, rows, cols, to)
		for name, kept := range map[string]*mask.Mask{"given": given, "selecting": nil} {
			b.Run(name, func(b *testing.B) {
				for b.Loop() {
					p, err := ADMM.Prepare(g, to.Pattern, nil)
					if err == nil {
						err = p.Run(b.Context(), clone(w), kept, to, work)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	})
}

func BenchmarkSparseGPT(b *testing.B) {
	benchmarkShapes(b, func(b *testing.B, rows, cols int, g *stats.Gram) {
		w := weightOf(rand.New(rand.NewPCG(2, 0)), rows, cols)
		work := make([]float32, rows*cols)
		for _, s := range []string{"50%", "2:4"} {
			to := target(b, s)
			f, err := Factorize(g, to.Pattern)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(s, func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					v := clone(w)
					b.StartTimer()
					if err := f.Run(b.Context(), v, nil, to, work); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(rows)*float64(cols)*float64(cols)*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
		}
	})
}
