//go:build !purego

package kernel

import (
	"math"

	"github.com/crepe-llm/crepe/internal/cpu"
)

//go:generate go -C gen run ./gemm -pkg kernel -out ../gemm_amd64.s -stubs ../gemm_stubs_amd64.go

var (
	avx512Tile = tile{
		rows: 12, cols: 32, perUnit: 1, mul: mul12x32AVX512, stream: stream12x32AVX512,
		fewRows: 6, few: mul6x32AVX512,
		lanes: 16, transposeF32: transposeF32AVX512, transposeBF16: transposeBF16AVX512, transposeF16: transposeF16AVX512,
	}
	avx512BF16Tile = tile{
		rows: 12, cols: 32, perUnit: 2, mul: mul12x32BF16AVX512, stream: stream12x32BF16AVX512,
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

var (
	dotsAVX512 = struct{ f32, bf16, f16, pairs dotter }{
		f32: dotter{step: 16, kernels: []dotsKernel{dots1F32AVX512, dots2F32AVX512, dots3F32AVX512}},
		bf16: dotter{
			step: 16, kernels: []dotsKernel{dots1BF16AVX512, dots2BF16AVX512, dots3BF16AVX512},
			packed: []packedKernel{packed1BF16AVX512, packed2BF16AVX512, packed3BF16AVX512},
			int8s:  []integersKernel{packed1Int8AVX512, packed2Int8AVX512, packed3Int8AVX512},
			int4s:  []integersKernel{packed1Int4AVX512, packed2Int4AVX512, packed3Int4AVX512},
			full8s: []integersKernel{full1Int8AVX512, full2Int8AVX512, full3Int8AVX512},
			full4s: []integersKernel{full1Int4AVX512, full2Int4AVX512, full3Int4AVX512},
		},
		f16: dotter{step: 16, kernels: []dotsKernel{dots1F16AVX512, dots2F16AVX512, dots3F16AVX512}},
		pairs: dotter{
			step: 32, pairs: true, kernels: []dotsKernel{dots1PairsAVX512, dots2PairsAVX512, dots3PairsAVX512},
			packed: []packedKernel{packed1PairsAVX512, packed2PairsAVX512, packed3PairsAVX512},
		},
	}
	dotsAVX2 = struct{ f32, bf16, f16 dotter }{
		f32: dotter{step: 8, kernels: []dotsKernel{dots1F32AVX2, dots2F32AVX2, dots3F32AVX2}},
		bf16: dotter{
			step: 8, kernels: []dotsKernel{dots1BF16AVX2, dots2BF16AVX2, dots3BF16AVX2},
			packed: []packedKernel{packed1BF16AVX2, packed2BF16AVX2, packed3BF16AVX2},
		},
		f16: dotter{step: 8, kernels: []dotsKernel{dots1F16AVX2, dots2F16AVX2, dots3F16AVX2}},
	}
)

// dotterFor returns the kernels for b; round is product's.
func dotterFor(b Source, round bool) *dotter {
	switch {
	case cpu.AVX512BF16 && round:
		return &dotsAVX512.pairs
	case cpu.AVX512:
		return b.pick(&dotsAVX512.f32, &dotsAVX512.bf16, &dotsAVX512.f16)
	case cpu.AVX2:
		return b.pick(&dotsAVX2.f32, &dotsAVX2.bf16, &dotsAVX2.f16)
	}
	return &dotsGeneric
}

// packedFor returns d's kernels for a packed b of bfloat16, nil if this processor has
// none.
func packedFor(d *dotter) []packedKernel {
	if d.pairs && !cpu.AVX512VBMI2 {
		return nil
	}
	return d.packed
}

// pick returns the one of its type.
func (s Source) pick(f32, bf16, f16 *dotter) *dotter {
	switch {
	case s.F32 != nil:
		return f32
	case s.BF16 != nil:
		return bf16
	}
	return f16
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
