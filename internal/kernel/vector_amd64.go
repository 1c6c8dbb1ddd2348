//go:build !purego

package kernel

import (
	"math"

	"github.com/crepe-llm/crepe/internal/cpu"
)

//go:generate go -C gen run ./vector -pkg kernel -out ../vector_amd64.s -stubs ../vector_stubs_amd64.go

// A blocks function does what its namesake in vector_generic.go does to the
// first n elements, and returns n: the greatest multiple of the assembly's step,
// 0 if there is no assembly.

func widenBF16Blocks(dst []float32, src []uint16) int {
	n := len(src)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		widenBF16AVX512(&dst[0], &src[0], n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		widenBF16AVX2(&dst[0], &src[0], n)
	default:
		return 0
	}
	return n
}

func widenF16Blocks(dst []float32, src []uint16) int {
	n := len(src)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		widenF16AVX512(&dst[0], &src[0], n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		widenF16AVX2(&dst[0], &src[0], n)
	default:
		return 0
	}
	return n
}

func narrowBF16Blocks(dst []uint16, src []float32) int {
	n := len(src) &^ 15
	switch {
	case cpu.AVX512 && n > 0:
		narrowBF16AVX512(&dst[0], &src[0], n)
	case cpu.AVX2 && n > 0:
		narrowBF16AVX2(&dst[0], &src[0], n)
	default:
		return 0
	}
	return n
}

func addSquaresBlocks(acc []float64, x []float32) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		addSquaresAVX512(&acc[0], &x[0], n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		addSquaresAVX2(&acc[0], &x[0], n)
	default:
		return 0
	}
	return n
}

func addBlocks(dst, x []float32) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		addAVX512(&dst[0], &x[0], n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		addAVX2(&dst[0], &x[0], n)
	default:
		return 0
	}
	return n
}

func sumSquaresBlocks(x []float32) (float64, int) {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		return sumSquaresAVX512(&x[0], n), n
	case cpu.AVX2 && n >= 8:
		n &^= 7
		return sumSquaresAVX2(&x[0], n), n
	}
	return 0, 0
}

func scaleMulBlocks(dst, x, w []float32, r float32) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		scaleMulAVX512(&dst[0], &x[0], &w[0], r, n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		scaleMulAVX2(&dst[0], &x[0], &w[0], r, n)
	default:
		return 0
	}
	return n
}

func siluMulBlocks(dst, gate, up []float32) int {
	n := len(gate)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		siluMulAVX512(&dst[0], &gate[0], &up[0], n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		siluMulAVX2(&dst[0], &gate[0], &up[0], n)
	default:
		return 0
	}
	return n
}

func ropeBlocks(a, b, cos, sin []float32) int {
	n := len(a)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		ropeAVX512(&a[0], &b[0], &cos[0], &sin[0], n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		ropeAVX2(&a[0], &b[0], &cos[0], &sin[0], n)
	default:
		return 0
	}
	return n
}

func maxBlocks(x []float32) (float32, int) {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 32:
		n &^= 31
		return maxAVX512(&x[0], n), n
	case cpu.AVX2 && n >= 16:
		n &^= 15
		return maxAVX2(&x[0], n), n
	}
	return float32(math.Inf(-1)), 0
}

func sumExpBlocks(x []float32, top float32) (float64, int) {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		return sumExpAVX512(&x[0], top, n), n
	case cpu.AVX2 && n >= 8:
		n &^= 7
		return sumExpAVX2(&x[0], top, n), n
	}
	return 0, 0
}
