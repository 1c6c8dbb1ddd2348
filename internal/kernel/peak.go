package kernel

import "github.com/crepe-llm/crepe/internal/cpu"

// The two loops that crepe bench holds the kernels against: the most that one
// core can multiply, and the most that it can read.

// MulAdds runs a loop of nothing but independent multiply-adds on one core,
// each of 1 and 1, and returns the number of floating-point operations, two
// each, and the sum, which is half of it and exact up to 2²⁴. bfloat chooses
// VDPBF16PS; it panics where that is not (cpu.AVX512BF16). steps ≥ 1.
func MulAdds(steps int, bfloat bool) (flops float64, sum float32) {
	if steps < 1 || bfloat && !cpu.AVX512BF16 {
		panic("kernel: MulAdds: no steps, or no AVX512_BF16")
	}
	perStep, sum := mulAdds(steps, bfloat)
	return float64(perStep) * float64(steps), sum
}

// ReadAll is
//
//	for _, v := range x { sum ^= float32bits(v) }
//
// the cheapest that needs every byte: it measures how fast memory is read.
func ReadAll(x []float32) (sum uint32) {
	sum, n := readAllBlocks(x)
	return sum ^ readAllGeneric(x[n:])
}
