//go:build !purego

package kernel

import "github.com/crepe-llm/crepe/internal/cpu"

//go:generate go -C gen run ./score -pkg kernel -out ../score_amd64.s -stubs ../score_stubs_amd64.go

// A blocks function does what its namesake in score_generic.go does to the
// first n elements, and returns n: the greatest multiple of the assembly's step,
// 0 if there is no assembly.

func absSumsBlocks(col []float64, lanes *[AbsSumLanes]float64, x []float32, ahead int) int {
	n := len(x) &^ 15
	switch {
	case cpu.AVX512 && n > 0:
		absSumsAVX512(&col[0], &lanes[0], &x[0], ahead, n)
	case cpu.AVX2 && n > 0:
		absSumsAVX2(&col[0], &lanes[0], &x[0], ahead, n)
	default:
		return 0
	}
	return n
}

func absSumsBF16Blocks(col []float64, lanes *[AbsSumLanes]float64, x []uint16, ahead int) int {
	n := len(x) &^ 15
	switch {
	case cpu.AVX512 && n > 0:
		absSumsBF16AVX512(&col[0], &lanes[0], &x[0], ahead, n)
	case cpu.AVX2 && n > 0:
		absSumsBF16AVX2(&col[0], &lanes[0], &x[0], ahead, n)
	default:
		return 0
	}
	return n
}

func absBlocks(dst, x []float32, ahead int) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		absAVX512(&dst[0], &x[0], ahead, n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		absAVX2(&dst[0], &x[0], ahead, n)
	default:
		return 0
	}
	return n
}

func absBF16Blocks(dst []float32, x []uint16, ahead int) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		absBF16AVX512(&dst[0], &x[0], ahead, n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		absBF16AVX2(&dst[0], &x[0], ahead, n)
	default:
		return 0
	}
	return n
}

func scaleAbsBlocks(dst, x, s []float32) (uint32, int) {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		return scaleAbsAVX512(&dst[0], &x[0], &s[0], n), n
	case cpu.AVX2 && n >= 8:
		n &^= 7
		return scaleAbsAVX2(&dst[0], &x[0], &s[0], n), n
	}
	return 0, 0
}

func relativeImportanceBlocks(dst, x, b, s []float32, a float32) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		relativeImportanceAVX512(&dst[0], &x[0], &b[0], &s[0], a, n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		relativeImportanceAVX2(&dst[0], &x[0], &b[0], &s[0], a, n)
	default:
		return 0
	}
	return n
}

func relativeImportanceBF16Blocks(dst []float32, x []uint16, b, s []float32, a float32) int {
	n := len(x)
	switch {
	case cpu.AVX512 && n >= 16:
		n &^= 15
		relativeImportanceBF16AVX512(&dst[0], &x[0], &b[0], &s[0], a, n)
	case cpu.AVX2 && n >= 8:
		n &^= 7
		relativeImportanceBF16AVX2(&dst[0], &x[0], &b[0], &s[0], a, n)
	default:
		return 0
	}
	return n
}

// crossBlocks does what crossGeneric does, or returns false.
func crossBlocks(dst []float32, c *Cross, r int) bool {
	if !cpu.AVX2 && !cpu.AVX512 {
		return false
	}
	var q [MaxRadius]*float32
	for p, b := range c.Below[:r] {
		q[p] = &b[0]
	}
	d, sides, row, above, under, b, s := &dst[0], &c.Sides[0], &c.Row[0], &c.Above[0], &c.Under[0], &c.B[0], &c.S[0]
	n := len(dst)
	if cpu.AVX512 {
		switch r {
		case 1:
			cross1AVX512(d, sides, row, above, under, b, s, q[0], c.A, c.Gamma, c.Ahead, n)
		case 2:
			cross2AVX512(d, sides, row, above, under, b, s, q[0], q[1], c.A, c.Gamma, c.Ahead, n)
		case 3:
			cross3AVX512(d, sides, row, above, under, b, s, q[0], q[1], q[2], c.A, c.Gamma, c.Ahead, n)
		case 4:
			cross4AVX512(d, sides, row, above, under, b, s, q[0], q[1], q[2], q[3], c.A, c.Gamma, c.Ahead, n)
		case 5:
			cross5AVX512(d, sides, row, above, under, b, s, q[0], q[1], q[2], q[3], q[4], c.A, c.Gamma, c.Ahead, n)
		}
		return true
	}
	switch r {
	case 1:
		cross1AVX2(d, sides, row, above, under, b, s, q[0], c.A, c.Gamma, c.Ahead, n)
	case 2:
		cross2AVX2(d, sides, row, above, under, b, s, q[0], q[1], c.A, c.Gamma, c.Ahead, n)
	case 3:
		cross3AVX2(d, sides, row, above, under, b, s, q[0], q[1], q[2], c.A, c.Gamma, c.Ahead, n)
	case 4:
		cross4AVX2(d, sides, row, above, under, b, s, q[0], q[1], q[2], q[3], c.A, c.Gamma, c.Ahead, n)
	case 5:
		cross5AVX2(d, sides, row, above, under, b, s, q[0], q[1], q[2], q[3], q[4], c.A, c.Gamma, c.Ahead, n)
	}
	return true
}

func excessBlocks(lanes *[ExcessT][ExcessX][ExcessLanes]float32, t, x []float32, stride, n int) bool {
	switch {
	case cpu.AVX512:
		excessAVX512(&lanes[0][0][0], &t[0], &x[0], stride, n)
	case cpu.AVX2:
		const half = ExcessLanes / 2
		excessAVX2(&lanes[0][0][0], &t[0], &x[0], stride, n)
		excessAVX2(&lanes[0][0][half], &t[half], &x[half], stride, n)
	default:
		return false
	}
	return true
}
