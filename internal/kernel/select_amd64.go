//go:build !purego

package kernel

import "github.com/crepe-llm/crepe/internal/cpu"

// The blocks functions here are as in score_amd64.go. All steps are 64.

func atLeastBlocks(dst []uint64, x []float32, t float32) (count, n int) {
	n = len(x) &^ 63
	switch {
	case cpu.AVX512 && n > 0:
		return atLeastAVX512(&dst[0], &x[0], t, n), n
	case cpu.AVX2 && n > 0:
		return atLeastAVX2(&dst[0], &x[0], t, n), n
	}
	return 0, 0
}

func countBelowBlocks(x []float32, t float32) (count, n int) {
	n = len(x) &^ 63
	switch {
	case cpu.AVX512 && n > 0:
		return countBelowAVX512(&x[0], t, n), n
	case cpu.AVX2 && n > 0:
		return countBelowAVX2(&x[0], t, n), n
	}
	return 0, 0
}

func maxBitsBlocks(x []float32) (top uint32, n int) {
	n = len(x) &^ 63
	switch {
	case cpu.AVX512 && n > 0:
		return maxBitsAVX512(&x[0], n), n
	case cpu.AVX2 && n > 0:
		return maxBitsAVX2(&x[0], n), n
	}
	return 0, 0
}

// rotations are the lanes that each lane of a group of 2, 4, … meets, and 1
// where the met one has the lower index, for one rotation after another.
type rotations struct{ turn, minus []int32 }

const rotationLanes = 16

var rotationTables = map[int]rotations{2: newRotations(2), 4: newRotations(4), 8: newRotations(8)}

func newRotations(m int) (r rotations) {
	for q := 1; q < m; q++ {
		for l := range rotationLanes {
			met := l&^(m-1) | (l+q)&(m-1)
			lower := 0
			if met < l {
				lower = 1
			}
			r.turn = append(r.turn, int32(met))
			r.minus = append(r.minus, int32(lower))
		}
	}
	return r
}

func keepBestBlocks(dst []uint64, x []float32, keep, m int) int {
	n := len(x) &^ 63
	r, ok := rotationTables[m]
	switch {
	case cpu.AVX512 && ok && n > 0:
		keepBestAVX512(&dst[0], &x[0], &r.turn[0], &r.minus[0], m-1, m-keep, n)
	case cpu.AVX2 && ok && n > 0:
		keepBestAVX2(&dst[0], &x[0], &r.turn[0], &r.minus[0], m-1, m-keep, n)
	default:
		return 0
	}
	return n
}

func zeroUnset16Blocks(x []uint16, bits []uint64) int {
	n := len(x) &^ 63
	switch {
	case cpu.AVX512 && n > 0:
		zeroUnset16AVX512(&x[0], &bits[0], n)
	case cpu.AVX2 && n > 0:
		zeroUnset16AVX2(&x[0], &bits[0], n)
	default:
		return 0
	}
	return n
}

func zeroUnset32Blocks(x []float32, bits []uint64) int {
	n := len(x) &^ 63
	switch {
	case cpu.AVX512 && n > 0:
		zeroUnset32AVX512(&x[0], &bits[0], n)
	case cpu.AVX2 && n > 0:
		zeroUnset32AVX2(&x[0], &bits[0], n)
	default:
		return 0
	}
	return n
}
