package kernel

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"unsafe"
)

func sameFloat(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

// testSource returns n values of one type and what they are as float64.
func testSource(rng *rand.Rand, kind string, n int) (Source, []float64) {
	wide := make([]float64, n)
	var s Source
	switch kind {
	case "f32":
		s.F32 = make([]float32, n)
		for i := range wide {
			s.F32[i] = float32(rng.NormFloat64())
			wide[i] = float64(s.F32[i])
		}
	case "bf16":
		s.BF16 = make([]uint16, n)
		for i := range wide {
			s.BF16[i] = uint16(math.Float32bits(float32(rng.NormFloat64())) >> 16)
			wide[i] = float64(math.Float32frombits(uint32(s.BF16[i]) << 16))
		}
	case "f16":
		s.F16 = make([]uint16, n)
		for i := range wide {
			// ±(1 + m/1024)·2^e with e in -3…0: exponent field 12…15.
			m, e, sign := rng.IntN(1024), rng.IntN(4), rng.IntN(2)
			s.F16[i] = uint16(sign<<15 | (12+e)<<10 | m)
			wide[i] = float64(1-2*sign) * math.Ldexp(1+float64(m)/1024, e-3)
		}
	}
	return s, wide
}

// roundedBF16 is x rounded to bfloat16, to nearest even.
func roundedBF16(x float32) float32 {
	b := math.Float32bits(x)
	b += 0x7fff + b>>16&1
	return math.Float32frombits(b &^ 0xffff)
}

type productCase struct{ m, n, k, padD, padX, padB int }

// productCases has every size up to 130 and primes beyond in each place.
func productCases() []productCase {
	sizes := []int{257, 389, 509, 1021}
	for s := range 131 {
		sizes = append(sizes, s)
	}
	var all []productCase
	for _, s := range sizes {
		all = append(all,
			productCase{s, 37, 19, s % 5, s % 3, s % 7},
			productCase{13, s, 35, s % 3, s % 7, s % 5},
			productCase{14, 33, s, s % 7, s % 5, s % 3},
			productCase{s % 10, 21, s, s % 2, s % 3, s % 5})
	}
	return append(all, productCase{101, 397, 391, 3, 5, 1}, productCase{64, 128, 1600, 0, 0, 0},
		productCase{19, roundOnce + 5, 901, 3, 1, 2})
}

func TestMatMulTEqualsReference(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		for _, kind := range []string{"f32", "bf16", "f16"} {
			for i, c := range productCases() {
				checkProductCase(t, MatMulT, kind, false, c, i)
			}
		}
		for i, c := range productCases() {
			checkProductCase(t, MatMulTBF16, "bf16", true, c, i)
		}
	})
}

func checkProductCase(t *testing.T, f func([]float32, int, []float32, int, Source, int, int, int, int),
	kind string, round bool, c productCase, seed int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, uint64(seed)))
	ldd, ldx, ldb := c.n+c.padD, c.k+c.padX, c.k+c.padB
	off := seed % 8
	values, _ := testSource(rng, "f32", c.m*ldx)
	weights, wide := testSource(rng, kind, c.n*ldb)
	padNaN(values.F32, nan, ldx, c.k)
	padNaN(weights.F32, nan, ldb, c.k)
	padNaN(weights.BF16, bf16NaN, ldb, c.k)
	padNaN(weights.F16, f16NaN, ldb, c.k)
	placed := place32(off, values.F32)
	x := placed.values
	b, same := placeSource(7-off, weights)
	out := place32(off, make([]float32, c.m*ldd))
	dst := out.values
	for i := range dst {
		dst[i] = nan
	}
	f(dst, ldd, x, ldx, b, ldb, c.m, c.n, c.k)
	if !out.guarded() {
		t.Fatalf("%s %+v: wrote outside dst", kind, c)
	}
	if !placed.same() || !same() {
		t.Fatalf("%s %+v: an operand was changed", kind, c)
	}
	for i := range c.m {
		for j := range ldd {
			got := dst[i*ldd+j]
			if j >= c.n {
				if !sameFloat(got, nan) {
					t.Fatalf("%s %+v: padding (%d, %d) overwritten with %g", kind, c, i, j, got)
				}
				continue
			}
			var want, abs float64
			for l := range c.k {
				xv := x[i*ldx+l]
				if round {
					xv = roundedBF16(xv)
				}
				p := float64(xv) * wide[j*ldb+l]
				want += p
				abs += math.Abs(p)
			}
			// Higham 2002, §3.1; each bfloat16 pair may round twice.
			tol := float64(c.k) * abs / (1 << 24)
			if round {
				tol *= 2
			}
			if !(math.Abs(float64(got)-want) <= tol) {
				t.Fatalf("%s %+v: (%d, %d) = %g, want %g ± %g", kind, c, i, j, got, want, tol)
			}
		}
	}
}

