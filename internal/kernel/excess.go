package kernel

import "fmt"

// The shape of an Excess: how many t meet how many x, and in how many partial
// sums each pair is kept, so that every vector width adds in the same order.
const (
	ExcessT     = 2
	ExcessX     = 4
	ExcessLanes = 16
)

// Excess sums by how much each of four vectors x exceeds each of two t:
//
//	lanes[a][b][r%16] += max(x[b·stride + r] − t[a·stride + r], 0)    0 ≤ r < n
//
// in float32, each operation rounded by itself, the same bits on every
// processor. n is a multiple of 16; all values are finite.
func Excess(lanes *[ExcessT][ExcessX][ExcessLanes]float32, t, x []float32, stride, n int) {
	if n < 0 || n%ExcessLanes != 0 || n > stride || len(t) < (ExcessT-1)*stride+n || len(x) < (ExcessX-1)*stride+n {
		panic(fmt.Sprintf("kernel: Excess: %d of %d and %d elements, %d apart", n, len(t), len(x), stride))
	}
	if n == 0 {
		return
	}
	if !excessBlocks(lanes, t, x, stride, n) {
		excessGeneric(lanes, t, x, stride, n)
	}
}

func excessGeneric(lanes *[ExcessT][ExcessX][ExcessLanes]float32, t, x []float32, stride, n int) {
	for a := range lanes {
		for b := range lanes[a] {
			sums := &lanes[a][b]
			ta, xb := t[a*stride:a*stride+n], x[b*stride:b*stride+n]
			for r, v := range xb {
				if d := v - ta[r]; d > 0 {
					sums[r%ExcessLanes] += d
				}
			}
		}
	}
}
