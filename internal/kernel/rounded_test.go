package kernel

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Products that share a rounded x have the bits of those that round it, whatever
// of x fits, and leave what is beside dst.
func TestRoundedEqualsMatMulTBF16(t *testing.T) {
	defer func(was int) { maxRounded = was }(maxRounded)
	rng := rand.New(rand.NewPCG(4, 0))
	const ldx, ldd = 1100, 450
	x, _ := testSource(rng, "f32", 130*ldx)
	b, _ := testSource(rng, "bf16", 440*ldx)
	eachProductLevel(t, func(t *testing.T) {
		for _, maxRounded = range []int{64 << 20, 1} {
			for _, m := range []int{0, 1, 3, 4, 13, 130} {
				for _, k := range []int{0, 1, 31, 1057, 1100} {
					r := RoundBF16(x.F32, ldx, m, k)
					if shared := r.buf != nil; shared != (m > dotsTokens && k > 0 && maxRounded > 1) {
						t.Fatalf("m=%d k=%d: rounded once: %v", m, k, shared)
					}
					for _, n := range []int{0, 1, 33, 440} {
						want, got := make([]float32, 130*ldd), make([]float32, 130*ldd)
						MatMulTBF16(want, ldd, x.F32, ldx, b, ldx, m, n, k)
						r.MatMulT(got, ldd, b, ldx, n)
						if !slices.EqualFunc(got, want, sameFloat) {
							t.Fatalf("m=%d n=%d k=%d maxRounded=%d: not the same", m, n, k, maxRounded)
						}
					}
					r.Release()
				}
			}
		}
	})
}
