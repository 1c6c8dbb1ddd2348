package kernel

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/crepe-llm/crepe/internal/cpu"
)

// Every kernel is tested at each level, at lengths 0 to 130 and some primes, with
// operands at any offset, between guards that nothing may write and whose NaN
// shows in the result if something reads them; inputs keep their bits.

// field is a slice to test on: it lies at any offset in a larger one, between
// guards, and knows what it was.
type field[T any] struct {
	values, whole, was []T
}

const guardElements = 32 // longer than any vector

func place[T any](offset int, values []T, guard T) field[T] {
	whole := make([]T, offset+len(values)+2*guardElements)
	for i := range whole {
		whole[i] = guard
	}
	lo, hi := offset+guardElements, offset+guardElements+len(values)
	f := field[T]{values: whole[lo:hi:hi], whole: whole}
	copy(f.values, values)
	f.was = append(f.was, whole...)
	return f
}

func place32(offset int, values []float32) field[float32] {
	return place(offset, values, float32(math.NaN()))
}

func (f field[T]) lo() int { return len(f.whole) - guardElements - len(f.values) }

// guarded reports whether all but the values is what it was.
func (f field[T]) guarded() bool {
	lo, hi := f.lo(), f.lo()+len(f.values)
	return bytes.Equal(rawBytes(f.whole[:lo]), rawBytes(f.was[:lo])) &&
		bytes.Equal(rawBytes(f.whole[hi:]), rawBytes(f.was[hi:]))
}

// same reports whether all is what it was.
func (f field[T]) same() bool { return bytes.Equal(rawBytes(f.whole), rawBytes(f.was)) }

func (f field[T]) wasValues() []T { return f.was[f.lo() : f.lo()+len(f.values)] }

func rawBytes[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}

// placeSource is place of what a Source holds. It returns whether all is what it was.
func placeSource(offset int, s Source) (Source, func() bool) {
	switch {
	case s.F32 != nil:
		f := place32(offset, s.F32)
		return Source{F32: f.values}, f.same
	case s.BF16 != nil:
		f := place(offset, s.BF16, bf16NaN)
		return Source{BF16: f.values}, f.same
	}
	f := place(offset, s.F16, f16NaN)
	return Source{F16: f.values}, f.same
}

const (
	bf16NaN = uint16(0x7fc1)
	f16NaN  = uint16(0x7e01)
)

// atEachLevel runs f as a subtest at each level that this processor has.
func atEachLevel(t *testing.T, f func(t *testing.T)) {
	for _, level := range []cpu.Level{cpu.LevelGeneric, cpu.LevelAVX2, cpu.LevelAVX512} {
		t.Run(level.String(), func(t *testing.T) {
			if levels := cpu.Levels(); level > levels[len(levels)-1] {
				t.Skipf("this processor or build has no %s", level)
			}
			defer cpu.Use(level)()
			f(t)
		})
	}
}

// eachProductLevel runs f with every set of instructions that the products
// tell apart and this processor has.
func eachProductLevel(t *testing.T, f func(t *testing.T)) {
	for _, level := range []cpu.Level{cpu.LevelGeneric, cpu.LevelAVX2, cpu.LevelAVX512} {
		t.Run(level.String(), func(t *testing.T) {
			if !slices.Contains(cpu.Levels(), level) {
				t.Skipf("no %s in this processor or build", level)
			}
			defer cpu.Use(level)()
			cpu.AVX512BF16 = false
			f(t)
		})
	}
	t.Run("avx512bf16", func(t *testing.T) {
		if !slices.Contains(cpu.Levels(), cpu.LevelAVX512) {
			t.Skip("no avx512 in this processor or build")
		}
		defer cpu.Use(cpu.LevelAVX512)()
		if !cpu.AVX512BF16 {
			t.Skip("no AVX512_BF16 in this processor")
		}
		f(t)
	})
}

// sweep runs f at each level for lengths 0 to 130 and some primes, at offsets 0 to 7.
func sweep(t *testing.T, f func(t *testing.T, rng *rand.Rand, n, offset int)) {
	atEachLevel(t, func(t *testing.T) { eachSize(t, f) })
}

// sweepProducts is sweep at the levels of the products.
func sweepProducts(t *testing.T, f func(t *testing.T, rng *rand.Rand, n, offset int)) {
	eachProductLevel(t, func(t *testing.T) { eachSize(t, f) })
}

func eachSize(t *testing.T, f func(t *testing.T, rng *rand.Rand, n, offset int)) {
	rng := rand.New(rand.NewPCG(17, 0))
	for n := range 131 + 4 {
		if n > 130 {
			n = []int{251, 509, 1021, 4099}[n-131]
		}
		for offset := range 8 {
			f(t, rng, n, offset)
			if t.Failed() {
				t.Fatalf("n = %d, offset %d", n, offset)
			}
		}
	}
}

func intact(t *testing.T, what string, ok bool) {
	t.Helper()
	if !ok {
		t.Errorf("%s: wrote where nothing was to be written", what)
	}
}
