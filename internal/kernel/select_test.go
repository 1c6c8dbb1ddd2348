package kernel

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// fewScores returns n scores with many ties; some zeros are negative.
func fewScores(rng *rand.Rand, n int) []float32 {
	s := make([]float32, n)
	for i := range s {
		s[i] = float32(rng.IntN(6)) / 4
		if s[i] == 0 && rng.IntN(2) == 0 {
			s[i] = float32(math.Copysign(0, -1))
		}
	}
	return s
}

func TestAtLeastAndCountBelow(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x := place32(offset, fewScores(rng, n))
		for _, limit := range []float32{0, 0.5, 0.6, 1.25, 2} {
			bits := place(1, make([]uint64, (n+63)/64), 0x5555)
			for i := range bits.values {
				bits.values[i] = rng.Uint64()
			}
			want, below := make([]uint64, (n+63)/64), 0
			for j, v := range x.values {
				if v >= limit {
					want[j/64] |= 1 << (j % 64)
				} else {
					below++
				}
			}
			if got := AtLeast(bits.values, x.values, limit); got != n-below {
				t.Errorf("AtLeast %g: %d, want %d", limit, got, n-below)
			}
			if got := CountBelow(x.values, limit); got != below {
				t.Errorf("CountBelow %g: %d, want %d", limit, got, below)
			}
			if !slices.Equal(bits.values, want) {
				t.Errorf("AtLeast %g: bits %x, want %x", limit, bits.values, want)
			}
			if !bits.guarded() || !x.same() {
				t.Error("wrote outside dst")
			}
		}
	})
}

func TestMaxBits(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		x := place32(offset, normal(rng, n))
		want := uint32(0)
		for _, v := range x.values {
			want = max(want, math.Float32bits(v))
		}
		if got := MaxBits(x.values); got != want {
			t.Errorf("%#x, want %#x", got, want)
		}
		intact(t, "x", x.same())
		absGeneric(x.values, x.values)
		if n > 0 {
			x.values[rng.IntN(n)] = float32(math.Inf(1))
			if got := MaxBits(x.values); got != InfBits {
				t.Errorf("%#x with +Inf", got)
			}
		}
	})
}

// TestKeepBest sorts each group.
func TestKeepBest(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		for _, m := range []int{1, 2, 3, 4, 7, 8, 16, 100} {
			x := place32(offset, fewScores(rng, n/m*m))
			for keep := 0; keep <= m; keep += 1 + m/4 {
				checkKeepBest(t, x, keep, m)
			}
		}
	})
}

func checkKeepBest(t *testing.T, x field[float32], keep, m int) {
	t.Helper()
	words := (len(x.values) + 63) / 64
	bits, want := place(1, make([]uint64, words), 0x5555), make([]uint64, words)
	at := make([]int, m)
	for g := 0; g < len(x.values); g += m {
		for i := range at {
			at[i] = g + i
		}
		slices.SortStableFunc(at, func(a, b int) int { return cmp.Compare(x.values[a], x.values[b]) })
		for _, j := range at[m-keep:] {
			want[j/64] |= 1 << (j % 64)
		}
	}
	KeepBest(bits.values, x.values, keep, m)
	if !slices.Equal(bits.values, want) {
		t.Errorf("%d:%d, %d groups: %x, want %x", keep, m, len(x.values)/m, bits.values, want)
	}
	intact(t, "KeepBest", bits.guarded() && x.same())
}

func TestZeroUnset(t *testing.T) {
	sweep(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		bits := place(offset, make([]uint64, (n+63)/64), 0)
		for i := range bits.values {
			bits.values[i] = rng.Uint64()
		}
		set := slices.Clone(bits.values)
		x16, x32 := place(offset, words(rng, n), uint16(0x5555)), place32(offset, special32(rng, n))
		ZeroUnset16(x16.values, bits.values)
		ZeroUnset32(x32.values, bits.values)
		for j := range n {
			want16, want32 := x16.wasValues()[j], x32.wasValues()[j]
			if set[j/64]>>(j%64)&1 == 0 {
				want16, want32 = 0, 0
			}
			if x16.values[j] != want16 || math.Float32bits(x32.values[j]) != math.Float32bits(want32) {
				t.Errorf("[%d]: %#x, %g, want %#x, %g", j, x16.values[j], x32.values[j], want16, want32)
			}
		}
		if !x16.guarded() || !x32.guarded() {
			t.Error("wrote outside x")
		}
		intact(t, "bits", bits.guarded() && slices.Equal(bits.values, set))
	})
}

// FuzzKeepBest compares the assembly with the Go code on any bits that are scores.
func FuzzKeepBest(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef"), uint8(4), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, m, keep uint8) {
		width := []int{1, 2, 3, 4, 8}[m%5]
		x := make([]float32, len(data)*64/width*width)
		for i := range x {
			x[i] = float32(data[i%len(data)]^byte(i>>6)) / 8
		}
		k := int(keep) % (width + 1)
		got, want := make([]uint64, (len(x)+63)/64), make([]uint64, (len(x)+63)/64)
		KeepBest(got, x, k, width)
		keepBestGeneric(want, x, k, width)
		if !slices.Equal(got, want) {
			t.Fatalf("%d:%d: %x, want %x", k, width, got, want)
		}
	})
}
