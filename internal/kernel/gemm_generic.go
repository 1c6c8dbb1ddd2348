package kernel

import "unsafe"

// genericTile is the micro-kernel in Go, and what the others are tested against.
var genericTile = tile{rows: 4, cols: 4, perUnit: 1, mul: mulGeneric}

// mulGeneric is tile.mul for 4 × 4.
func mulGeneric(dst *float32, ldd int, from *float32, ldf int, a, b *float32, depth int, _ *float32) {
	out := unsafe.Slice(dst, 3*ldd+4)
	x := unsafe.Slice(a, 3*blockK+depth)
	w := unsafe.Slice(b, 4*depth)
	for r := range 4 {
		row := x[r*blockK:][:depth]
		var s0, s1, s2, s3 float32
		for u, v := range row {
			q := (*[4]float32)(w[4*u:])
			s0 += v * q[0]
			s1 += v * q[1]
			s2 += v * q[2]
			s3 += v * q[3]
		}
		to := out[r*ldd:][:4]
		if from != nil {
			was := unsafe.Slice(from, 3*ldf+4)[r*ldf:][:4]
			s0, s1, s2, s3 = was[0]+s0, was[1]+s1, was[2]+s2, was[3]+s3
		}
		to[0], to[1], to[2], to[3] = s0, s1, s2, s3
	}
}

// dotsGeneric has no kernels: dotProduct.rest does all.
var dotsGeneric dotter

// dotGeneric is
//
//	Σ_i x[i]·y[i]
//
// len(x) == len(y). The order of additions is unspecified.
func dotGeneric(x, y []float32) float32 {
	y = y[:len(x)]
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= len(x); i += 4 {
		s0 += x[i] * y[i]
		s1 += x[i+1] * y[i+1]
		s2 += x[i+2] * y[i+2]
		s3 += x[i+3] * y[i+3]
	}
	for ; i < len(x); i++ {
		s0 += x[i] * y[i]
	}
	return (s0 + s1) + (s2 + s3)
}
