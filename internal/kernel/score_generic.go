package kernel

import "math"

// Products are converted to float32 before they are added: without that, some
// processors would fuse the two and round once.

func abs32(v float32) float32 {
	return math.Float32frombits(math.Float32bits(v) &^ (1 << 31))
}

func absBF16(v uint16) float32 { return math.Float32frombits(uint32(v&0x7fff) << 16) }

func absSumsGeneric(col []float64, lanes *[AbsSumLanes]float64, x []float32) {
	for j, v := range x {
		a := float64(abs32(v))
		col[j] += a
		lanes[j%AbsSumLanes] += a
	}
}

func absSumsBF16Generic(col []float64, lanes *[AbsSumLanes]float64, x []uint16) {
	for j, v := range x {
		a := float64(absBF16(v))
		col[j] += a
		lanes[j%AbsSumLanes] += a
	}
}

func absGeneric(dst, x []float32) {
	for j, v := range x {
		dst[j] = abs32(v)
	}
}

func absBF16Generic(dst []float32, x []uint16) {
	for j, v := range x {
		dst[j] = absBF16(v)
	}
}

func scaleAbsGeneric(dst, x, s []float32) (top uint32) {
	for j, v := range x {
		a := abs32(v)
		dst[j] = a * s[j]
		top = max(top, math.Float32bits(a))
	}
	return top
}

func relativeImportanceGeneric(dst, x, b, s []float32, a float32) {
	for j, v := range x {
		dst[j] = float32(abs32(v)*(a+b[j])) * s[j]
	}
}

func relativeImportanceBF16Generic(dst []float32, x []uint16, b, s []float32, a float32) {
	for j, v := range x {
		dst[j] = float32(absBF16(v)*(a+b[j])) * s[j]
	}
}

func crossGeneric(dst []float32, c *Cross, r int) {
	u := make([]float32, len(c.Row))
	for j := range u {
		var column [MaxRadius]float32
		for p, b := range c.Below[:r] {
			column[p] = b[j]
		}
		c.Under[j] = window(column[:], r)
		u[j] = c.Under[j] + c.Above[j]
	}
	for j := range dst {
		p := j + Halo
		w := c.Row[p]
		c.Sides[j] = window(u[p+1:], r) + window(u[p-r:], r)
		n := max(c.Sides[j]+w, math.SmallestNonzeroFloat32)
		ri := float32(w * (c.A + c.B[j]))
		dst[j] = (ri + float32(c.Gamma*(w/n))) * c.S[j]
	}
}

// window returns the sum of u[:r].
func window(u []float32, r int) float32 {
	switch r {
	case 1:
		return u[0]
	case 2:
		return u[0] + u[1]
	case 3:
		return (u[0] + u[1]) + u[2]
	case 4:
		return (u[0] + u[1]) + (u[2] + u[3])
	}
	return ((u[0] + u[1]) + (u[2] + u[3])) + u[4]
}
