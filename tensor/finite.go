package tensor

import (
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/crepe-llm/crepe/internal/parallel"
)

// FirstNonFinite returns the index of the first NaN or infinity in row-major
// order, −1 if there is none. All three types have one when every bit of the exponent is set.
func (w *Weight) FirstNonFinite() int {
	const grain = 1 << 18
	var first atomic.Int64
	first.Store(math.MaxInt64)
	parallel.For(w.Rows*w.Cols, grain, func(lo, hi int) {
		i := -1
		switch w.DType {
		case F32:
			i = nonFinite32(w.w32[lo:hi])
		case BF16:
			i = nonFinite16(w.w16[lo:hi], 0x7f80)
		default:
			i = nonFinite16(w.w16[lo:hi], 0x7c00)
		}
		if i < 0 {
			return
		}
		at := int64(lo + i)
		for old := first.Load(); at < old && !first.CompareAndSwap(old, at); old = first.Load() {
		}
	})
	if at := first.Load(); at != math.MaxInt64 {
		return int(at)
	}
	return -1
}

func nonFinite32(x []float32) int {
	const exponent = 0x7f800000
	for i, v := range x {
		if math.Float32bits(v)&exponent == exponent {
			return i
		}
	}
	return -1
}

func nonFinite16(x []uint16, exponent uint16) int {
	const run = 64
	i := 0
	for ; i+run <= len(x) && finite16((*[run / 4]uint64)(unsafe.Pointer(&x[i])), exponent); i += run {
	}
	for ; i < len(x); i++ {
		if x[i]&exponent == exponent {
			return i
		}
	}
	return -1
}

// finite16 reports whether no element of x, four in each, has every bit of the
// exponent set. Only then does its lowest bit, added, carry into the sign's.
func finite16(x *[16]uint64, exponent uint16) bool {
	const lanes = 0x0001000100010001
	mask := uint64(exponent) * lanes
	one := mask &^ (mask << 1)
	carried := uint64(0)
	for _, v := range x {
		carried |= v&mask + one
	}
	return carried&(0x8000*lanes) == 0
}
