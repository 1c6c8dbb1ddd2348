package gguf

import (
	"encoding/binary"
	"math"
)

// In the decoders d and m are a block's scale and minimum, q its quants. Each
// product is converted to float32 before it is added to, so that no processor
// fuses the two and rounds once.

var le = binary.LittleEndian

// half returns an IEEE binary16 number as float32, exactly.
func half(src []byte) float32 {
	bits := uint32(le.Uint16(src))
	sign, size := bits&0x8000<<16, bits&0x7fff
	if size >= 0x7c00 { // infinite or not a number
		return math.Float32frombits(sign | 0x7f800000 | size<<13)
	}
	// The exponents' offsets differ by 112; the product is exact, subnormal
	// numbers included.
	v := math.Float32frombits(size<<13) * 0x1p112
	return math.Float32frombits(math.Float32bits(v) | sign)
}

func decodeF32(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(le.Uint32(src[4*i:]))
	}
}

func decodeF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = half(src[2*i:])
	}
}

func decodeBF16(dst []float32, src []byte) {
	for i := range dst {
		dst[i] = math.Float32frombits(uint32(le.Uint16(src[2*i:])) << 16)
	}
}

// decodeQ4_0: d, 32 nibbles; d·(q−8). The first 16 elements are in the low nibbles.
func decodeQ4_0(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[18:] {
		d := half(src)
		for i, b := range src[2:18] {
			dst[i] = d * float32(int(b&15)-8)
			dst[i+16] = d * float32(int(b>>4)-8)
		}
	}
}

// decodeQ4_1: d, m, 32 nibbles; d·q + m.
func decodeQ4_1(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[20:] {
		d, m := half(src), half(src[2:])
		for i, b := range src[4:20] {
			dst[i] = float32(d*float32(b&15)) + m
			dst[i+16] = float32(d*float32(b>>4)) + m
		}
	}
}

// decodeQ5_0: d, 32 fifth bits, 32 nibbles; d·(q−16).
func decodeQ5_0(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[22:] {
		d, high := half(src), le.Uint32(src[2:])
		for i, b := range src[6:22] {
			dst[i] = d * float32(int(uint32(b&15)|high>>i&1<<4)-16)
			dst[i+16] = d * float32(int(uint32(b>>4)|high>>(i+16)&1<<4)-16)
		}
	}
}

// decodeQ5_1: d, m, 32 fifth bits, 32 nibbles; d·q + m.
func decodeQ5_1(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[24:] {
		d, m, high := half(src), half(src[2:]), le.Uint32(src[4:])
		for i, b := range src[8:24] {
			dst[i] = float32(d*float32(uint32(b&15)|high>>i&1<<4)) + m
			dst[i+16] = float32(d*float32(uint32(b>>4)|high>>(i+16)&1<<4)) + m
		}
	}
}

// decodeQ8_0: d, 32 signed bytes; q·d.
func decodeQ8_0(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[34:] {
		d := half(src)
		for i, b := range src[2:34] {
			dst[i] = float32(int8(b)) * d
		}
	}
}

// values4 are the 16 levels of IQ4_NL and IQ4_XS.
var values4 = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}

// decodeIQ4NL: d, 32 nibbles; d·values4[q].
func decodeIQ4NL(dst []float32, src []byte) {
	for ; len(dst) > 0; dst, src = dst[32:], src[18:] {
		decode16(dst, src[2:18], half(src))
	}
}

// decode16 writes d·values4[q] for the 32 nibbles of src.
func decode16(dst []float32, src []byte, d float32) {
	for i, b := range src {
		dst[i] = d * values4[b&15]
		dst[i+16] = d * values4[b>>4]
	}
}
