package kernel

import (
	"fmt"
	"math"
)

// WidenBF16 is
//
//	for i, v := range src { dst[i] = float32frombits(v << 16) }
//
// Exact; a NaN keeps its bits. len(dst) == len(src).
func WidenBF16(dst []float32, src []uint16) {
	checkLen("WidenBF16", "dst", len(dst), len(src))
	n := widenBF16Blocks(dst, src)
	widenBF16Generic(dst[n:], src[n:])
}

// WidenF16 is
//
//	for i, v := range src { dst[i] = float32(v as IEEE binary16) }
//
// Exact, subnormals too; a NaN keeps sign and payload and becomes quiet.
// len(dst) == len(src).
func WidenF16(dst []float32, src []uint16) {
	checkLen("WidenF16", "dst", len(dst), len(src))
	n := widenF16Blocks(dst, src)
	widenF16Generic(dst[n:], src[n:])
}

// NarrowBF16 is
//
//	for i, v := range src { dst[i] = bfloat16(v) }
//
// rounding to nearest, ties to even: what lies beyond the largest bfloat16 by
// half its last place or more becomes infinite, and subnormals are kept. A NaN
// keeps sign and upper payload and becomes quiet. len(dst) == len(src).
func NarrowBF16(dst []uint16, src []float32) {
	checkLen("NarrowBF16", "dst", len(dst), len(src))
	n := narrowBF16Blocks(dst, src)
	narrowBF16Generic(dst[n:], src[n:])
}

// AddSquares is
//
//	for j, v := range x { acc[j] += float64(v) * float64(v) }
//
// The square of a float32 is exact in float64, so each element is rounded once
// and the result is the same on every processor. No finite x overflows. NaN
// and Inf stay in acc. len(acc) == len(x).
func AddSquares(acc []float64, x []float32) {
	checkLen("AddSquares", "acc", len(acc), len(x))
	n := addSquaresBlocks(acc, x)
	addSquaresGeneric(acc[n:], x[n:])
}

// Add is
//
//	for i, v := range x { dst[i] += v }
//
// len(dst) == len(x); dst may be x.
func Add(dst, x []float32) {
	checkLen("Add", "dst", len(dst), len(x))
	n := addBlocks(dst, x)
	addGeneric(dst[n:], x[n:])
}

// RMSNorm normalises one row by its root mean square:
//
//	dst[i] = x[i] · r · w[i],   r = 1/sqrt(Σ x[j]²/n + eps)
//
// The squares are exact and summed in float64 in unspecified order, so r is off
// by its rounding to float32, and dst[i] by three roundings: relative error at
// most 3·2⁻²⁴ + n·2⁻⁵³ where nothing is subnormal. No finite x overflows in r.
// A NaN in x makes the whole row NaN; an Inf makes itself NaN and the rest 0.
// All three have length n > 0 or are empty; dst may be x.
//
// Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4, with eps as in Llama.
func RMSNorm(dst, x, w []float32, eps float32) {
	checkLen("RMSNorm", "dst", len(dst), len(x))
	checkLen("RMSNorm", "w", len(w), len(x))
	if len(x) == 0 {
		return
	}
	scaleMul(dst, x, w, inverseRMS(x, eps))
}

// inverseRMS returns what RMSNorm multiplies x and w with.
func inverseRMS(x []float32, eps float32) float32 {
	sum, n := sumSquaresBlocks(x)
	sum += sumSquaresGeneric(x[n:])
	return float32(1 / math.Sqrt(sum/float64(len(x))+float64(eps)))
}

// scaleMul is dst[i] = x[i]·r·w[i].
func scaleMul(dst, x, w []float32, r float32) {
	n := scaleMulBlocks(dst, x, w, r)
	scaleMulGeneric(dst[n:], x[n:], w[n:], r)
}

// SiluMul is the gate of a Llama MLP:
//
//	dst[i] = silu(gate[i]) · up[i],   silu(g) = g/(1 + exp(-g))
//
// Relative error at most 3·2⁻²³; where something is subnormal, plus an absolute
// 2⁻¹⁴⁹·(1 + min(|g|, 200))·(1 + |up|). silu(+Inf) is +Inf; silu(−Inf) and
// silu(NaN) are NaN, and so is the product of an infinite up and a silu that
// rounds to 0.
// All three have one length; dst may be gate or up.
func SiluMul(dst, gate, up []float32) {
	checkLen("SiluMul", "dst", len(dst), len(gate))
	checkLen("SiluMul", "up", len(up), len(gate))
	n := siluMulBlocks(dst, gate, up)
	siluMulGeneric(dst[n:], gate[n:], up[n:])
}

// Rope turns the heads of one token to its position, in place. In each head's
// first rot dimensions, with half = rot/2 and i < half,
//
//	x[i], x[i+half] = x[i]·cos[i] − x[i+half]·sin[i], x[i+half]·cos[i] + x[i]·sin[i]
//
// Each product and sum is rounded by itself, so the result is the same on every
// processor. len(x) == heads·headDim; rot is even and at most headDim;
// len(cos) == len(sin) == half.
//
// Su et al. 2021, arXiv:2104.09864, eq. 34, in the pairing of Hugging Face
// ("rotate half"), not of neighbours as in the paper.
func Rope(x, cos, sin []float32, heads, headDim, rot int) {
	checkLen("Rope", "x", len(x), heads*headDim)
	if rot < 0 || rot > headDim || rot%2 != 0 {
		panic(fmt.Sprintf("kernel: Rope: rot = %d, want an even number from 0 to %d", rot, headDim))
	}
	half := rot / 2
	checkLen("Rope", "cos", len(cos), half)
	checkLen("Rope", "sin", len(sin), half)
	for h := range heads {
		a := x[h*headDim:][:half]
		b := x[h*headDim+half:][:half]
		n := ropeBlocks(a, b, cos, sin)
		ropeGeneric(a[n:], b[n:], cos[n:], sin[n:])
	}
}

// MaxSumExp returns what log-softmax needs of a row of logits:
//
//	max = max_i x[i],   sum = Σ exp(x[i] − max)
//
// so that log Σ exp(x[i]) = max + log(sum). Differences and exponentials are
// float32, the sum is float64 in unspecified order. A term exp(−d) is off by at
// most (2 + d)·2⁻²⁴ of itself, or 2⁻¹⁴⁹. The mean of d over the terms, each
// weighing exp(−d), is at most log n, so sum is off by (2 + log n)·2⁻²⁴ of itself.
//
// −Inf among others adds nothing. If x holds NaN or +Inf, or nothing but −Inf,
// sum is NaN (and max unspecified if there is a NaN). Empty: −Inf, 0.
func MaxSumExp(x []float32) (max float32, sum float64) {
	max, n := maxBlocks(x)
	max = maxGeneric(max, x[n:])
	sum, n = sumExpBlocks(x, max)
	return max, sum + sumExpGeneric(x[n:], max)
}

func checkLen(fn, name string, got, want int) {
	if got != want {
		panic(fmt.Sprintf("kernel: %s: len(%s) = %d, want %d", fn, name, got, want))
	}
}
