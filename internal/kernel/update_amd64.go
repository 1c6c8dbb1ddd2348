//go:build !purego

package kernel

import "github.com/crepe-llm/crepe/internal/cpu"

//go:generate go -C gen run ./update -pkg kernel -out ../update_amd64.s -stubs ../update_stubs_amd64.go

// subScaledBlocks does what subScaledGeneric does to the first n elements, and
// returns n: the greatest multiple of the assembly's step, 0 if there is none.
func subScaledBlocks(dst, x []float32, e float32) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		subScaledAVX512(&dst[0], &x[0], e, n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		subScaledAVX2(&dst[0], &x[0], e, n)
	default:
		return 0
	}
	return n
}
