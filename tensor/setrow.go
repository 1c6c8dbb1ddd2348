package tensor

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
)

// SetRow writes src to row i from column lo on, rounded to w's type, to
// nearest, ties to even. What is too large for the type becomes infinite.
func (w *Weight) SetRow(i, lo int, src []float32) {
	if lo < 0 || lo+len(src) > w.Cols {
		panic(fmt.Sprintf("tensor: Weight.SetRow: columns %d to %d of %d", lo, lo+len(src)-1, w.Cols))
	}
	at := i*w.Cols + lo
	switch w.DType {
	case F32:
		copy(w.w32[at:], src)
	case BF16:
		kernel.NarrowBF16(w.w16[at:at+len(src)], src)
	default:
		for j, v := range src {
			w.w16[at+j] = NarrowF16(v)
		}
	}
}

// RoundBF16 rounds to bfloat16, to nearest, ties to even.
func RoundBF16(v float32) float32 {
	x, half := [1]float32{v}, [1]uint16{}
	kernel.NarrowBF16(half[:], x[:])
	kernel.WidenBF16(x[:], half[:])
	return x[0]
}

// NarrowF16 rounds to IEEE binary16, to nearest, ties to even.
func NarrowF16(v float32) uint16 {
	const (
		mantissa = 13       // bits of float32's that binary16 lacks
		rebias   = 127 - 15 // difference of the exponents' offsets
		least    = 0x1p-14  // the smallest normal number
		limit    = 65520    // from here on the nearest is infinite
		infinite = 0x1f << 10
	)
	bits := math.Float32bits(v)
	sign := uint16(bits >> 16 & 0x8000)
	size := math.Float32frombits(bits &^ (1 << 31))
	switch {
	case v != v:
		return sign | infinite | 1<<9
	case size >= limit:
		return sign | infinite
	case size < least: // units of 2⁻²⁴; the scaling is exact
		return sign | uint16(math.RoundToEven(float64(size)*0x1p24))
	}
	bits &^= 1 << 31
	bits += 1<<(mantissa-1) - 1 + bits>>mantissa&1
	return sign | uint16(bits>>mantissa-rebias<<10)
}
