package kernel

import "math"

// The portable bodies; vector.go says what they compute. A product that is
// added to is converted explicitly where it must not be fused.

func widenBF16Generic(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = math.Float32frombits(uint32(v) << 16)
	}
}

func widenF16Generic(dst []float32, src []uint16) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = widenF16(v)
	}
}

func widenF16(v uint16) float32 {
	sign := uint32(v&0x8000) << 16
	exponent, fraction := uint32(v>>10&0x1f), uint32(v&0x3ff)
	switch exponent {
	case 0: // zero and subnormals: fraction · 2⁻²⁴
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*(1.0/(1<<24))))
	case 0x1f:
		if fraction != 0 {
			fraction |= 0x200 // quiet
		}
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

func narrowBF16Generic(dst []uint16, src []float32) {
	dst = dst[:len(src)]
	for i, v := range src {
		u := math.Float32bits(v)
		if v != v {
			dst[i] = uint16(u>>16) | 0x40 // rounding could carry into Inf; quiet
			continue
		}
		dst[i] = uint16((u + 0x7fff + u>>16&1) >> 16)
	}
}

func addSquaresGeneric(acc []float64, x []float32) {
	acc = acc[:len(x)]
	for j, v := range x {
		acc[j] += float64(v) * float64(v)
	}
}

func addGeneric(dst, x []float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] += v
	}
}

func sumSquaresGeneric(x []float32) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

// scaleMulGeneric is dst[i] = (x[i]·r)·w[i].
func scaleMulGeneric(dst, x, w []float32, r float32) {
	dst, w = dst[:len(x)], w[:len(x)]
	for i, v := range x {
		dst[i] = v * r * w[i]
	}
}

func siluMulGeneric(dst, gate, up []float32) {
	dst, up = dst[:len(gate)], up[:len(gate)]
	for i, g := range gate {
		dst[i] = float32(float64(g)/(1+math.Exp(-float64(g)))) * up[i]
	}
}

func ropeGeneric(a, b, cos, sin []float32) {
	b, cos, sin = b[:len(a)], cos[:len(a)], sin[:len(a)]
	for i, u := range a {
		v := b[i]
		a[i] = float32(u*cos[i]) - float32(v*sin[i])
		b[i] = float32(v*cos[i]) + float32(u*sin[i])
	}
}

// maxGeneric returns the greatest of top and x.
func maxGeneric(top float32, x []float32) float32 {
	for _, v := range x {
		top = max(top, v)
	}
	return top
}

func sumExpGeneric(x []float32, top float32) float64 {
	var sum float64
	for _, v := range x {
		sum += math.Exp(float64(v - top))
	}
	return sum
}
