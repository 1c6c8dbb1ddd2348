package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// Rows of a 7B model: width 4096, MLP 11008, vocabulary 32000. Bytes are those
// read and written.
func BenchmarkVector(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	x, y, z := normal(rng, 32000), normal(rng, 32000), normal(rng, 32000)
	cos, sin := make([]float32, 64), make([]float32, 64)
	for i := range cos {
		cos[i], sin[i] = 0.6, 0.8 // a turn: repeated, nothing grows
	}
	h, acc := words(rng, 11008), make([]float64, 4096)
	for _, c := range []struct {
		name  string
		bytes int64
		run   func()
	}{
		{"WidenBF16/11008", 6 * 11008, func() { WidenBF16(x[:11008], h) }},
		{"WidenF16/11008", 6 * 11008, func() { WidenF16(x[:11008], h) }},
		{"NarrowBF16/11008", 6 * 11008, func() { NarrowBF16(h, y[:11008]) }},
		{"AddSquares/4096", 20 * 4096, func() { AddSquares(acc, y[:4096]) }},
		{"Add/4096", 12 * 4096, func() { Add(x[:4096], y[:4096]) }},
		{"RMSNorm/4096", 16 * 4096, func() { RMSNorm(x[:4096], y[:4096], z[:4096], 1e-5) }},
		{"SiluMul/11008", 12 * 11008, func() { SiluMul(x[:11008], y[:11008], z[:11008]) }},
		{"Rope/32x128", 8 * 4096, func() { Rope(y[:4096], cos, sin, 32, 128, 128) }},
		{"MaxSumExp/32000", 4 * 32000, func() { MaxSumExp(z) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			for _, level := range cpu.Levels() {
				b.Run(level.String(), func(b *testing.B) {
					defer cpu.Use(level)()
					b.SetBytes(c.bytes)
					for b.Loop() {
						c.run()
					}
				})
			}
		})
	}
}
