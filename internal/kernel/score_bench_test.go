package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// A row of a panel; bytes are those of the scores.
func BenchmarkCrossImportance(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 0))
	for _, n := range []int{256, 512, 1024} {
		row := func() []float32 {
			x := normal(rng, n+2*Halo)
			absGeneric(x, x)
			return x
		}
		c := Cross{Sides: row()[:n], Row: row(), Above: row(), Under: row(), B: row()[:n], S: row()[:n], A: 1, Gamma: 1}
		for p := range c.Below {
			c.Below[p] = row()
		}
		dst := make([]float32, n)
		for r := 1; r <= MaxRadius; r += 2 {
			for _, level := range cpu.Levels() {
				b.Run(fmt.Sprintf("%d/kernel%d/%v", n, 2*r+1, level), func(b *testing.B) {
					defer cpu.Use(level)()
					b.SetBytes(int64(4 * n))
					for b.Loop() {
						CrossImportance(dst, &c, r)
					}
				})
			}
		}
	}
}

func BenchmarkKeepBest(b *testing.B) {
	const n = 11008
	x := normal(rand.New(rand.NewPCG(1, 0)), n)
	absGeneric(x, x)
	dst := make([]uint64, n/64)
	for _, m := range []int{4, 8} {
		for _, level := range cpu.Levels() {
			b.Run(fmt.Sprintf("%d:%d/%v", m/2, m, level), func(b *testing.B) {
				defer cpu.Use(level)()
				b.SetBytes(4 * n)
				for b.Loop() {
					KeepBest(dst, x, m/2, m)
				}
			})
		}
	}
}
