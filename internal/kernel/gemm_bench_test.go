package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// eachBenchLevel runs f with every level, highest first.
func eachBenchLevel(b *testing.B, f func(b *testing.B)) {
	levels := cpu.Levels()
	for i := range levels {
		level := levels[len(levels)-1-i]
		b.Run(level.String(), func(b *testing.B) {
			defer cpu.Use(level)()
			f(b)
		})
	}
}

// BenchmarkGemm has the shapes of LLaMA-2-7B's Linears for 2048 tokens, those
// of a small model, and one token. tools/peer_gemm.py runs the first against
// PyTorch.
func BenchmarkGemm(b *testing.B) {
	for _, s := range []struct{ m, n, k int }{
		{2048, 4096, 4096}, {2048, 11008, 4096}, {2048, 4096, 11008},
		{512, 256, 256}, {512, 688, 256}, {512, 256, 688}, {1, 4096, 4096}, {4, 4096, 4096},
		{1, 11008, 4096}, {3, 11008, 4096}, {16, 11008, 4096},
	} {
		b.Run(fmt.Sprintf("%dx%dx%d", s.m, s.n, s.k), func(b *testing.B) { benchGemm(b, s.m, s.n, s.k) })
	}
}

func benchGemm(b *testing.B, m, n, k int) {
	rng := rand.New(rand.NewPCG(5, 0))
	x, _ := testSource(rng, "f32", m*k)
	wide, _ := testSource(rng, "f32", n*k)
	narrow := Source{BF16: make([]uint16, n*k)}
	NarrowBF16(narrow.BF16, wide.F32)
	dst := make([]float32, m*n)
	for _, v := range []struct {
		name string
		w    Source
		f    func([]float32, int, []float32, int, Source, int, int, int, int)
	}{
		{"f32", wide, MatMulT}, {"f32xbf16", narrow, MatMulT}, {"bf16", narrow, MatMulTBF16},
	} {
		b.Run(v.name, func(b *testing.B) {
			eachBenchLevel(b, func(b *testing.B) {
				v.f(dst, n, x.F32, k, v.w, k, m, n, k) // fresh memory costs once
				for b.Loop() {
					v.f(dst, n, x.F32, k, v.w, k, m, n, k)
				}
				reportFlops(b, 2*float64(m)*float64(n)*float64(k))
			})
		})
	}
}

func reportFlops(b *testing.B, flops float64) {
	b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}
