package tensor

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Two groups of a row by hand. The first has 127 and 2.5: the scale is 1, and 2.5 becomes
// the even 2. In the second −1 is kept, and its scale is the least by which it is an
// integer below 128: 2⁻⁶, by which it is −64.
func TestPackIntegersByHand(t *testing.T) {
	w := NewWeight(F32, 1, 40)
	w.w32[3], w.w32[9], w.w32[33] = 127, 2.5, -1
	p, err := PackIntegers(w, Integers{Bits: 8, Group: 32})
	if err != nil {
		t.Fatal(err)
	}
	minus64 := int8(-64)
	if !bytes.Equal(p.Values(), []byte{127, 2, byte(minus64)}) || !slices.Equal(p.Scales().w32, []float32{1, 0x1p-6}) || !slices.Equal(p.First(), []int64{0, 3}) {
		t.Errorf("integers %v, scales %v, rows from %v", p.Values(), p.Scales().w32, p.First())
	}
	// By integers of 4 bits, two in a byte: of all scales of five bits the one with the
	// least error, 18, by which the two are 7 and 0.
	if p, err = PackIntegers(w, Integers{Bits: 4, Group: 32}); err != nil {
		t.Fatal(err)
	}
	least := math.Inf(1)
	for m := 16; m < 32; m++ {
		for e := -3; e < 6; e++ {
			s := float64(m) / 16 * math.Pow(2, float64(e))
			sum := 0.0
			for _, v := range []float64{127, 2.5} {
				q := max(-8, min(7, math.RoundToEven(v/s)))
				sum += (v - q*s) * (v - q*s)
			}
			least = min(least, sum)
		}
	}
	got := NewWeight(F32, 1, 40)
	p.Expand(got, 0)
	a, b := float64(got.w32[3])-127, float64(got.w32[9])-2.5
	if a*a+b*b != least || len(p.Values()) != 2 {
		t.Errorf("%v and %v: squared error %v, want %v; %d bytes, want 2", got.w32[3], got.w32[9], a*a+b*b, least, len(p.Values()))
	}
}

func randomWeight(rng *rand.Rand, dtype DType, rows, cols int, density float64) *Weight {
	w := NewWeight(dtype, rows, cols)
	for i := range rows {
		row := make([]float32, cols)
		for j := range row {
			if rng.Float64() < density {
				row[j] = float32(rng.NormFloat64() * math.Exp2(float64(rng.IntN(3)-5)))
			}
		}
		w.SetRow(i, 0, row)
	}
	return w
}

// Of every width, density and type: each weight is off by half its scale at most (one that
// is cut off at the end of the integers by no more than that pays for), what is stored is
// what Pack stores, and what comes of it packs to itself.
func TestPackIntegers(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 0))
	for cols := range 301 {
		dtype := []DType{BF16, F32, F16}[cols%3]
		w := randomWeight(rng, dtype, 3, cols, []float64{0, 0.3, 0.5, 0.99, 1}[cols%5])
		for _, bits := range []int{8, 4} {
			k := Integers{Bits: bits, Group: Groups[cols%len(Groups)]}
			p, err := PackIntegers(w, k)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
			if plain := Pack(w); !bytes.Equal(p.Mask(), plain.Mask()) || p.Kept() != plain.Kept() || k.Bytes(w) != len(p.Values()) || p.Integers() != k {
				t.Fatalf("%d columns: %d kept in %d bytes, want %d in %d", cols, p.Kept(), len(p.Values()), plain.Kept(), k.Bytes(w))
			}
			got := NewWeight(dtype, 3, cols)
			p.Expand(got, 0)
			scales := p.Scales()
			limit := float32(int(1)<<(bits-1) - 1)
			for i := range 3 {
				for j := range cols {
					s, v, have := scales.At(i, j/k.Group), w.At(i, j), got.At(i, j)
					if off := float32(math.Abs(float64(v - have))); off > s/2 && !(float32(math.Abs(float64(have))) >= limit*s) {
						t.Fatalf("%v, %d bits, [%d %d]: %v becomes %v with scale %v", dtype, bits, i, j, v, have, s)
					}
				}
			}
			again, err := PackIntegers(got, k)
			if err != nil {
				t.Fatal(err)
			}
			other := NewWeight(dtype, 3, cols)
			again.Expand(other, 0)
			for i := range 3 {
				for j := range cols {
					if other.At(i, j) != got.At(i, j) {
						t.Fatalf("%v, %d bits: %v becomes %v by packing again", dtype, bits, got.At(i, j), other.At(i, j))
					}
				}
			}
			from := NewPackedIntegers(k, dtype, 3, cols, len(p.Values()))
			copy(from.Mask(), p.Mask())
			copy(from.First(), p.First())
			copy(from.Values(), p.Values())
			if err := from.SetScales(scales); err != nil {
				t.Fatal(err)
			}
			from.Slice(1, 3).Expand(other.Slice(0, 2), 0)
			if !bytes.Equal(other.Slice(0, 2).Bytes(), got.Slice(1, 3).Bytes()) {
				t.Fatalf("%v, %d bits: other elements from the same parts", dtype, bits)
			}
		}
	}
}

