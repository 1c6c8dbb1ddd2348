package kernel

import "math"

// expError bounds the relative error of expRow's exponentials, that of its
// argument's rounding aside.
const expError = 1.0 / (1 << 23)

// expRowGeneric is
//
//	s[i] = exp(scale·s[i] − top); return Σ_i s[i]
//
// for scale·s[i] − top ≤ 88; the argument is rounded to float32 at most twice.
// Each exponential has a relative error of at most expError; one below 2⁻¹²⁶ is
// a subnormal number or 0. NaN gives NaN. The order of additions is unspecified.
func expRowGeneric(s []float32, scale, top float32) float32 {
	var sum float32
	for i, v := range s {
		e := float32(math.Exp(float64(scale*v - top)))
		s[i] = e
		sum += e
	}
	return sum
}

// maxRowGeneric is the largest of s, which is not empty; anything if one is NaN.
func maxRowGeneric(s []float32) float32 {
	top := s[0]
	for _, v := range s[1:] {
		top = max(top, v)
	}
	return top
}

// capRowGeneric is
//
//	s[i] = limit·tanh(scale·s[i]/limit)
//
// with an absolute error of at most limit·2⁻²², that of the argument's rounding
// aside. NaN gives NaN.
func capRowGeneric(s []float32, scale, limit float32) {
	for i, v := range s {
		s[i] = limit * float32(math.Tanh(float64(scale*v/limit)))
	}
}

// scaleToGeneric is
//
//	for i, v := range src { dst[i] = f * v }
//
// len(dst) == len(src); dst may be src.
func scaleToGeneric(dst, src []float32, f float32) {
	dst = dst[:len(src)]
	for i, v := range src {
		dst[i] = f * v
	}
}
