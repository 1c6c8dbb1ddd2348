package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
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
	eachProductLevel(t, func(t *testing.T) {
		for _, n := range rowSizes() {
			rng := rand.New(rand.NewPCG(11, uint64(n)))
			gate := gateCases(rng, n)
			up, _ := testSource(rng, "f32", n)
			gate0, up0 := slices.Clone(gate), slices.Clone(up.F32)
			sigmoid, intact1 := guarded(n, n%8, guardNaN, sameFloat)
			gelu, intact2 := guarded(n, n%8, guardNaN, sameFloat)
			added, intact3 := guarded(n, n%8, guardNaN, sameFloat)
			copy(sigmoid, up.F32)
			copy(added, up.F32)
			SigmoidMul(sigmoid, gate)
			GeluMul(gelu, gate, up.F32)
			AddProduct(added, gate, up.F32)
			for _, intact := range []func() error{intact1, intact2, intact3} {
				if err := intact(); err != nil {
					t.Fatalf("n=%d: %v", n, err)
				}
			}
			if !slices.EqualFunc(gate, gate0, sameFloat) || !slices.Equal(up.F32, up0) {
				t.Fatalf("n=%d: an operand was changed", n)
			}
			for i, v := range gate {
				g, u := float64(v), float64(up.F32[i])
				compareGate(t, "sigmoid", v, sigmoid[i], u/(1+math.Exp(-g)), 4+2*math.Abs(g))
				z := math.Sqrt(2/math.Pi) * (g + 0.044715*g*g*g)
				compareGate(t, "gelu", v, gelu[i], g*u/(1+math.Exp(-2*z)), 6+8*math.Abs(z))
				compareGate(t, "sum", v, added[i], u+g*u, 4+4*math.Abs(g*u)/math.Abs(u+g*u))
			}
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
