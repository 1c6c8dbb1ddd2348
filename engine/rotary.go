package engine

import (
	"math"
	"slices"
)

// Rotary turns pair i of a head's first 2·len(Inv) elements, (i, i+len(Inv)), by
// the angle position · Inv[i]; cosines and sines are multiplied by Scale.
//
// Angles are float32, as in transformers: at position 4096 one in float64 would
// differ by up to 2e-4.
type Rotary struct {
	Inv   []float32 // radians per position
	Scale float32

	cos, sin []float32 // positions × len(Inv), of the first positions
}

// Grow makes At know at least n positions.
func (r *Rotary) Grow(n int) {
	half := len(r.Inv)
	have := len(r.cos) / half
	if n <= have {
		return
	}
	r.cos, r.sin = slices.Grow(r.cos, (n-have)*half), slices.Grow(r.sin, (n-have)*half)
	for pos := have; pos < n; pos++ {
		for _, inv := range r.Inv {
			s, c := math.Sincos(float64(float32(pos) * inv))
			r.cos, r.sin = append(r.cos, r.Scale*float32(c)), append(r.sin, r.Scale*float32(s))
		}
	}
}

// At returns the cosines and sines of one position.
func (r *Rotary) At(pos int) (cos, sin []float32) {
	half := len(r.Inv)
	return r.cos[pos*half : (pos+1)*half], r.sin[pos*half : (pos+1)*half]
}
