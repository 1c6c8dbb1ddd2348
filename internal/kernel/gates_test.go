package kernel

import (
	"math"
	"math/rand/v2"
	"testing"
)

// gateCases are values of all sizes, the special ones among them.
func gateCases(rng *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(rng.NormFloat64() * math.Exp(6*rng.Float64()-2))
	}
	special := []float32{0, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), -1e30, 1e30, 1e-40}
	for i, v := range special {
		if n > 20 {
			s[3+2*i] = v
		}
	}
	return s
}

func TestGatesEqualReference(t *testing.T) {
	sweepProducts(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		gate, up := place32(offset, gateCases(rng, n)), place32(7-offset, normal(rng, n))
		sigmoid, added, gelu := place32(3, up.values), place32(1+offset, up.values), place32(5, make([]float32, n))
		SigmoidMul(sigmoid.values, gate.values)
		GeluMul(gelu.values, gate.values, up.values)
		AddProduct(added.values, gate.values, up.values)
		intact(t, "outputs", sigmoid.guarded() && gelu.guarded() && added.guarded())
		intact(t, "operands", gate.same() && up.same())
		for i, v := range gate.values {
			g, u := float64(v), float64(up.values[i])
			compareGate(t, "sigmoid", v, sigmoid.values[i], u/(1+math.Exp(-g)), 4+2*math.Abs(g))
			z := math.Sqrt(2/math.Pi) * (g + 0.044715*g*g*g)
			compareGate(t, "gelu", v, gelu.values[i], g*u/(1+math.Exp(-2*z)), 6+8*math.Abs(z))
			compareGate(t, "sum", v, added.values[i], u+g*u, 4+4*math.Abs(g*u)/math.Abs(u+g*u))
		}
	})
}

// compareGate allows got to be off by ulps·2⁻²⁴ of want, or by what a gate of
// −87 leaves of it.
func compareGate(t *testing.T, what string, g, got float32, want, ulps float64) {
	t.Helper()
	if math.IsNaN(want) && got != got || float64(got) == want {
		return
	}
	if math.IsInf(float64(g), -1) || math.IsInf(want, 0) {
		return // −Inf times what −87 leaves; an overflow of float64's reference only
	}
	if !(math.Abs(float64(got)-want) <= ulps/(1<<24)*math.Abs(want)+1e-30*max(1, math.Abs(float64(g)))) {
		t.Errorf("%s of %g: %g, want %g", what, g, got, want)
	}
}
