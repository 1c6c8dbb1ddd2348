package kernel

// SubScaled is
//
//	for i, v := range x { dst[i] -= float32(e * v) }
//
// Product and difference are each rounded by themselves, so the result is the
// same on every processor. len(dst) == len(x); dst must not overlap x.
func SubScaled(dst, x []float32, e float32) {
	checkLen("SubScaled", "dst", len(dst), len(x))
	n := subScaledBlocks(dst, x, e)
	subScaledGeneric(dst[n:], x[n:], e)
}
