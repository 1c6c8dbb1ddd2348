package kernel

import "math"

// mulAddsGeneric is mulAdds in Go: eight chains.
func mulAddsGeneric(steps int) (perStep int, sum float32) {
	one := float32(1)
	var a, b, c, d, e, f, g, h float32
	for range steps {
		a += one * one
		b += one * one
		c += one * one
		d += one * one
		e += one * one
		f += one * one
		g += one * one
		h += one * one
	}
	return 2 * 8, ((a + b) + (c + d)) + ((e + f) + (g + h))
}

func readAllGeneric(x []float32) (sum uint32) {
	for _, v := range x {
		sum ^= math.Float32bits(v)
	}
	return sum
}
