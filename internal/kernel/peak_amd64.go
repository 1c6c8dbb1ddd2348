//go:build !purego

package kernel

import (
	"math"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// mulAdds returns the operations of a step, and the sum.
func mulAdds(steps int, bfloat bool) (perStep int, sum float32) {
	const ones = 0x3f803f80 // two bfloat16
	switch {
	case bfloat:
		return 2 * 24 * 32, mulAddsBF16AVX512(steps, math.Float32frombits(ones))
	case cpu.AVX512:
		return 2 * 24 * 16, mulAddsAVX512(steps, 1)
	case cpu.AVX2:
		return 2 * 12 * 8, mulAddsAVX2(steps, 1)
	}
	return mulAddsGeneric(steps)
}

func readAllBlocks(x []float32) (sum uint32, n int) {
	switch {
	case cpu.AVX512 && len(x) >= 64:
		n = len(x) &^ 63
		return readAllAVX512(&x[0], n/64), n
	case cpu.AVX2 && len(x) >= 32:
		n = len(x) &^ 31
		return readAllAVX2(&x[0], n/32), n
	}
	return 0, 0
}
