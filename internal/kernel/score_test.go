package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// special32 returns n values of all sizes, with −0, subnormals and repetitions.
func special32(rng *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		switch rng.IntN(12) {
		case 0:
			s[i] = float32(math.Copysign(0, float64(rng.IntN(2))-0.5))
		case 1:
			s[i] = math.SmallestNonzeroFloat32 * float32(rng.IntN(9)-4)
		case 2:
			s[i] = 0.5
		default:
			s[i] = float32(rng.NormFloat64() * math.Exp(3*rng.NormFloat64()))
		}
	}
	return s
}

// bitsEqual fails the test unless got has the bits of want.
func bitsEqual(t *testing.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Errorf("%s[%d] = %g, want %g", what, i, got[i], want[i])
			return
		}
	}
}

func TestAbsSums(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x := place32(offset, special32(rng, n))
		col := place(offset, make([]float64, n), math.NaN())
		var lanes, wantLanes [AbsSumLanes]float64
		for l := range lanes {
			lanes[l] = rng.Float64()
		}
		wantLanes = lanes
		for j := range col.values {
			col.values[j] = rng.Float64()
		}
		want := slices.Clone(col.values)
		AbsSums(col.values, &lanes, x.values, 5000)
		absSumsGeneric(want, &wantLanes, x.values)
		if !slices.Equal(col.values, want) || lanes != wantLanes {
			t.Error("differs from the Go code")
		}
		if !x.same() || !col.guarded() {
			t.Error("wrote outside col")
		}
	})
}

func TestAbsSumsBF16(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		finite := words(rng, n)
		for j := range finite {
			finite[j] &^= 0x4000
		}
		x := place(offset, finite, uint16(0x5555))
		wide, col := make([]float32, n), place(offset, make([]float64, n), math.NaN())
		widenBF16Generic(wide, x.values)
		want := make([]float64, n)
		var lanes, wantLanes [AbsSumLanes]float64
		AbsSumsBF16(col.values, &lanes, x.values, 5000)
		absSumsGeneric(want, &wantLanes, wide)
		if !slices.Equal(col.values, want) || lanes != wantLanes {
			t.Error("differs from AbsSums")
		}
		if !x.same() || !col.guarded() {
			t.Error("wrote outside col")
		}
	})
}

func TestAbsIsExact(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x := place32(offset, special32(rng, n))
		dst := place32(0, make([]float32, n))
		Abs(dst.values, x.values, 5000)
		for j, v := range x.values {
			if want := float32(math.Abs(float64(v))); math.Float32bits(dst.values[j]) != math.Float32bits(want) {
				t.Errorf("|%g| = %g", v, dst.values[j])
			}
		}
		if !x.same() || !dst.guarded() {
			t.Error("wrote outside dst")
		}
		Abs(x.values, x.values, 0)
		bitsEqual(t, "in place", x.values, dst.values)
	})
}

func TestAbsBF16(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x := place(offset, words(rng, n), uint16(0x5555))
		dst := place32(1, make([]float32, n))
		AbsBF16(dst.values, x.values, 5000)
		for j, v := range x.values {
			if got, want := math.Float32bits(dst.values[j]), uint32(v&0x7fff)<<16; got != want {
				t.Errorf("|%#x| = %#x, want %#x", v, got, want)
			}
		}
		if !x.same() || !dst.guarded() {
			t.Error("wrote outside dst")
		}
	})
}

func TestScaleAbs(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x, s := place32(offset, special32(rng, n)), place32(1, special32(rng, n))
		dst, want := place32(2, make([]float32, n)), make([]float32, n)
		top := scaleAbsGeneric(want, x.values, s.values)
		if got := ScaleAbs(dst.values, x.values, s.values); got != top {
			t.Errorf("top %#x, want %#x", got, top)
		}
		bitsEqual(t, "dst", dst.values, want)
		if !x.same() || !s.same() || !dst.guarded() {
			t.Error("wrote outside dst")
		}
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			if n > 0 {
				x.values[rng.IntN(n)] = float32(v)
				if got := ScaleAbs(dst.values, x.values, s.values); got < InfBits {
					t.Errorf("top %#x with %g", got, v)
				}
			}
		}
	})
}

func TestRelativeImportance(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x, s, b := place32(offset, special32(rng, n)), place32(1, special32(rng, n)), place32(3, special32(rng, n))
		dst, want := place32(2, make([]float32, n)), make([]float32, n)
		a := rng.Float32()
		relativeImportanceGeneric(want, x.values, b.values, s.values, a)
		RelativeImportance(dst.values, x.values, b.values, s.values, a)
		bitsEqual(t, "dst", dst.values, want)
		if !x.same() || !s.same() || !b.same() || !dst.guarded() {
			t.Error("wrote outside dst")
		}
	})
}

func TestRelativeImportanceBF16(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x := place(offset, words(rng, n), uint16(0x5555))
		s, b := place32(1, special32(rng, n)), place32(3, special32(rng, n))
		dst, want, wide := place32(2, make([]float32, n)), make([]float32, n), make([]float32, n)
		a := rng.Float32()
		widenBF16Generic(wide, x.values)
		relativeImportanceGeneric(want, wide, b.values, s.values, a)
		RelativeImportanceBF16(dst.values, x.values, b.values, s.values, a)
		for j := range want {
			equal(t, "dst", dst.values[j], want[j])
		}
		if !x.same() || !s.same() || !b.same() || !dst.guarded() {
			t.Error("wrote outside dst")
		}
	})
}

// TestCrossImportance compares with the Go code bit by bit; TestNeighbourhoodIsDirectSum
// in package score compares that with the definition.
func TestCrossImportance(t *testing.T) {
	atEachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(7, 0))
		for r := 1; r <= MaxRadius; r++ {
			for n := 0; n <= 3*PanelStep; n += PanelStep {
				for offset := range 8 {
					var inputs []field[float32]
					input := func(x []float32) []float32 {
						f := place32(offset, x)
						inputs = append(inputs, f)
						return f.values
					}
					magnitudes := func() []float32 {
						x := special32(rng, n+2*Halo)
						absGeneric(x, x)
						return x
					}
					under, wantUnder := place32(offset, magnitudes()), magnitudes()
					c := Cross{Sides: make([]float32, n), Row: input(magnitudes()), Above: input(magnitudes()), Under: under.values,
						B: input(normal(rng, n)), S: input(normal(rng, n)), A: rng.Float32(), Gamma: 2 * rng.Float32(), Ahead: 5000}
					for p := range r {
						c.Below[p] = input(magnitudes())
					}
					dst, want := place32(offset, make([]float32, n)), make([]float32, n)
					CrossImportance(dst.values, &c, r)
					if n > 0 {
						c.Under = wantUnder
						crossGeneric(want, &c, r)
						bitsEqual(t, "under", under.values[Halo-r:Halo+n+r], wantUnder[Halo-r:Halo+n+r])
					}
					bitsEqual(t, "dst", dst.values, want)
					for i, in := range inputs {
						if !in.same() {
							t.Errorf("input %d changed", i)
						}
					}
					if !dst.guarded() || !under.guarded() {
						t.Error("wrote outside dst or Under")
					}
					if t.Failed() {
						t.Fatalf("r = %d, n = %d, offset %d", r, n, offset)
					}
				}
			}
		}
	})
}
