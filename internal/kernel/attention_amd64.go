//go:build !purego

package kernel

import (
	"math"

	"github.com/crepe-llm/crepe/internal/cpu"
)

//go:generate go -C gen run ./attention -pkg kernel -out ../attention_amd64.s -stubs ../attention_stubs_amd64.go

// pairBF16 writes units of two bfloat16 of the float32 of an even and an odd
// row, and returns how many: the greatest multiple of 16. It needs AVX512_BF16,
// and takes subnormal numbers for 0.
func pairBF16(dst, even, odd []float32) int {
	n := len(dst) &^ 15
	if n > 0 {
		pairBF16AVX512(&dst[0], &even[:n][0], &odd[:n][0], n/16)
	}
	return n
}

// expBF16 is
//
//	dst[i] = bfloat16(exp(scale·s[i] − top)); return the sum before rounding
//
// for scale·s[i] ≤ top; the lengths are equal and a multiple of 16. It needs
// AVX512_BF16. The argument is rounded to float32 at most three times. Before
// rounding an exponential has a relative error of at most 2⁻¹³; one below 2⁻¹²⁶
// becomes 0. NaN gives NaN. The order of additions is unspecified.
func expBF16(dst []uint16, s []float32, scale, top float32) float32 {
	return expBF16AVX512(&dst[0], &s[0], len(s)/16, scale*math.Log2E, top*math.Log2E)
}

// capRow is capRowGeneric.
func capRow(s []float32, scale, limit float32) {
	n := 0
	if cpu.AVX512 && len(s) >= 16 {
		n = len(s) &^ 15
		capRowAVX512(&s[0], n/16, 2*math.Log2E*scale/limit, limit)
	}
	capRowGeneric(s[n:], scale, limit)
}

// scaleTo is scaleToGeneric.
func scaleTo(dst, src []float32, f float32) {
	n := 0
	switch {
	case cpu.AVX512 && len(src) >= 16:
		n = len(src) &^ 15
		scaleToAVX512(&dst[0], &src[0], n/16, f)
	case cpu.AVX2 && len(src) >= 8:
		n = len(src) &^ 7
		scaleToAVX2(&dst[0], &src[0], n/8, f)
	}
	scaleToGeneric(dst[n:], src[n:], f)
}

// addScaledBlocks does what AddScaled does to the first elements, and returns
// their number.
func addScaledBlocks(dst, x []float32, f float32) int {
	n := 0
	switch {
	case cpu.AVX512 && len(x) >= 16:
		n = len(x) &^ 15
		addScaledAVX512(&dst[0], &x[0], n/16, f)
	case cpu.AVX2 && len(x) >= 8:
		n = len(x) &^ 7
		addScaledAVX2(&dst[0], &x[0], n/8, f)
	}
	return n
}

// addProductBlocks, sigmoidMulBlocks and geluMulBlocks do what their namesakes
// do to the first elements, and return their number.

func addProductBlocks(dst, x, y []float32) int {
	n := 0
	switch {
	case cpu.AVX512 && len(dst) >= 16:
		n = len(dst) &^ 15
		addProductAVX512(&dst[0], &x[0], &y[0], n/16)
	case cpu.AVX2 && len(dst) >= 8:
		n = len(dst) &^ 7
		addProductAVX2(&dst[0], &x[0], &y[0], n/8)
	}
	return n
}

func sigmoidMulBlocks(dst, gate []float32) int {
	if !cpu.AVX512 || len(dst) < 16 {
		return 0
	}
	n := len(dst) &^ 15
	sigmoidMulAVX512(&dst[0], &gate[0], n/16)
	return n
}

func geluMulBlocks(dst, gate, up []float32) int {
	if !cpu.AVX512 || len(dst) < 16 {
		return 0
	}
	n := len(dst) &^ 15
	geluMulAVX512(&dst[0], &gate[0], &up[0], n/16)
	return n
}
