//go:build !purego

package kernel

import (
	"math"

	"github.com/crepe-llm/crepe/internal/cpu"
)

//go:generate go -C gen run ./gemm -pkg kernel -out ../gemm_amd64.s -stubs ../gemm_stubs_amd64.go

var (
	avx512Tile = tile{
		rows: 12, cols: 32, perUnit: 1, mul: mul12x32AVX512,
		fewRows: 6, few: mul6x32AVX512,
		lanes: 16, transposeF32: transposeF32AVX512, transposeBF16: transposeBF16AVX512, transposeF16: transposeF16AVX512,
	}
	avx512BF16Tile = tile{
		rows: 12, cols: 32, perUnit: 2, mul: mul12x32BF16AVX512,
		fewRows: 6, few: mul6x32BF16AVX512,
		lanes: 16, transposeF32: transposeF32AVX512,
	}
	avx2Tile = tile{
		rows: 6, cols: 16, perUnit: 1, mul: mul6x16AVX2,
		lanes: 8, transposeF32: transposeF32AVX2, transposeBF16: transposeBF16AVX2, transposeF16: transposeF16AVX2,
	}
)

// floatTile returns the micro-kernel for float32.
func floatTile() *tile {
	switch {
	case cpu.AVX512:
		return &avx512Tile
	case cpu.AVX2:
		return &avx2Tile
	}
	return &genericTile
}

// bfloatTile returns the micro-kernel for bfloat16: that for float32 where the
// processor has none.
func bfloatTile() *tile {
	if cpu.AVX512BF16 {
		return &avx512BF16Tile
	}
	return floatTile()
}

// dot is dotGeneric.
func dot(x, y []float32) float32 {
	y = y[:len(x)]
	var sum float32
	n := 0
	switch {
	case cpu.AVX512 && len(x) >= 64:
		n = len(x) &^ 63
		sum = dotAVX512(&x[0], &y[0], n/64)
	case cpu.AVX2 && len(x) >= 32:
		n = len(x) &^ 31
		sum = dotAVX2(&x[0], &y[0], n/32)
	}
	return sum + dotGeneric(x[n:], y[n:])
}

// expRow is expRowGeneric.
func expRow(s []float32, scale, top float32) float32 {
	lanes := 16
	switch {
	case cpu.AVX512:
	case cpu.AVX2:
		lanes = 8
	default:
		return expRowGeneric(s, scale, top)
	}
	var sum float32
	n := len(s) &^ (lanes - 1)
	if n > 0 {
		sum = expVectors(&s[0], n/lanes, scale, top)
	}
	if n < len(s) {
		// The last few are padded with −Inf, whose exponential is 0.
		var last [16]float32
		for i := range last {
			last[i] = float32(math.Inf(-1))
		}
		copy(last[:], s[n:])
		sum += expVectors(&last[0], 1, scale, top)
		copy(s[n:], last[:])
	}
	return sum
}

func expVectors(s *float32, vectors int, scale, top float32) float32 {
	if cpu.AVX512 {
		return expRowAVX512(s, vectors, scale, top)
	}
	return expRowAVX2(s, vectors, scale, top)
}

// maxRow is maxRowGeneric.
func maxRow(s []float32) float32 {
	switch {
	case cpu.AVX512 && len(s) >= 16:
		// The last vector overlaps the one before.
		return max(maxRowAVX512(&s[0], len(s)/16), maxRowAVX512(&s[len(s)-16], 1))
	case cpu.AVX2 && len(s) >= 8:
		return max(maxRowAVX2(&s[0], len(s)/8), maxRowAVX2(&s[len(s)-8], 1))
	}
	return maxRowGeneric(s)
}
