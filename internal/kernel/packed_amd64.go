//go:build !purego

package kernel

import (
	"unsafe"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// shuffles are for each byte of a mask the bytes that VPSHUFB takes to put words in
// the places of its bits, and zeros in the others.
var shuffles = func() (all [256][16]byte) {
	for bits := range all {
		next := byte(0)
		for word := range 8 {
			low, high := byte(0x80), byte(0x80) // no byte
			if bits>>word&1 != 0 {
				low, high = 2*next, 2*next+1
				next++
			}
			all[bits][2*word], all[bits][2*word+1] = low, high
		}
	}
	return all
}()

// expand16 is Expand16. It reads up to PackedSpare elements behind the values.
func expand16(dst []uint16, mask []byte, values []uint16) int {
	step, kernel := 0, expand16AVX2
	switch {
	case cpu.AVX512VBMI2:
		step, kernel = 32, expand16AVX512
	case cpu.AVX2:
		step = 8
	}
	if step == 0 || len(dst) < step {
		return expandGeneric(dst, mask, values)
	}
	whole := len(dst) / step * step
	first := unsafe.SliceData(values)
	next := kernel(&dst[0], &mask[0], first, &shuffles[0][0], whole/step)
	n := int(uintptr(unsafe.Pointer(next))-uintptr(unsafe.Pointer(first))) / 2
	return n + expandGeneric(dst[whole:], mask[whole/8:], values[n:])
}

// expandInt8 is scaleExpand for bfloat16, which has every product of the scale. It reads
// up to PackedSpare integers behind the values.
func expandInt8(dst []uint16, mask []byte, values []int8, scale float32) {
	const step = 8
	if !cpu.AVX2 || len(dst) < step {
		scaleExpand(dst, mask, values, scale, narrowBF16)
		return
	}
	whole := len(dst) / step * step
	first := unsafe.SliceData(values)
	next := expandInt8AVX2(&dst[0], &mask[0], first, scale, &shuffles[0][0], whole/step)
	n := int(uintptr(unsafe.Pointer(next)) - uintptr(unsafe.Pointer(first)))
	scaleExpand(dst[whole:], mask[whole/8:], values[n:], scale, narrowBF16)
}
