package kernel

import (
	"math/rand/v2"
	"testing"
)

// TestExcess holds every level to the definition, bit by bit, with the vectors
// at any offset and NaN between them.
func TestExcess(t *testing.T) {
	atEachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 0))
		for n := 0; n <= 160; n += ExcessLanes {
			for offset := range 8 {
				stride := n + rng.IntN(9)
				vectors := func(count int) field[float32] {
					x := special32(rng, count*stride)
					padNaN(x, nan, stride, n)
					return place32(offset, x)
				}
				ts, xs := vectors(ExcessT), vectors(ExcessX)
				var want [ExcessT][ExcessX][ExcessLanes]float32
				for a := range want {
					for b := range want[a] {
						for l := range want[a][b] {
							want[a][b][l] = rng.Float32()
						}
					}
				}
				got := place(0, []([ExcessT][ExcessX][ExcessLanes]float32){want}, want)
				for a := range want {
					for b := range want[a] {
						for r := range n {
							want[a][b][r%ExcessLanes] += max(xs.values[b*stride+r]-ts.values[a*stride+r], 0)
						}
					}
				}
				Excess(&got.values[0], ts.values, xs.values, stride, n)
				if got.values[0] != want {
					t.Fatalf("%d rows, offset %d: got %v, want %v", n, offset, got.values[0], want)
				}
				intact(t, "Excess", got.guarded() && ts.same() && xs.same())
			}
		}
	})
}
