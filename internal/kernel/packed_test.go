package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// packedCase returns n × k elements of a type as they are and packed, that share of
// them not zero; what lies around the packed values is NaN.
func packedCase(rng *rand.Rand, kind string, n, k int, density float64) (dense, packed Source) {
	dense, _ = testSource(rng, kind, n*k)
	stride := MaskStride(k)
	p := &Packed{Cols: k, Mask: make([]byte, n*stride), First: make([]int64, n+1)}
	at := 0
	for r := range n {
		p.First[r] = int64(at)
		for j := range k {
			i := r*k + j
			kept := rng.Float64() < density
			if kept {
				p.Mask[r*stride+j/8] |= 1 << (j % 8)
				at++
			}
			switch {
			case dense.F32 != nil:
				p.Values.F32 = keepOrZero(p.Values.F32, dense.F32, i, kept)
			case dense.BF16 != nil:
				p.Values.BF16 = keepOrZero(p.Values.BF16, dense.BF16, i, kept)
			default:
				p.Values.F16 = keepOrZero(p.Values.F16, dense.F16, i, kept)
			}
		}
	}
	p.First[n] = int64(at)
	switch {
	case dense.F32 != nil:
		p.Values.F32 = amongNaN(p.Values.F32, nan)
	case dense.BF16 != nil:
		p.Values.BF16 = amongNaN(p.Values.BF16, bf16NaN)
	default:
		p.Values.F16 = amongNaN(p.Values.F16, f16NaN)
	}
	return dense, Source{Packed: p}
}

// keepOrZero appends element i of all to kept ones, or sets it to zero.
func keepOrZero[T uint16 | float32](kept, all []T, i int, keep bool) []T {
	if keep {
		return append(kept, all[i])
	}
	all[i] = 0
	return kept
}

// amongNaN returns v with NaN before it, and behind it in the capacity.
func amongNaN[T any](v []T, nan T) []T {
	whole := slices.Repeat([]T{nan}, 2*PackedSpare+len(v))
	copy(whole[PackedSpare:], v)
	return whole[PackedSpare : PackedSpare+len(v)]
}

var densities = []float64{0, 0.3, 0.5, 0.7, 1}

// A product with a packed matrix is the product with the plain one, to the same bits,
// for few rows of x and for many.
func TestPackedProductsEqualPlain(t *testing.T) {
	type product func([]float32, int, []float32, int, Source, int, int, int, int)
	eachProductLevel(t, func(t *testing.T) {
		had := cpu.AVX512VBMI2
		for k := 1; k <= 300; k++ {
			rng := rand.New(rand.NewPCG(4, uint64(k)))
			cpu.AVX512VBMI2 = had && k%7 != 0
			kind := []string{"bf16", "bf16", "f16", "f32"}[k%4]
			n := []int{1, 3, 4, 7, 9, 33}[k%6]
			for _, m := range []int{1 + k%3, 4 + k%9} {
				dense, packed := packedCase(rng, kind, n, k, densities[k%len(densities)])
				x, _ := testSource(rng, "f32", m*k)
				for i, f := range []product{MatMulT, MatMulTBF16} {
					if i == 1 && kind != "bf16" {
						continue
					}
					want, got := make([]float32, m*n), make([]float32, m*n)
					f(want, n, x.F32, k, dense, k, m, n, k)
					f(got, n, x.F32, k, packed, k, m, n, k)
					if !slices.EqualFunc(got, want, sameFloat) {
						t.Fatalf("%s, %d × %d × %d: packed and plain differ", kind, m, n, k)
					}
				}
			}
		}
	})
}

// Rows in the middle, pairs with one of the two packed, and products that several
// blocks along the depth and several tasks make up.
func TestPackedSlicesAndPairs(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		for _, c := range []struct{ m, n, k int }{{1, 40, 1300}, {3, 500, 700}, {130, 450, 1300}, {20, 33, 2200}} {
			rng := rand.New(rand.NewPCG(5, uint64(c.m)))
			x, _ := testSource(rng, "f32", c.m*c.k)
			dense, packed := packedCase(rng, "bf16", c.n+5, c.k, 0.5)
			other, _ := packedCase(rng, "bf16", c.n, c.k, 0.9)
			part := Source{BF16: dense.BF16[3*c.k:][:c.n*c.k]}
			packedPart := Source{Packed: packed.Packed.Slice(3, 3+c.n)}
			pair := func(a, b Source) []float32 {
				all := make([]float32, 2*c.m*c.n)
				MatMulTPairBF16(x.F32, c.k, a, b, c.k, c.m, c.n, c.k, func(t, o int, u, v []float32) {
					copy(all[t*c.n+o:], u)
					copy(all[(c.m+t)*c.n+o:], v)
				})
				return all
			}
			if !slices.EqualFunc(pair(packedPart, other), pair(part, other), sameFloat) ||
				!slices.EqualFunc(pair(other, packedPart), pair(other, part), sameFloat) {
				t.Errorf("%+v: packed and plain differ", c)
			}
		}
	})
}

// Expand16 at every level, length and offset is its definition, and Compress16 its
// inverse.
func TestExpand16EqualsReference(t *testing.T) {
	sweepProducts(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		dense, packed := packedCase(rng, "bf16", 1, n, densities[(n+offset)%len(densities)])
		p := packed.Packed
		out := place(offset, make([]uint16, n), bf16NaN)
		for i := range out.values {
			out.values[i] = bf16NaN
		}
		if got := Expand16(out.values, p.Mask, p.Values.BF16); got != len(p.Values.BF16) || !slices.Equal(out.values, dense.BF16) {
			t.Errorf("%d of %d values; the elements are right: %v", got, len(p.Values.BF16), slices.Equal(out.values, dense.BF16))
		}
		intact(t, "dst", out.guarded())
		values, mask := make([]uint16, n), make([]byte, MaskStride(n))
		kept := Compress16(values, mask, dense.BF16)
		again := make([]uint16, n)
		if Expand16(again, mask, amongNaN(values[:kept], bf16NaN)); !slices.Equal(again, dense.BF16) {
			t.Error("Compress16 loses elements")
		}
	})
}

func TestPackedPanics(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 0))
	_, good := packedCase(rng, "bf16", 3, 20, 0.5)
	for name, c := range map[string]struct {
		n, k   int
		change func(p *Packed)
	}{
		"rows":    {4, 20, func(*Packed) {}},
		"columns": {3, 19, func(*Packed) {}},
		"mask":    {3, 20, func(p *Packed) { p.Mask = p.Mask[:8] }},
		"spare":   {3, 20, func(p *Packed) { p.Values.BF16 = slices.Clip(p.Values.BF16) }},
		"values":  {3, 20, func(p *Packed) { p.First = []int64{0, 0, 0, 99} }},
		"type":    {3, 20, func(p *Packed) { p.Values = Source{F16: p.Values.BF16} }},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			p := *good.Packed
			c.change(&p)
			MatMulTBF16(make([]float32, c.n), c.n, make([]float32, c.k), c.k, Source{Packed: &p}, c.k, 1, c.n, c.k)
		})
	}
	if fmt.Sprint(MaskStride(0), MaskStride(1), MaskStride(8), MaskStride(9)) != "0 1 1 2" {
		t.Error("MaskStride")
	}
}