// Weights of any size that a type has become finite ones, the smallest 0.
func TestPackIntegersOfAnySize(t *testing.T) {
	for dtype, sizes := range map[DType][]float32{
		F32: {math.SmallestNonzeroFloat32, 0x1p-126, 1, math.MaxFloat32}, BF16: {0x1p-133, 0x1p-126, 1, 0x1.fep127}, F16: {0x1p-24, 0x1p-14, 1, 65504},
	} {
		for _, size := range sizes {
			w := NewWeight(dtype, 1, 2)
			w.SetRow(0, 0, []float32{size, -size / 2})
			for _, bits := range []int{8, 4} {
				p, err := PackIntegers(w, Integers{bits, 32})
				if err != nil {
					t.Fatal(err)
				}
				got := NewWeight(dtype, 1, 2)
				p.Expand(got, 0)
				if got.FirstNonFinite() >= 0 {
					t.Errorf("%v of %v: %v", size, dtype, got.Bytes())
				}
				if err := p.SetScales(p.Scales()); err != nil {
					t.Errorf("%v of %v: %v", size, dtype, err)
				}
			}
		}
		w := NewWeight(dtype, 1, 2)
		w.SetRow(0, 0, []float32{1, float32(math.Inf(1))})
		if _, err := PackIntegers(w, Integers{8, 32}); err == nil || !strings.Contains(err.Error(), "element [0 1] is +Inf") {
			t.Errorf("of +Inf: %v", err)
		}
	}
}

func TestScalesAreChecked(t *testing.T) {
	w := randomWeight(rand.New(rand.NewPCG(3, 0)), BF16, 2, 70, 0.5)
	for _, c := range []struct {
		bits  int
		scale float32
		want  bool
	}{
		{8, 0, true}, {8, 0.25, true}, {8, 0.375, false}, {4, 0.375, true}, {4, 0x1.08p0, false}, {4, 0x1.1p0, true}, {8, -1, false},
		{8, float32(math.NaN()), false}, {4, float32(math.Inf(1)), false}, {8, 0x1p-126, false}, {8, 0x1p127, false}, {8, float32(math.Copysign(0, -1)), false},
	} {
		p, err := PackIntegers(w, Integers{c.bits, 64})
		if err != nil {
			t.Fatal(err)
		}
		s := p.Scales()
		row := []float32{s.At(1, 0), c.scale}
		s.SetRow(1, 0, row)
		if err := p.SetScales(s); (err == nil) != c.want || err != nil && !strings.Contains(err.Error(), "scale [1 1] is ") {
			t.Errorf("%d bits, scale %v: %v", c.bits, c.scale, err)
		}
	}
	for k, want := range map[Integers]string{{}: "", {8, 32}: "", {5, 32}: "integers of 5 bits", {4, 48}: "48 columns to a scale"} {
		if err := k.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", k, err)
		}
	}
}
