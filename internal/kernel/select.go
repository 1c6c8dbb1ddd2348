package kernel

import "fmt"

// AtLeast sets one bit for each element:
//
//	bit j%64 of dst[j/64] = (x[j] ≥ t)
//
// and returns how many it set. −0 counts as 0. No x is NaN, t is not.
// len(dst) == ⌈len(x)/64⌉; bits past the end are 0.
func AtLeast(dst []uint64, x []float32, t float32) int {
	checkLen("AtLeast", "dst", len(dst), (len(x)+63)/64)
	count, n := atLeastBlocks(dst, x, t)
	return count + atLeastGeneric(dst[n/64:], x[n:], t)
}

// CountBelow returns how many x[j] < t. No x is NaN, t is not.
func CountBelow(x []float32, t float32) int {
	count, n := countBelowBlocks(x, t)
	return count + countBelowGeneric(x[n:], t)
}

// MaxBits returns the greatest bit pattern of x, as an unsigned integer: above
// InfBits−1 if some x is NaN, infinite or has its sign bit set. 0 if x is empty.
func MaxBits(x []float32) uint32 {
	top, n := maxBitsBlocks(x)
	return max(top, maxBitsGeneric(x[n:]))
}

// KeepBest sets one bit for each element that is kept of its group of m
// consecutive elements, which are not negative (−0 counts as 0) nor NaN: the
// keep largest, and of equal ones those with the higher index. len(x) is a
// multiple of m; len(dst) == ⌈len(x)/64⌉; bits past the end are 0.
func KeepBest(dst []uint64, x []float32, keep, m int) {
	if keep < 0 || m < 1 || keep > m || len(x)%m != 0 {
		panic(fmt.Sprintf("kernel: KeepBest: %d of %d of %d elements", keep, m, len(x)))
	}
	checkLen("KeepBest", "dst", len(dst), (len(x)+63)/64)
	n := keepBestBlocks(dst, x, keep, m)
	keepBestGeneric(dst[n/64:], x[n:], keep, m)
}

// ZeroUnset16 is
//
//	for j := range x { if bit j%64 of bits[j/64] is 0 { x[j] = 0 } }
//
// len(bits) == ⌈len(x)/64⌉.
func ZeroUnset16(x []uint16, bits []uint64) {
	checkLen("ZeroUnset16", "bits", len(bits), (len(x)+63)/64)
	n := zeroUnset16Blocks(x, bits)
	zeroUnsetGeneric(x[n:], bits[n/64:])
}

// ZeroUnset32 is ZeroUnset16 for float32.
func ZeroUnset32(x []float32, bits []uint64) {
	checkLen("ZeroUnset32", "bits", len(bits), (len(x)+63)/64)
	n := zeroUnset32Blocks(x, bits)
	zeroUnsetGeneric(x[n:], bits[n/64:])
}
