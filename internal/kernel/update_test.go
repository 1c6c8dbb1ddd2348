package kernel

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSubScaled(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x := place32(offset, special32(rng, n))
		dst := place32(7-offset, special32(rng, n))
		e, want := float32(rng.NormFloat64()), slices.Clone(dst.values)
		SubScaled(dst.values, x.values, e)
		subScaledGeneric(want, x.values, e)
		bitsEqual(t, "dst", dst.values, want)
		if !x.same() || !dst.guarded() {
			t.Error("wrote outside dst")
		}
	})
}
