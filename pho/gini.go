package pho

import (
	"fmt"
	"math"
	"slices"
)

// Gini returns the Gini coefficient of x, which is not empty, has no NaN,
// infinity or negative element, and is sorted in place:
//
//	G = Σ_i (2i − n − 1)·x_(i) / (n·Σx),   x_(1) ≤ x_(2) ≤ …
//
// 0 if all are 0. Sums are compensated float64.
func Gini(x []float32) float64 {
	slices.Sort(x)
	n := float64(len(x))
	var top, total sum
	for i, v := range x {
		top.add((2*float64(i+1) - n - 1) * float64(v))
		total.add(float64(v))
	}
	return quotient(top.value(), n*total.value())
}

func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// sum is Neumaier's compensated sum.
type sum struct{ s, c float64 }

func (a *sum) add(v float64) {
	t := a.s + v
	if math.Abs(a.s) >= math.Abs(v) {
		a.c += a.s - t + v
	} else {
		a.c += v - t + a.s
	}
	a.s = t
}

func (a *sum) value() float64 { return a.s + a.c }

// The Gini coefficient of millions of scores needs their order only as far as
// it changes the result. A histogram over the leading bits of the float32
// patterns, which order as the numbers do, has the order between bins exactly;
// within a bin of width Δ with m elements
//
//	0 ≤ Σ_r (2r − m − 1)·x_(r) ≤ m²Δ/2
//
// of which it takes Δ(m²−1)/6, the value of evenly spread elements. So the error
// of the numerator is at most Σ m²Δ/3 over the bins with two elements or more.
// Where that is above tolerance, the values are sorted instead.

const (
	lowBits  = 7 // of a pattern, that a bin leaves out
	lowMask  = 1<<lowBits - 1
	bins     = 1 << (31 - lowBits)
	oneCount = 1 << 36 // of a bin: elements above, Σ of their low bits below
	lowSums  = oneCount - 1

	// maxElements keeps a bin's two fields apart: 2²⁸ elements of 127 at most.
	maxElements = 1 << 28

	// tolerance is the largest relative error that the histogram may have.
	tolerance = 1e-9
)

// histogram counts float32 values, not negative and finite. Its sums are of
// integers, so it does not depend on the order of additions.
type histogram struct {
	bin    []uint64
	lo, hi uint32 // bins in use: lo to hi
}

func newHistogram() *histogram { return &histogram{bin: make([]uint64, bins), lo: bins - 1} }

// clear empties h.
func (h *histogram) clear() {
	if h.lo <= h.hi {
		clear(h.bin[h.lo : h.hi+1])
	}
	h.lo, h.hi = bins-1, 0
}

// add counts x. A value that is none of the allowed is reported by its index.
func (h *histogram) add(x []float32) (bad int) {
	lo, hi, bin := h.lo, h.hi, h.bin[:bins]
	for i, v := range x {
		b := math.Float32bits(v)
		if b == 1<<31 {
			b = 0
		}
		if b >= infinity {
			h.lo, h.hi = lo, hi
			return i
		}
		k := b >> lowBits
		lo, hi = min(lo, k), max(hi, k)
		bin[k%bins] += oneCount | uint64(b&lowMask)
	}
	h.lo, h.hi = lo, hi
	return -1
}

const infinity = 0xff << 23

// merge adds g to h and empties g.
func (h *histogram) merge(g *histogram) {
	for k := g.lo; k <= g.hi && k < bins; k++ {
		h.bin[k] += g.bin[k]
	}
	h.lo, h.hi = min(h.lo, g.lo), max(h.hi, g.hi)
	g.clear()
}

// count is a bin's number of elements.
func count(bin uint64) int { return int(bin >> 36) }

// find returns the bin that holds the k-th smallest element, and how many
// elements lie in the bins before.
func (h *histogram) find(k int) (at uint32, before int) {
	for b := h.lo; b <= h.hi; b++ {
		n := count(h.bin[b])
		if before+n >= k {
			return b, before
		}
		before += n
	}
	panic(fmt.Sprintf("pho: histogram of %d elements has no %d-th", before, k))
}

// gini returns the coefficient of the elements in the bins before end and of
// last, which are in no bin before end; last is sorted in place. ok says that
// the relative error is within tolerance.
func (h *histogram) gini(end uint32, last []float32) (g float64, ok bool) {
	n := len(last)
	for k := h.lo; k < end; k++ {
		n += count(h.bin[k])
	}
	var top, total sum
	before, bound := 0, 0.0
	for k := h.lo; k < end; k++ {
		if h.bin[k] == 0 {
			continue
		}
		m := count(h.bin[k])
		base := float64(math.Float32frombits(k << lowBits))
		ulp := float64(math.Float32frombits(k<<lowBits+1)) - base // a bin does not cross an exponent
		s := float64(m)*base + ulp*float64(h.bin[k]&lowSums)
		width := lowMask * ulp
		top.add(float64(2*before+m-n) * s)
		top.add(width * (float64(m)*float64(m) - 1) / 6)
		total.add(s)
		if m > 1 {
			bound += float64(m) * float64(m) * width / 3
		}
		before += m
	}
	slices.Sort(last)
	for i, v := range last {
		top.add(float64(2*(before+i+1)-n-1) * float64(v))
		total.add(float64(v))
	}
	return quotient(top.value(), float64(n)*total.value()), bound <= tolerance*top.value()
}
