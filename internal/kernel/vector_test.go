package kernel

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func normal(rng *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(rng.NormFloat64())
	}
	return s
}

func words(rng *rand.Rand, n int) []uint16 {
	s := make([]uint16, n)
	for i := range s {
		s[i] = uint16(rng.Uint32())
	}
	return s
}

// near fails the test unless |got − want| ≤ tol, or both are NaN. Infinity
// counts as 2¹²⁸, the first value that does not fit.
func near(t *testing.T, what string, got float32, want, tol float64) {
	t.Helper()
	clamp := func(v float64) float64 { return math.Max(math.Min(v, 0x1p128), -0x1p128) }
	if math.IsNaN(float64(got)) && math.IsNaN(want) {
		return
	}
	if !(math.Abs(clamp(float64(got))-clamp(want)) <= tol) {
		t.Errorf("%s = %g, want %g ± %g", what, got, want, tol)
	}
}

// equal fails the test unless got and want have the same bits or both are NaN.
func equal(t *testing.T, what string, got, want float32) {
	t.Helper()
	if math.Float32bits(got) != math.Float32bits(want) && (got == got || want == want) {
		t.Errorf("%s = %g (%#08x), want %g (%#08x)", what,
			got, math.Float32bits(got), want, math.Float32bits(want))
	}
}

func TestWidenAtAllLengths(t *testing.T) {
	for _, c := range []struct {
		name          string
		fast, generic func(dst []float32, src []uint16)
	}{{"BF16", WidenBF16, widenBF16Generic}, {"F16", WidenF16, widenF16Generic}} {
		t.Run(c.name, func(t *testing.T) {
			sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
				src := place(offset, words(rng, n), 0x7fc1)
				dst := place32(7-offset, make([]float32, n))
				want := make([]float32, n)
				c.generic(want, src.values)
				c.fast(dst.values, src.values)
				if !bytes.Equal(rawBytes(dst.values), rawBytes(want)) {
					t.Errorf("got %v, want %v", dst.values, want)
				}
				intact(t, "src", src.same())
				intact(t, "dst", dst.guarded())
			})
		})
	}
}

func TestNarrowBF16AtAllLengths(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		values := make([]float32, n)
		for i := range values {
			values[i] = math.Float32frombits(rng.Uint32())
		}
		src := place32(offset, values)
		dst := place(7-offset, make([]uint16, n), 0xabcd)
		want := make([]uint16, n)
		narrowBF16Generic(want, src.values)
		NarrowBF16(dst.values, src.values)
		if !bytes.Equal(rawBytes(dst.values), rawBytes(want)) {
			t.Errorf("of %v got %x, want %x", values, dst.values, want)
		}
		intact(t, "src", src.same())
		intact(t, "dst", dst.guarded())
	})
}

func TestAddSquares(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		sums := make([]float64, n)
		for i := range sums {
			sums[i] = rng.ExpFloat64()
		}
		acc := place(offset, sums, math.NaN())
		x := place32(7-offset, normal(rng, n))
		AddSquares(acc.values, x.values)
		for j, got := range acc.values {
			v := float64(x.values[j])
			if want := math.FMA(v, v, sums[j]); got != want { // the square is exact: one rounding
				t.Errorf("acc[%d] = %v, want %v", j, got, want)
			}
		}
		intact(t, "x", x.same())
		intact(t, "acc", acc.guarded())
	})
}

func TestAdd(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		dst := place32(offset, normal(rng, n))
		x := place32(7-offset, normal(rng, n))
		Add(dst.values, x.values)
		for i, was := range dst.wasValues() {
			equal(t, fmt.Sprintf("dst[%d]", i), dst.values[i], was+x.values[i])
		}
		intact(t, "x", x.same())
		intact(t, "dst", dst.guarded())
		twice := place32(offset, x.values)
		Add(twice.values, twice.values)
		for i, v := range x.values {
			equal(t, fmt.Sprintf("aliased[%d]", i), twice.values[i], v+v)
		}
		intact(t, "aliased", twice.guarded())
	})
}

func TestRMSNorm(t *testing.T) {
	const eps = 1e-5
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x, w := place32(offset, normal(rng, n)), place32(7-offset, normal(rng, n))
		dst := place32(3, make([]float32, n))
		RMSNorm(dst.values, x.values, w.values, eps)
		checkRMSNorm(t, dst.values, x.values, w.values, eps)
		intact(t, "x", x.same())
		intact(t, "w", w.same())
		intact(t, "dst", dst.guarded())
		RMSNorm(x.values, x.values, w.values, eps)
		if !bytes.Equal(rawBytes(x.values), rawBytes(dst.values)) {
			t.Errorf("in place: got %v, want %v", x.values, dst.values)
		}
		intact(t, "in place", x.guarded())
	})
}

