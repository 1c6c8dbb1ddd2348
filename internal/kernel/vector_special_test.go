package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

func allWords() []uint16 {
	s := make([]uint16, 1<<16)
	for i := range s {
		s[i] = uint16(i)
	}
	return s
}

// decode returns the value of a 16-bit float with the given exponent bits, from
// the definition of IEEE 754; NaN for any NaN.
func decode(v uint16, exponentBits int) float64 {
	fractionBits := 15 - exponentBits
	e := int(v&0x7fff) >> fractionBits
	f := float64(v & (1<<fractionBits - 1))
	bias := 1<<(exponentBits-1) - 1
	var x float64
	switch {
	case e == 0:
		x = math.Ldexp(f, 1-bias-fractionBits)
	case e < 1<<exponentBits-1:
		x = math.Ldexp(f+float64(int(1)<<fractionBits), e-bias-fractionBits)
	case f == 0:
		x = math.Inf(1)
	default:
		return math.NaN()
	}
	return math.Copysign(x, 1-2*float64(v>>15))
}

func TestWidenEveryValue(t *testing.T) {
	atEachLevel(t, func(t *testing.T) {
		src := allWords()
		bf16, f16 := make([]float32, len(src)), make([]float32, len(src))
		WidenBF16(bf16, src)
		WidenF16(f16, src)
		for i, v := range src {
			equal(t, fmt.Sprintf("bf16 %#04x", v), bf16[i], float32(decode(v, 8)))
			equal(t, fmt.Sprintf("f16 %#04x", v), f16[i], float32(decode(v, 5)))
			if got := math.Float32bits(bf16[i]); got != uint32(v)<<16 {
				t.Errorf("bf16 %#04x = %#08x, want the same bits", v, got)
			}
			if v&0x7fff > 0x7c00 { // NaN: sign, quiet, payload
				want := uint32(v&0x8000)<<16 | 0x7fc00000 | uint32(v&0x1ff)<<13
				if got := math.Float32bits(f16[i]); got != want {
					t.Errorf("f16 %#04x = %#08x, want %#08x", v, got, want)
				}
			}
		}
	})
}

// Every bfloat16 and what lies around the middle between it and the next.
func TestNarrowBF16RoundsToNearestEven(t *testing.T) {
	var src []float32
	var want []uint16
	for _, v := range allWords() {
		for _, low := range []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0xffff} {
			x := math.Float32frombits(uint32(v)<<16 | low)
			src = append(src, x)
			switch next := v + 1; {
			case x != x:
				want = append(want, v|0x40)
			case low > 0x8000, low == 0x8000 && v&1 == 1:
				want = append(want, next) // of larger size; past the largest it is Inf
			default:
				want = append(want, v)
			}
		}
	}
	atEachLevel(t, func(t *testing.T) {
		got := make([]uint16, len(src))
		NarrowBF16(got, src)
		for i, x := range src {
			if got[i] != want[i] {
				t.Fatalf("%#08x = %#04x, want %#04x", math.Float32bits(x), got[i], want[i])
			}
		}
	})
}

// All lanes hold one value, so that the mean of the exponentials is exactly
// that of one.
func TestExpError(t *testing.T) {
	// In ulp, for a result just below a power of two: 0.5 for the last rounding,
	// 0.25 for that of r, 0.22 for those in the polynomial, 0.09 for its end.
	const limit = 1.06
	atEachLevel(t, func(t *testing.T) {
		var worst, at float64
		x := make([]float32, 16)
		for v := float32(0); v > -106; v -= 1.0/(1<<11) + v*v*0x1p-33 {
			for i := range x {
				x[i] = v
			}
			sum := 0.0
			if s, n := sumExpBlocks(x, 0); n > 0 {
				sum = s / float64(n)
			} else {
				sum = sumExpGeneric(x, 0) / float64(len(x))
			}
			want := math.Exp(float64(v))
			ulp := math.Ldexp(1, max(math.Ilogb(want)-23, -149))
			if e := math.Abs(sum-want) / ulp; !(e <= worst) {
				worst, at = e, float64(v)
			}
		}
		t.Logf("worst %.3f ulp, at %g", worst, at)
		if !(worst <= limit) {
			t.Errorf("exp(%g) is off by %.3f ulp, want at most %g", at, worst, limit)
		}
	})
}

