package kernel

import (
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// TestExcess holds every level to the definition, bit by bit, with the vectors
// at any offset.
func TestExcess(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 0))
	for _, level := range cpu.Levels() {
		restore := cpu.Use(level)
		for n := 0; n <= 160; n += ExcessLanes {
			for offset := range 8 {
				stride := n + rng.IntN(9)
				ts := special32(rng, offset+ExcessT*stride)[offset:]
				xs := special32(rng, offset+ExcessX*stride)[offset:]
				var got, want [ExcessT][ExcessX][ExcessLanes]float32
				for a := range got {
					for b := range got[a] {
						for l := range got[a][b] {
							got[a][b][l] = rng.Float32()
							want[a][b][l] = got[a][b][l]
							for r := l; r < n; r += ExcessLanes {
								want[a][b][l] += max(xs[b*stride+r]-ts[a*stride+r], 0)
							}
						}
					}
				}
				Excess(&got, ts, xs, stride, n)
				if got != want {
					t.Fatalf("%v: %d rows, offset %d: got %v, want %v", level, n, offset, got, want)
				}
			}
		}
		restore()
	}
}
