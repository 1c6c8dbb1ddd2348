package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// integersCase is packedCase with integers of so many bits; what lies around them and
// their scales must not be used.
func integersCase(rng *rand.Rand, kind string, bits, group, n, k int, density float64) (dense, packed Source) {
	groups := ceil(k, group)
	q := &Integers{Bits: bits, Group: group, Stride: n}
	for range groups * n {
		// As many bits as the type has beside an integer's.
		mantissa := 1 + float64(rng.IntN(1<<(8-bits)))/float64(int(1)<<(8-bits))
		q.Scales = append(q.Scales, float32(math.Ldexp(mantissa, rng.IntN(9)-12)))
	}
	p := &Packed{Cols: k, Mask: make([]byte, n*MaskStride(k)), First: make([]int64, n+1), Integers: q}
	plain := make([]float32, n*k)
	for r := range n {
		p.First[r] = int64(len(q.Values))
		half := false // a byte is begun
		for j := range k {
			if j%integerRun == 0 {
				half = false
			}
			if !(rng.Float64() < density) {
				continue
			}
			p.Mask[r*MaskStride(k)+j/8] |= 1 << (j % 8)
			v := rng.IntN(1<<bits) - 1<<(bits-1)
			plain[r*k+j] = float32(v) * q.Scales[j/group*n+r]
			switch {
			case bits == 8:
				q.Values = append(q.Values, byte(v))
			case half:
				q.Values[len(q.Values)-1] |= byte(v) << 4
				half = false
			default:
				q.Values = append(q.Values, byte(v)&15)
				half = true
			}
		}
	}
	p.First[n] = int64(len(q.Values))
	p.Full = MaskCount(p.Mask) == n*k
	q.Values, q.Scales = amongNaN(q.Values, 0x77), amongNaN(q.Scales, nan)
	switch kind {
	case "f32":
		p.Values.F32, dense.F32 = []float32{}, plain
	case "bf16":
		p.Values.BF16, dense.BF16 = []uint16{}, make([]uint16, len(plain))
		NarrowBF16(dense.BF16, plain)
	default:
		p.Values.F16 = []uint16{}
		for _, v := range plain {
			dense.F16 = append(dense.F16, narrowF16(v))
		}
	}
	back := make([]float32, len(plain))
	if dense.widen(back, 0); !slices.Equal(back, plain) {
		panic("the case is not exact in its type")
	}
	return dense, Source{Packed: p}
}

// A product with packed integers is the product with the plain matrix that they stand
// for, to the same bits: every length, every density, few rows of x and many.
func TestIntegerProductsEqualPlain(t *testing.T) {
	type product func([]float32, int, []float32, int, Source, int, int, int, int)
	eachProductLevel(t, func(t *testing.T) {
		had := cpu.AVX512BF16
		defer func() { cpu.AVX512BF16 = had }()
		for k := 1; k <= 300; k++ {
			for _, bits := range []int{8, 4} {
				rng := rand.New(rand.NewPCG(uint64(bits), uint64(k)))
				cpu.AVX512BF16 = had && k%7 != 0
				kind := []string{"bf16", "bf16", "bf16", "f16", "f32"}[k%5]
				n, group := []int{1, 3, 4, 7, 9, 33}[k%6], []int{32, 64, 128}[k%3]
				for _, m := range []int{1 + k%3, 4 + k%9} {
					dense, packed := integersCase(rng, kind, bits, group, n, k, densities[(k+bits)%len(densities)])
					x, _ := testSource(rng, "f32", m*k)
					for i, f := range []product{MatMulT, MatMulTBF16} {
						if i == 1 && kind != "bf16" {
							continue
						}
						want, got := make([]float32, m*n), make([]float32, m*n)
						f(want, n, x.F32, k, dense, k, m, n, k)
						f(got, n, x.F32, k, packed, k, m, n, k)
						if !slices.EqualFunc(got, want, sameFloat) {
							t.Fatalf("%d bits, %s, %d × %d × %d: packed and plain differ", bits, kind, m, n, k)
						}
					}
				}
			}
		}
	})
}

// Rows in the middle, and products that several blocks along the depth, several calls of
// a kernel and several tasks make up.
func TestIntegerSlices(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		for _, c := range []struct{ m, n, k int }{{1, 1000, 1312}, {3, 500, 704}, {2, 300, 601}, {40, 450, 1300}} {
			for i := range 4 {
				bits, density := []int{8, 4}[i%2], []float64{0.5, 1}[i/2]
				rng := rand.New(rand.NewPCG(5, uint64(c.m)))
				x, _ := testSource(rng, "f32", c.m*c.k)
				dense, packed := integersCase(rng, "bf16", bits, 64, c.n+5, c.k, density)
				part := Source{BF16: dense.BF16[3*c.k:][:c.n*c.k]}
				want, got := make([]float32, c.m*c.n), make([]float32, c.m*c.n)
				MatMulT(want, c.n, x.F32, c.k, part, c.k, c.m, c.n, c.k)
				MatMulT(got, c.n, x.F32, c.k, Source{Packed: packed.Packed.Slice(3, 3+c.n)}, c.k, c.m, c.n, c.k)
				if !slices.EqualFunc(got, want, sameFloat) {
					t.Errorf("%d bits, %+v, density %v: packed and plain differ", bits, c, density)
				}
			}
		}
	})
}

func TestIntegerPanics(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 0))
	_, good := integersCase(rng, "bf16", 4, 32, 3, 40, 0.5)
	for name, change := range map[string]func(p *Packed, q *Integers){
		"bits":         func(_ *Packed, q *Integers) { q.Bits = 5 },
		"group":        func(_ *Packed, q *Integers) { q.Group = 24 },
		"large group":  func(_ *Packed, q *Integers) { q.Group = 256 },
		"stride":       func(_ *Packed, q *Integers) { q.Stride = 2 },
		"scales":       func(_ *Packed, q *Integers) { q.Scales = q.Scales[:5] },
		"scales' room": func(_ *Packed, q *Integers) { q.Scales = slices.Clip(q.Scales) },
		"room":         func(_ *Packed, q *Integers) { q.Values = slices.Clip(q.Values) },
		"values":       func(p *Packed, _ *Integers) { p.First = []int64{0, 0, 0, 9999} },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			p, q := *good.Packed, *good.Packed.Integers
			p.Integers = &q
			change(&p, &q)
			MatMulTBF16(make([]float32, 3), 3, make([]float32, 40), 40, Source{Packed: &p}, 40, 1, 3, 40)
		})
	}
	// By hand: 3 of 16, then 1 of 2 columns; 2, 1 of 16.
	if got := NibbleBytes([]byte{0x11, 0x01, 0x02}); got != 3 {
		t.Errorf("%d bytes for 3 and 1 integers of 4 bits, want 3", got)
	}
}