var (
	nan = float32(math.NaN())
	inf = float32(math.Inf(1))
)

// specialAt is 40 ones but for v at position i: 40 leaves a rest behind every block.
func specialAt(i int, v float32) []float32 {
	s := make([]float32, 40)
	for j := range s {
		s[j] = 1
	}
	s[i] = v
	return s
}

// A special value behaves alike in a block and in the rest.
var specialPositions = []int{0, 9, 31, 39}

func TestNonFinite(t *testing.T) {
	atEachLevel(t, func(t *testing.T) {
		for _, p := range specialPositions {
			for _, v := range []float32{nan, inf, -inf} {
				checkNonFinite(t, p, v)
			}
		}
	})
}

func checkNonFinite(t *testing.T, p int, v float32) {
	x, ones := specialAt(p, v), specialAt(0, 1)
	name := func(fn string, i int) string { return fmt.Sprintf("%s of %g at %d: [%d]", fn, v, p, i) }

	acc := make([]float64, len(x))
	AddSquares(acc, x)
	sum := specialAt(0, 1)
	Add(sum, x)
	norm := make([]float32, len(x))
	RMSNorm(norm, x, ones, 1e-6)
	silu := make([]float32, len(x))
	SiluMul(silu, x, ones)
	for i := range x {
		equal(t, name("AddSquares", i), float32(acc[i]), x[i]*x[i])
		equal(t, name("Add", i), sum[i], 1+x[i])
		want := float32(0)
		if v != v || i == p {
			want = nan
		}
		equal(t, name("RMSNorm", i), norm[i], want)
	}
	want := nan // also of −Inf: −Inf · 0
	if v == inf {
		want = inf
	}
	equal(t, name("SiluMul", p), silu[p], want)

	top, total := MaxSumExp(x)
	if v == -inf {
		if top != 1 || total != 39 {
			t.Errorf("MaxSumExp with −Inf at %d = %g, %g, want 1, 39", p, top, total)
		}
	} else if !math.IsNaN(total) {
		t.Errorf("MaxSumExp with %g at %d: sum %g, want NaN", v, p, total)
	}
}

func TestMaxSumExpOfNothing(t *testing.T) {
	atEachLevel(t, func(t *testing.T) {
		if top, sum := MaxSumExp(nil); top != -inf || sum != 0 {
			t.Errorf("of nothing: %g, %g, want -Inf, 0", top, sum)
		}
		x := make([]float32, 40)
		for i := range x {
			x[i] = -inf
		}
		if top, sum := MaxSumExp(x); top != -inf || !math.IsNaN(sum) {
			t.Errorf("of -Inf: %g, %g, want -Inf, NaN", top, sum)
		}
	})
}

// A vocabulary of 150 000 entries: float32 sums would be off by 1e-3.
func TestMaxSumExpIsSummedInFloat64(t *testing.T) {
	atEachLevel(t, func(t *testing.T) {
		x := make([]float32, 150_000)
		for i := range x {
			x[i] = -20
		}
		x[77_777] = 3
		top, sum := MaxSumExp(x)
		checkMaxSumExp(t, top, sum, x)
	})
}

// Squares that overflow or vanish in float32 do neither in the norm.
func TestRMSNormRange(t *testing.T) {
	atEachLevel(t, func(t *testing.T) {
		for _, v := range []float32{1e25, 1e-25} {
			x, w := specialAt(0, v), specialAt(0, 1)
			for i := range x {
				x[i] = v * float32(i+1)
			}
			dst := make([]float32, len(x))
			RMSNorm(dst, x, w, 0)
			checkRMSNorm(t, dst, x, w, 0)
		}
	})
}

