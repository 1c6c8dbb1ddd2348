package kernel

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

func TestExpRowEqualsReference(t *testing.T) {
	sweepProducts(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		values := make([]float32, n)
		for i := range values {
			values[i] = float32(rng.Float64()*160-100) / 2
		}
		const scale, top = 2, 3
		s := place32(offset, values)
		sum := expRow(s.values, scale, top)
		intact(t, "s", s.guarded())
		var want float64
		for i, v := range values {
			checkExp(t, s.values[i], float64(scale*v-top))
			want += float64(s.values[i])
		}
		if tol := float64(n) * want / (1 << 24); !(math.Abs(float64(sum)-want) <= tol) {
			t.Errorf("sum %g, want %g ± %g", sum, want, tol)
		}
	})
}

func checkExp(t *testing.T, got float32, x float64) {
	t.Helper()
	want := math.Exp(x)
	if want < 0x1p-126 && (got == 0 || math.Abs(float64(got)-want) <= 0x1p-149) {
		return
	}
	if !(math.Abs(float64(got)-want) <= expError*want) {
		t.Fatalf("exp(%v) = %g, want %g: relative error %g, want at most %g", x, got, want, float64(got)/want-1, expError)
	}
}

// TestExpRowError walks the whole domain.
func TestExpRowError(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		s := make([]float32, 1<<10)
		var worst float64
		for x := float32(-90); x < 88; {
			var arg [1 << 10]float32
			for i := range arg {
				arg[i] = min(x, 88)
				x += 1.0 / (1 << 12)
			}
			copy(s, arg[:])
			expRow(s, 1, 0)
			for i, v := range arg {
				checkExp(t, s[i], float64(v))
				if want := math.Exp(float64(v)); want >= 0x1p-126 {
					worst = max(worst, math.Abs(float64(s[i])/want-1))
				}
			}
		}
		t.Logf("worst relative error 2^%.2f", math.Log2(worst))
	})
}

func TestExpRowSpecialValues(t *testing.T) {
	inf := float32(math.Inf(1))
	eachProductLevel(t, func(t *testing.T) {
		s := make([]float32, 40)
		for i := range s {
			s[i] = []float32{-inf, float32(math.NaN()), 0, -1e30, float32(math.Copysign(0, -1))}[i%5]
		}
		if sum := expRow(s, 1, 0); sum == sum {
			t.Errorf("sum with NaN = %g", sum)
		}
		for i, got := range s {
			want := []float32{0, float32(math.NaN()), 1, 0, 1}[i%5]
			if got != want && (got == got || want == want) {
				t.Errorf("element %d: %g, want %g", i, got, want)
			}
		}
	})
}

func TestMaxRowEqualsReference(t *testing.T) {
	sweepProducts(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		values := normal(rng, n)
		// The largest in each place in turn, in long rows in some.
		for i := 0; i < n; i += 1 + n/131 {
			s := place(offset, values, inf)
			s.values[i] = 7
			if got := maxRow(s.values); got != 7 {
				t.Errorf("max at %d not found: %g", i, got)
			}
			s.values[i] = values[i]
			intact(t, "s", s.same())
		}
	})
}

func TestDotEqualsReference(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x, y := place32(offset, normal(rng, n)), place32(7-offset, normal(rng, n))
		got := dotGeneric(x.values, y.values)
		var want, abs float64
		for i, v := range x.values {
			p := float64(v) * float64(y.values[i])
			want += p
			abs += math.Abs(p)
		}
		if tol := float64(n) * abs / (1 << 24); !(math.Abs(float64(got)-want) <= tol) {
			t.Errorf("%g, want %g ± %g", got, want, tol)
		}
	})
}

// FuzzMatMulT compares each level with the reference for arbitrary shapes and
// finite operands.
func FuzzMatMulT(f *testing.F) {
	f.Add(uint16(13), uint16(33), uint16(65), uint8(0), []byte{1, 2, 3, 4, 250})
	f.Add(uint16(5), uint16(400), uint16(390), uint8(1), []byte{0x80, 0x3f})
	f.Add(uint16(1), uint16(1), uint16(1), uint8(6), []byte{0, 0, 0x80})
	f.Fuzz(func(t *testing.T, m, n, k uint16, mode uint8, data []byte) {
		c := productCase{m: int(m) % 60, n: int(n) % 420, k: int(k) % 800, padD: int(mode) % 3, padX: int(mode) % 5, padB: int(mode) % 4}
		kind := []string{"f32", "bf16", "f16"}[mode%3]
		var seed [8]byte
		copy(seed[:], data)
		for _, level := range cpu.Levels() {
			restore := cpu.Use(level)
			checkProductCase(t, MatMulT, kind, false, c, int(binary.LittleEndian.Uint32(seed[:])))
			if kind == "bf16" {
				checkProductCase(t, MatMulTBF16, kind, true, c, int(binary.LittleEndian.Uint32(seed[:])))
			}
			restore()
		}
	})
}