// checkRMSNorm compares with the formula in float64, to the bound of RMSNorm's
// doc comment; 2⁻¹⁴⁹ is for a product that is subnormal.
func checkRMSNorm(t *testing.T, got, x, w []float32, eps float32) {
	t.Helper()
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	r := 1 / math.Sqrt(sum/float64(len(x))+float64(eps))
	for i, v := range x {
		want := float64(v) * r * float64(w[i])
		tol := (3*0x1p-24+float64(len(x)+4)*0x1p-53)*math.Abs(want)*1.001 + 0x1p-149*(1+math.Abs(float64(w[i])))
		near(t, fmt.Sprintf("dst[%d]", i), got[i], want, tol)
	}
}

func TestSiluMul(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		values := normal(rng, n)
		for i := range values {
			values[i] *= []float32{1, 10, 50}[rng.IntN(3)] // to where exp(−|g|) is subnormal
		}
		gate, up := place32(offset, values), place32(7-offset, normal(rng, n))
		dst := place32(5, make([]float32, n))
		SiluMul(dst.values, gate.values, up.values)
		for i, g := range gate.values {
			checkSiluMul(t, dst.values[i], g, up.values[i])
		}
		intact(t, "gate", gate.same())
		intact(t, "up", up.same())
		intact(t, "dst", dst.guarded())
		SiluMul(gate.values, gate.values, up.values)
		if !bytes.Equal(rawBytes(gate.values), rawBytes(dst.values)) {
			t.Errorf("in place: got %v, want %v", gate.values, dst.values)
		}
		intact(t, "in place", gate.guarded())
	})
}

// checkSiluMul compares with the formula in float64, to the bound of SiluMul's
// doc comment.
func checkSiluMul(t *testing.T, got, gate, up float32) {
	t.Helper()
	g, u := float64(gate), float64(up)
	silu := g / (1 + math.Exp(-g))
	want := silu * u
	if least := 0x1p-149 * (1 + min(math.Abs(g), 200)); math.IsInf(u, 0) && math.Abs(silu) <= least && got != got {
		return // silu may be 0 in float32, and 0·Inf is NaN
	}
	tol := 3.001*0x1p-23*min(math.Abs(want), 0x1p128) + 0x1p-149*(1+min(math.Abs(g), 200))*(1+math.Abs(u))
	near(t, fmt.Sprintf("silu(%g)·%g", gate, up), got, want, tol)
}

func TestRope(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, half, offset int) {
		const heads = 3
		headDim := 2*half + offset // what lies past rot stays
		x := place32(offset, normal(rng, heads*headDim))
		cos, sin := place32(7-offset, normal(rng, half)), place32(3, normal(rng, half))
		Rope(x.values, cos.values, sin.values, heads, headDim, 2*half)
		was := x.wasValues()
		for h := range heads {
			was, got := was[h*headDim:][:headDim], x.values[h*headDim:][:headDim]
			for i := range half {
				a, b, c, s := was[i], was[i+half], cos.values[i], sin.values[i]
				equal(t, fmt.Sprintf("head %d, x[%d]", h, i), got[i], float32(a*c)-float32(b*s))
				equal(t, fmt.Sprintf("head %d, x[%d]", h, i+half), got[i+half], float32(b*c)+float32(a*s))
			}
			for i := 2 * half; i < headDim; i++ {
				equal(t, fmt.Sprintf("head %d, x[%d]", h, i), got[i], was[i])
			}
		}
		intact(t, "cos", cos.same())
		intact(t, "sin", sin.same())
		intact(t, "x", x.guarded())
	})
}

func TestMaxSumExp(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		values := normal(rng, n)
		for i := range values {
			values[i] = values[i]*20 - 30
		}
		x := place32(offset, values)
		top, sum := MaxSumExp(x.values)
		checkMaxSumExp(t, top, sum, values)
		intact(t, "x", x.same())
	})
}

// checkMaxSumExp compares with float64 sums, to the bound of MaxSumExp's doc
// comment.
func checkMaxSumExp(t *testing.T, top float32, sum float64, x []float32) {
	t.Helper()
	wantTop := float32(math.Inf(-1))
	for _, v := range x {
		wantTop = max(wantTop, v)
	}
	var want, tol float64
	for _, v := range x {
		d := float64(wantTop) - float64(v)
		term := math.Exp(-d)
		want += term
		if term > 0 { // else d·term may be Inf·0
			tol += term * (2 + d) * 1.001 * 0x1p-24
		}
	}
	tol += float64(len(x)) * (0x1p-149 + want*0x1p-53)
	if math.IsNaN(want) {
		if !math.IsNaN(sum) {
			t.Errorf("sum = %g, want NaN", sum)
		}
		return
	}
	equal(t, "max", top, wantTop)
	if !(math.Abs(sum-want) <= tol) {
		t.Errorf("sum = %.12g, want %.12g ± %g", sum, want, tol)
	}
}
