package kernel

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// Products that share a rounded x have the bits of those that round it, in
// whatever pieces it is stored, and leave what is beside dst.
func TestRoundedEqualsMatMulTBF16(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 0))
	const ldx, ldd = 1100, 450
	x, _ := testSource(rng, "f32", 130*ldx)
	b, _ := testSource(rng, "bf16", 440*ldx)
	eachProductLevel(t, func(t *testing.T) {
		for _, m := range []int{4, 13, 24, 130} {
			for _, k := range []int{1, 31, 1057, 1100} {
				mem := make([]float32, RoundedSize(m, k))
				for i := range mem {
					mem[i] = nan
				}
				r := NewRounded(mem, m, k)
				for i := range m {
					for k0 := 0; k0 < k; {
						n := min(1+rng.IntN(k), k-k0)
						r.Store(i, k0, x.F32[i*ldx+k0:][:n])
						k0 += n
					}
				}
				for _, n := range []int{0, 1, 33, 440} {
					want, got := make([]float32, 130*ldd), make([]float32, 130*ldd)
					MatMulTBF16(want, ldd, x.F32, ldx, b, ldx, m, n, k)
					r.MatMulT(got, ldd, b, ldx, n)
					if !slices.EqualFunc(got, want, sameFloat) {
						t.Fatalf("m=%d n=%d k=%d: not the same", m, n, k)
					}
				}
			}
		}
	})
	if RoundedSize(dotsTokens, 8) != 0 || RoundedSize(8, 0) != 0 {
		t.Error("a Rounded of few rows or no elements: want none")
	}
}

// A row that is normed as it is stored is that of RMSNorm.
func TestStoreNormEqualsRMSNorm(t *testing.T) {
	rng := rand.New(rand.NewPCG(6, 0))
	eachProductLevel(t, func(t *testing.T) {
		for _, k := range []int{1, 31, 1023, 1024, 1025, 2500} {
			const m = 5
			x, _ := testSource(rng, "f32", m*k)
			w, _ := testSource(rng, "f32", k)
			var mem [2][]float32
			for i := range mem {
				mem[i] = make([]float32, RoundedSize(m, k))
				r := NewRounded(mem[i], m, k)
				for row := range m {
					if x := x.F32[row*k:][:k]; i == 0 {
						y := make([]float32, k)
						RMSNorm(y, x, w.F32, 0.1)
						r.Store(row, 0, y)
					} else {
						r.StoreNorm(row, x, w.F32, 0.1)
					}
				}
			}
			if !slices.EqualFunc(mem[0], mem[1], sameFloat) {
				t.Errorf("k=%d: not the same", k)
			}
		}
	})
}

// A pair hands over each element of both products once, with the bits of MatMulT
// and MatMulTBF16, wherever the tasks and slabs are cut.
func TestPairEqualsTwoProducts(t *testing.T) {
	defer func(was int) { maxRounded = was }(maxRounded)
	rng := rand.New(rand.NewPCG(5, 0))
	const ld = 1100
	x, _ := testSource(rng, "f32", (slabRows+5)*ld)
	f32, _ := testSource(rng, "f32", 440*ld)
	b, _ := testSource(rng, "bf16", 2000*ld)
	c, _ := testSource(rng, "bf16", 2000*ld)
	type cut struct{ m, n, k, maxRounded int }
	cuts := []cut{{slabRows + 5, roundOnce + 3, 33, 1}}
	for _, m := range []int{0, 1, 3, 4, 13, 130} {
		for _, n := range []int{0, 1, 33, 440} {
			for _, k := range []int{0, 1, 31, 1057, 1100} {
				cuts = append(cuts, cut{m, n, k, 64 << 20})
			}
		}
	}
	eachProductLevel(t, func(t *testing.T) {
		for _, s := range cuts {
			maxRounded = s.maxRounded
			// gather runs a pair and returns u and v, each 1000 higher for every
			// time that it came.
			gather := func(run func(f PairFunc)) (u, v []float32) {
				u, v = make([]float32, s.m*s.n), make([]float32, s.m*s.n)
				seen := make([]int, s.m*s.n)
				var mu sync.Mutex
				run(func(t, o int, pu, pv []float32) {
					mu.Lock()
					defer mu.Unlock()
					for i := range pu {
						at := t*s.n + o + i
						u[at], v[at] = pu[i], pv[i]
						pu[i], pv[i] = nan, nan
						seen[at]++
					}
				})
				if i := slices.IndexFunc(seen, func(n int) bool { return n != 1 }); i >= 0 {
					t.Fatalf("%+v: element %d came %d times", s, i, seen[i])
				}
				return u, v
			}
			check := func(name string, b, c Source, f func([]float32, int, []float32, int, Source, int, int, int, int), run func(f PairFunc)) {
				t.Helper()
				wantU, wantV := make([]float32, s.m*s.n), make([]float32, s.m*s.n)
				f(wantU, s.n, x.F32, ld, b, ld, s.m, s.n, s.k)
				f(wantV, s.n, x.F32, ld, c, ld, s.m, s.n, s.k)
				u, v := gather(run)
				if !slices.EqualFunc(u, wantU, sameFloat) || !slices.EqualFunc(v, wantV, sameFloat) {
					t.Fatalf("%s: %+v: not the same", name, s)
				}
			}
			if s.n <= 440 {
				check("MatMulTPair", f32, c, MatMulT, func(f PairFunc) { MatMulTPair(x.F32, ld, f32, c, ld, s.m, s.n, s.k, f) })
			}
			check("MatMulTPairBF16", b, c, MatMulTBF16, func(f PairFunc) { MatMulTPairBF16(x.F32, ld, b, c, ld, s.m, s.n, s.k, f) })
			if size := RoundedSize(s.m, s.k); size > 0 {
				r := NewRounded(make([]float32, size), s.m, s.k)
				for i := range s.m {
					r.Store(i, 0, x.F32[i*ld:][:s.k])
				}
				check("Rounded.MatMulTPair", b, c, MatMulTBF16, func(f PairFunc) { r.MatMulTPair(b, c, ld, s.n, f) })
			}
		}
	})
}
