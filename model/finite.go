package model

import (
	"fmt"
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// readWeight reads t into w and refuses NaN and infinities: a NaN would spread
// over every hidden state and score.
func readWeight(inv *checkpoint.Inventory, t checkpoint.Tensor, w *tensor.Weight) error {
	if err := inv.Read(t, w.Bytes()); err != nil {
		return err
	}
	return checkFinite(t, w, 0)
}

// checkFinite refuses NaN and infinities in w, the rows of t from first on.
func checkFinite(t checkpoint.Tensor, w *tensor.Weight, first int) error {
	i := firstNonFinite(w.Source())
	if i < 0 {
		return nil
	}
	row, col := i/w.Cols, i%w.Cols
	return fmt.Errorf("%s: tensor %s: element [%d %d] is %v, want a finite number",
		t.File, t.Name, first+row, col, w.At(row, col))
}

// firstNonFinite returns the index of the first NaN or infinity in s, −1 if
// there is none. All three types have one when every bit of the exponent is set.
func firstNonFinite(s kernel.Source) int {
	const grain = 1 << 18
	var first atomic.Int64
	first.Store(math.MaxInt64)
	parallel.For(max(len(s.F32), len(s.BF16), len(s.F16)), grain, func(lo, hi int) {
		i := -1
		switch {
		case s.F32 != nil:
			i = nonFinite32(s.F32[lo:hi])
		case s.BF16 != nil:
			i = nonFinite16(s.BF16[lo:hi], 0x7f80)
		default:
			i = nonFinite16(s.F16[lo:hi], 0x7c00)
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
