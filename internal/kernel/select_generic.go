package kernel

import "math"

func atLeastGeneric(dst []uint64, x []float32, t float32) (count int) {
	clear(dst)
	for j, v := range x {
		if v >= t {
			dst[j/64] |= 1 << (j % 64)
			count++
		}
	}
	return count
}

func countBelowGeneric(x []float32, t float32) int {
	count := 0
	for _, v := range x {
		if v < t {
			count++
		}
	}
	return count
}

func maxBitsGeneric(x []float32) uint32 {
	top := uint32(0)
	for _, v := range x {
		top = max(top, math.Float32bits(v))
	}
	return top
}

// keepBestGeneric counts, for each element, those of its group that go before it.
func keepBestGeneric(dst []uint64, x []float32, keep, m int) {
	clear(dst)
	for lo := 0; lo < len(x); lo += m {
		group := x[lo : lo+m]
		for a, v := range group {
			rank := 0
			for b, u := range group {
				if u < v || u == v && b < a {
					rank++
				}
			}
			if rank >= m-keep {
				dst[(lo+a)/64] |= 1 << ((lo + a) % 64)
			}
		}
	}
}

func zeroUnsetGeneric[T uint16 | float32](x []T, bits []uint64) {
	for j := range x {
		if bits[j/64]>>(j%64)&1 == 0 {
			x[j] = 0
		}
	}
}
