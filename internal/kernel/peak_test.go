package kernel

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/parallel"
)

// Every multiplication that MulAdds counts is done: each adds 1.
func TestMulAddsDoesWhatItCounts(t *testing.T) {
	eachProductLevel(t, func(t *testing.T) {
		for _, bfloat := range []bool{false, true} {
			if bfloat && !cpu.AVX512BF16 {
				continue
			}
			for _, steps := range []int{1, 2, 3, 100, 1001} {
				flops, sum := MulAdds(steps, bfloat)
				if flops < 16 || float64(sum) != flops/2 {
					t.Errorf("MulAdds(%d, %v) = %v operations, sum %v, want half", steps, bfloat, flops, sum)
				}
			}
		}
	})
}

func TestReadAllEqualsReference(t *testing.T) {
	sweepProducts(t, func(t *testing.T, rng *rand.Rand, n, offset int) {
		values := make([]float32, n)
		var want uint32
		for i := range values {
			bits := rng.Uint32()
			values[i] = math.Float32frombits(bits)
			want ^= bits
		}
		x := place32(offset, values)
		if got := ReadAll(x.values); got != want {
			t.Errorf("%#x, want %#x", got, want)
		}
		intact(t, "x", x.same())
	})
}

// BenchmarkPeak is what all cores together can do at best.
func BenchmarkPeak(b *testing.B) {
	const tasks = 16
	peak := func(bfloat bool) func(b *testing.B) {
		return func(b *testing.B) {
			if bfloat && !cpu.AVX512BF16 {
				b.Skip("no AVX512_BF16")
			}
			var flops float64
			for b.Loop() {
				parallel.For(tasks, 1, func(int, int) { MulAdds(1<<18, bfloat) })
				f, _ := MulAdds(1, bfloat)
				flops = f * tasks * (1 << 18)
			}
			reportFlops(b, flops)
		}
	}
	b.Run("f32", func(b *testing.B) { eachBenchLevel(b, peak(false)) })
	b.Run("bf16", func(b *testing.B) { eachBenchLevel(b, peak(true)) })
	b.Run("read", func(b *testing.B) {
		x := make([]float32, 1<<26)
		for i := range x {
			x[i] = float32(i)
		}
		eachBenchLevel(b, func(b *testing.B) {
			b.SetBytes(int64(4 * len(x)))
			for b.Loop() {
				parallel.For(len(x), 1<<16, func(lo, hi int) { ReadAll(x[lo:hi]) })
			}
		})
	})
}