// padNaN sets what lies after the first k of each ld elements.
func padNaN[T any](s []T, nan T, ld, k int) {
	for i := range s {
		if i%ld >= k {
			s[i] = nan
		}
	}
}

func TestMatMulTDoesNotDependOnWorkers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	eachProductLevel(t, func(t *testing.T) {
		for _, c := range []productCase{{m: 3, n: 500, k: 800}, {m: 130, n: 500, k: 800}, {m: 700, n: 97, k: 401}} {
			rng := rand.New(rand.NewPCG(2, 0))
			x, _ := testSource(rng, "f32", c.m*c.k)
			b, _ := testSource(rng, "bf16", c.n*c.k)
			var first [2][]float32
			for _, workers := range []int{1, 2, 3, 8} {
				runtime.GOMAXPROCS(workers)
				for i, f := range []func([]float32, int, []float32, int, Source, int, int, int, int){MatMulT, MatMulTBF16} {
					got := make([]float32, c.m*c.n)
					f(got, c.n, x.F32, c.k, b, c.k, c.m, c.n, c.k)
					if first[i] == nil {
						first[i] = got
					} else if !slices.EqualFunc(got, first[i], sameFloat) {
						t.Errorf("%+v: %d workers change the result", c, workers)
					}
				}
			}
		}
	})
}

// Tasks cover dst once, begin at whole micro-tiles, fit the pack buffer and share
// a packed block for as many rows as pay, unless x has fewer.
func TestTasksCoverProductOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for _, tile := range []*tile{&genericTile, bfloatTile()} {
		for _, workers := range []int{1, 2, 3, 64} {
			runtime.GOMAXPROCS(workers)
			for _, m := range []int{5, 95, 96, 107, 700, 2048, 2049, 5000} {
				for _, n := range []int{1, 33, 383, 385, 3000} {
					p := product{m: m, n: n}
					rows := make([]int, n) // that each column's tasks have so far
					for _, a := range p.tasks(tile) {
						if a.i0%tile.rows != 0 || a.j0%tile.cols != 0 || a.j1-a.j0 > blockN || a.j1 > n ||
							a.i1-a.i0 < min(minTaskRows-tile.rows, m) || a.i1-a.i0 > taskRows+minTaskRows {
							t.Fatalf("%d × %d, %d workers: task %+v", m, n, workers, a)
						}
						for j := a.j0; j < a.j1; j++ {
							if rows[j] != a.i0 {
								t.Fatalf("%d × %d, %d workers: task %+v, want its column %d from row %d on", m, n, workers, a, j, rows[j])
							}
							rows[j] = a.i1
						}
					}
					if slices.Min(rows) != m || slices.Max(rows) != m {
						t.Fatalf("%d × %d, %d workers: tasks end between row %d and %d", m, n, workers, slices.Min(rows), slices.Max(rows))
					}
				}
			}
		}
	}
}

