package gguf

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// encoders are those of the types that are written.
var encoders = map[Type]func(dst []byte, src []float32){
	F32: encodeF32, F16: encodeF16, BF16: encodeBF16, Q8_0: encodeQ8_0, Q4_0: encodeQ4_0,
}

// Writes reports whether tensors of type t can be made.
func (t Type) Writes() bool { return encoders[t] != nil }

// Quantize writes src, whole blocks, to dst as type t, which t.Writes must
// allow, with the same bits as the Python library gguf.
func (t Type) Quantize(dst []byte, src []float32) {
	if !t.Writes() || len(dst) != t.RowBytes(len(src)) || len(src)%t.Block() != 0 {
		panic(fmt.Sprintf("gguf: Quantize of %d elements to %d bytes of %v", len(src), len(dst), t))
	}
	encoders[t](dst, src)
}

func encodeF32(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint32(dst[4*i:], math.Float32bits(v))
	}
}

func encodeF16(dst []byte, src []float32) {
	for i, v := range src {
		le.PutUint16(dst[2*i:], tensor.NarrowF16(v))
	}
}

func encodeBF16(dst []byte, src []float32) {
	var narrow [256]uint16
	for ; len(src) > 0; src = src[min(len(narrow), len(src)):] {
		n := min(len(narrow), len(src))
		kernel.NarrowBF16(narrow[:n], src[:n])
		for i, v := range narrow[:n] {
			le.PutUint16(dst[2*i:], v)
		}
		dst = dst[2*n:]
	}
}

// encodeQ8_0: d is the largest size over 127; q is v/d, halves rounded away
// from zero.
func encodeQ8_0(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[34:], src[32:] {
		var most float32
		for _, v := range src[:32] {
			most = max(most, float32(math.Abs(float64(v))))
		}
		d := most / 127
		le.PutUint16(dst, tensor.NarrowF16(d))
		inverse := reciprocal(d)
		for i, v := range src[:32] {
			dst[2+i] = byte(int8(math.Round(float64(v * inverse))))
		}
	}
}

// encodeQ4_0: d is the element of the largest size, the first of them, over −8;
// q is v/d + 8, rounded, at most 15.
func encodeQ4_0(dst []byte, src []float32) {
	for ; len(src) > 0; dst, src = dst[18:], src[32:] {
		var most float32
		for _, v := range src[:32] {
			if math.Abs(float64(v)) > math.Abs(float64(most)) {
				most = v
			}
		}
		d := most / -8
		le.PutUint16(dst, tensor.NarrowF16(d))
		inverse := reciprocal(d)
		q := func(v float32) byte { return min(15, byte(float32(v*inverse)+8.5)) }
		for i := range 16 {
			dst[2+i] = q(src[i]) | q(src[i+16])<<4
		}
	}
}

// reciprocal returns 1/d, 0 of 0.
func reciprocal(d float32) float32 {
	if d == 0 {
		return 0
	}
	return 1 / d
}