func TestVectorKernelsPanicOnLengths(t *testing.T) {
	f, h, d := make([]float32, 4), make([]uint16, 4), make([]float64, 4)
	for want, call := range map[string]func(){
		"kernel: WidenBF16: len(dst) = 4, want 3":                func() { WidenBF16(f, h[:3]) },
		"kernel: WidenF16: len(dst) = 3, want 4":                 func() { WidenF16(f[:3], h) },
		"kernel: NarrowBF16: len(dst) = 4, want 3":               func() { NarrowBF16(h, f[:3]) },
		"kernel: AddSquares: len(acc) = 4, want 3":               func() { AddSquares(d, f[:3]) },
		"kernel: Add: len(dst) = 4, want 3":                      func() { Add(f, f[:3]) },
		"kernel: RMSNorm: len(w) = 3, want 4":                    func() { RMSNorm(f, f, f[:3], 0) },
		"kernel: SiluMul: len(up) = 3, want 4":                   func() { SiluMul(f, f, f[:3]) },
		"kernel: Rope: len(x) = 4, want 6":                       func() { Rope(f, f[:1], f[:1], 2, 3, 2) },
		"kernel: Rope: rot = 3, want an even number from 0 to 4": func() { Rope(f, f[:1], f[:1], 1, 4, 3) },
		"kernel: Rope: rot = 6, want an even number from 0 to 4": func() { Rope(f, f[:3], f[:3], 1, 4, 6) },
		"kernel: Rope: len(sin) = 1, want 2":                     func() { Rope(f, f[:2], f[:1], 1, 4, 4) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panic %v, want %s", got, want)
				}
			}()
			call()
		}()
	}
}

// FuzzVector gives any bits to the kernels, at each level against the formulas.
func FuzzVector(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add(binary.LittleEndian.AppendUint32(nil, 0x7f800001), uint8(3))
	seed := make([]byte, 0, 4*70)
	for i := range 70 {
		seed = binary.LittleEndian.AppendUint32(seed, math.Float32bits(float32(i)-35)^uint32(i))
	}
	f.Add(seed, uint8(5))
	least := binary.LittleEndian.AppendUint32(nil, 1) // silu of this rounds to 0
	f.Add(binary.LittleEndian.AppendUint32(least, math.Float32bits(float32(math.Inf(1)))), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, offset uint8) {
		values := make([]float32, len(data)/4)
		for i := range values {
			values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		atEachLevel(t, func(t *testing.T) { fuzzVector(t, values, int(offset%8)) })
	})
}

func fuzzVector(t *testing.T, values []float32, offset int) {
	x := place32(offset, values)
	y := place32(7-offset, values)
	n := len(values)
	for i := range y.values { // another order, for the second operand
		y.values[i] = values[n-1-i]
	}
	sum := place32(1, values)
	Add(sum.values, y.values)
	silu := place32(2, values)
	SiluMul(silu.values, silu.values, y.values)
	acc := place(3, make([]float64, n), math.NaN())
	AddSquares(acc.values, x.values)
	narrow := place(4, make([]uint16, n), 0x7fc1)
	NarrowBF16(narrow.values, x.values)
	wide := place32(5, values)
	WidenBF16(wide.values, narrow.values)
	for i, v := range values {
		equal(t, "Add", sum.values[i], v+y.values[i])
		checkSiluMul(t, silu.values[i], v, y.values[i])
		if want := float64(v) * float64(v); acc.values[i] != want && v == v {
			t.Errorf("%g² = %g, want %g", v, acc.values[i], want)
		}
		near(t, fmt.Sprintf("bfloat16 of %g", v), wide.values[i], float64(v), max(math.Abs(float64(v))*0x1p-8, 0x1p-134))
	}
	half := n / 2
	ropeFuzz(t, place32(6, values[:2*half]), y.values[:half], x.values[:half])
	top, total := MaxSumExp(x.values)
	checkMaxSumExp(t, top, total, values)
	intact(t, "x", x.same())
	intact(t, "outputs", sum.guarded() && silu.guarded() && acc.guarded() && narrow.guarded() && wide.guarded())
}

func ropeFuzz(t *testing.T, x field[float32], cos, sin []float32) {
	half := len(cos)
	Rope(x.values, cos, sin, 1, 2*half, 2*half)
	was := x.wasValues()
	for i := range half {
		equal(t, "Rope", x.values[i], float32(was[i]*cos[i])-float32(was[i+half]*sin[i]))
		equal(t, "Rope", x.values[i+half], float32(was[i+half]*cos[i])+float32(was[i]*sin[i]))
	}
	intact(t, "Rope", x.guarded())
}
