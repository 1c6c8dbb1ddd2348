package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/stats"
)

// One calibration sequence of a 7B model: the inputs of attention and of the
// MLP's last Linear.
func BenchmarkAdd(b *testing.B) {
	for _, cols := range []int{4096, 11008} {
		b.Run(fmt.Sprintf("2048x%d", cols), func(b *testing.B) {
			x := randomInputs(rand.New(rand.NewPCG(1, 0)), 2048, cols)
			a := newAccumulator(cols, stats.Needs{})
			b.SetBytes(int64(4 * len(x.Data)))
			for b.Loop() {
				a.add(x)
			}
		})
	}
}

// Of the symmetric product only the upper half is counted.
func BenchmarkGram(b *testing.B) {
	for _, cols := range []int{4096, 11008} {
		b.Run(fmt.Sprintf("2048x%d", cols), func(b *testing.B) {
			x := randomInputs(rand.New(rand.NewPCG(1, 0)), 2048, cols)
			g := &gram{n: cols}
			for b.Loop() {
				g.add(x, nil)
			}
			n := float64(cols)
			b.ReportMetric(n*(n+1)*2048*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
		})
	}
}