// Results written past the caches are the same, wherever dst lies.
func TestMatMulTStreams(t *testing.T) {
	defer func(was int) { streamBytes = was }(streamBytes)
	const m, n, k = 130, 500, 800
	rng := rand.New(rand.NewPCG(7, 0))
	x, _ := testSource(rng, "f32", m*k)
	b, _ := testSource(rng, "bf16", n*k)
	eachProductLevel(t, func(t *testing.T) {
		for _, f := range []func([]float32, int, []float32, int, Source, int, int, int, int){MatMulT, MatMulTBF16} {
			for _, place := range []struct{ offset, ldd int }{{0, 512}, {1, 512}, {0, 501}} {
				var got [2][]float32
				for i, bytes := range []int{math.MaxInt, 0} {
					streamBytes = bytes
					dst := make([]float32, m*place.ldd+2*streamAlign)
					got[i] = dst[aligned(dst)+place.offset:][:m*place.ldd]
					f(got[i], place.ldd, x.F32, k, b, k, m, n, k)
				}
				if !slices.EqualFunc(got[0], got[1], sameFloat) {
					t.Errorf("%+v: streaming changes the result", place)
				}
			}
		}
		dst := make([]float32, m*512+streamAlign)
		p := product{dst: dst[aligned(dst):], ldd: 512, m: m, n: n}
		if tile := floatTile(); p.streams(tile) != (tile.stream != nil) {
			t.Errorf("streams is %v for an aligned result", p.streams(tile))
		}
	})
}

// aligned returns the first index of s at a line of the caches.
func aligned(s []float32) int {
	i := 0
	for uintptr(unsafe.Pointer(&s[i]))%(4*streamAlign) != 0 {
		i++
	}
	return i
}

// Rounding x in slabs of rows changes nothing.
func TestMatMulTBF16InSlabs(t *testing.T) {
	defer func(was int) { maxRounded = was }(maxRounded)
	const m, n, k = 2*slabRows + 7, roundOnce, 33
	rng := rand.New(rand.NewPCG(3, 0))
	x, _ := testSource(rng, "f32", m*k)
	b, _ := testSource(rng, "bf16", n*k)
	eachProductLevel(t, func(t *testing.T) {
		var got [2][]float32
		for i, bytes := range []int{64 << 20, 1} {
			maxRounded = bytes
			got[i] = make([]float32, m*n)
			MatMulTBF16(got[i], n, x.F32, k, b, k, m, n, k)
		}
		if !slices.EqualFunc(got[0], got[1], sameFloat) {
			t.Error("slabs change the result")
		}
	})
}

func TestMatMulTPropagatesNaNAndInf(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		for _, m := range []int{2, 20} {
			const n, k = 40, 50
			x := make([]float32, m*k)
			b := make([]float32, n*k)
			b[7*k+3] = float32(math.Inf(1)) // meets a zero of x
			dst := make([]float32, m*n)
			MatMulT(dst, n, x, k, Source{F32: b}, k, m, n, k)
			for i, v := range dst {
				if got, want := v != v, i%n == 7; got != want || (!want && v != 0) {
					t.Fatalf("m=%d: (%d, %d) = %g, want NaN: %v", m, i/n, i%n, v, want)
				}
			}
		}
	})
}

func TestMatMulTPanicsOnShortOperands(t *testing.T) {
	ok := Source{F32: make([]float32, 12)}
	for name, f := range map[string]func(){
		"dst":      func() { MatMulT(make([]float32, 5), 3, make([]float32, 8), 4, ok, 4, 2, 3, 4) },
		"x":        func() { MatMulT(make([]float32, 6), 3, make([]float32, 7), 4, ok, 4, 2, 3, 4) },
		"b":        func() { MatMulT(make([]float32, 8), 4, make([]float32, 8), 4, ok, 4, 2, 4, 4) },
		"ldd":      func() { MatMulT(make([]float32, 6), 2, make([]float32, 8), 4, ok, 4, 2, 3, 4) },
		"negative": func() { MatMulT(nil, 0, nil, 0, ok, 4, -1, 3, 4) },
		"not bf16": func() { MatMulTBF16(make([]float32, 6), 3, make([]float32, 8), 4, ok, 4, 2, 3, 4) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f()
		})
	}
}
