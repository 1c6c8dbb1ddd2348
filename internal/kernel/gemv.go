package kernel

import (
	"unsafe"

	"github.com/crepe-llm/crepe/internal/parallel"
)

// A product with few rows of x, as in decoding, takes as long as reading b
// does. So b is not packed: every element of dst is a dot product, dotsRows
// rows of b side by side, each row read once.
//
// The sums have another order than those of the micro-kernels, so a result
// differs in its last bits with the rows it is computed among. Up to 16 rows
// would be faster so, but runs that are resumed, with the few sequences that are
// left, are to end with the same bits: only decoding takes this way.
const (
	dotsTokens = 3 // rows of x at most
	dotsRows   = 4
	dotsGrain  = 1 << 17 // elements of b that a task reads, about
)

// dotter holds the kernels for one type of b.
type dotter struct {
	step  int  // elements along k in a block
	pairs bool // x is bfloat16 as b is

	// kernels[t-1] is, for i < t and r < dotsRows,
	//
	//	dst[i*dotsRows+r] = Σ_j x[i*ldx+j]·b[r*ldb+j]    for j < blocks·step
	//
	// ldx and ldb are in bytes; blocks ≥ 1. nil if there are none.
	kernels []dotsKernel

	// packed[t-1] is that for dotsRows rows of a packed b of bfloat16, to the same bits.
	// Of row r the masks begin at mask[r*ldm], and the values at values[r], which
	// then is where the next of them is. table is shuffles.
	packed []packedKernel
}

type packedKernel func(dst *float32, x *byte, ldx int, values **uint16, mask *byte, ldm int, table *byte, blocks int)

type dotsKernel func(dst *float32, x *byte, ldx int, b *byte, ldb int, blocks int)

// runDots computes the product by dot products.
func (p product) runDots() {
	d := dotterFor(p.b.elements(), p.round)
	wide := p.x // as float32; rounded if p.round
	ldw := p.ldx
	if p.round {
		wide, ldw = make([]float32, p.m*p.k), p.k
		for i := range p.m {
			roundBF16(wide[i*ldw:][:p.k], p.x[i*p.ldx:][:p.k])
		}
	}
	v := dotProduct{product: p, wide: wide, ldw: ldw, dotter: d}
	v.at, v.ld = (*byte)(unsafe.Pointer(&wide[0])), 4*ldw
	if d.pairs {
		pairs := make([]uint16, p.m*p.k)
		for i := range p.m {
			NarrowBF16(pairs[i*p.k:][:p.k], p.x[i*p.ldx:][:p.k])
		}
		v.at, v.ld = (*byte)(unsafe.Pointer(&pairs[0])), 2*p.k
	}
	grain := roundUp(max(1, dotsGrain/p.k), dotsRows)
	parallel.For(p.n, grain, v.rows)
}

// dotProduct is a product at work by dot products.
type dotProduct struct {
	product
	*dotter
	wide []float32 // x as float32, rows ldw apart
	ldw  int
	at   *byte // what the kernels read of x, rows ld bytes apart
	ld   int
}

// rows computes columns lo to hi-1 of dst. The rows of b that a kernel reads
// side by side are a quarter of them apart, so that each is read on and on:
// memory is prefetched best so.
func (v *dotProduct) rows(lo, hi int) {
	group := v.group
	if v.b.Packed != nil {
		group = v.packedGroup()
	}
	var few [dotsTokens * dotsRows]float32
	out := few[:]
	apart := (hi - lo) / dotsRows
	for o := range apart {
		group(out, lo+o, apart)
	}
	for o := lo + apart*dotsRows; o < hi; o++ {
		group(out, o, 0)
	}
}

// packedGroup returns what group is for a packed b. It is a task's own.
func (v *dotProduct) packedGroup() func(out []float32, o, apart int) {
	var e expandedRows
	kernels := packedFor(v.dotter)
	if kernels == nil || v.b.Packed.Values.BF16 == nil || v.k < v.step {
		return func(out []float32, o, apart int) { v.groupExpanded(&e, out, o, apart) }
	}
	kernel, values := kernels[v.m-1], new([dotsRows]*uint16)
	return func(out []float32, o, apart int) { v.groupPacked(kernel, values, &e, out, o, apart) }
}

// group computes columns o, o+apart, … of dst, dotsRows of them, or o alone if
// apart is 0.
func (v *dotProduct) group(out []float32, o, apart int) {
	v.groupOf(out, v.b, o*v.ldb, apart*v.ldb, o, apart)
}

// groupExpanded is group of a packed b: its rows are written out first.
func (v *dotProduct) groupExpanded(e *expandedRows, out []float32, o, apart int) {
	b := v.b.Packed
	rows := e.room(b, dotsRows*v.k)
	for r := range dotsRows {
		b.expand(rows, r*v.k, o+r*apart, 0, v.k, b.First[o+r*apart])
		if apart == 0 {
			break
		}
	}
	ld := v.k
	if apart == 0 {
		ld = 0
	}
	v.groupOf(out, rows, 0, ld, o, apart)
}

// groupPacked is group of a packed b by a kernel that expands in registers.
func (v *dotProduct) groupPacked(kernel packedKernel, values *[dotsRows]*uint16, e *expandedRows, out []float32, o, apart int) {
	b := v.b.Packed
	done := v.k / v.step * v.step
	base := unsafe.Pointer(unsafe.SliceData(b.Values.BF16))
	for r := range values {
		values[r] = (*uint16)(unsafe.Add(base, 2*b.First[o+r*apart]))
	}
	kernel(&out[0], v.at, v.ld, &values[0], &b.row(o)[0], apart*MaskStride(v.k), &shuffles[0][0], done/v.step)
	for r := range dotsRows {
		for t := range v.m {
			v.dst[t*v.ldd+o+r*apart] = out[t*dotsRows+r]
		}
		if done < v.k {
			rest := e.room(b, v.k-done)
			at := int64(uintptr(unsafe.Pointer(values[r]))-uintptr(base)) / 2
			b.expand(rest, 0, o+r*apart, done, v.k-done, at)
			v.rest(rest, -done, o+r*apart, done)
		}
		if apart == 0 {
			return
		}
	}
}

// groupOf is group with the rows of b from element off on, ld apart.
func (v *dotProduct) groupOf(out []float32, b Source, off, ld, o, apart int) {
	done := 0
	if v.kernels != nil && v.k >= v.step {
		done = v.k / v.step * v.step
		at, size := b.address(off)
		v.kernels[v.m-1](&out[0], v.at, v.ld, at, ld*size, done/v.step)
		for t := range v.m {
			for r := range dotsRows {
				v.dst[t*v.ldd+o+r*apart] = out[t*dotsRows+r]
			}
		}
	}
	if done == v.k {
		return
	}
	for r := range dotsRows {
		v.rest(b, off+r*ld, o+r*apart, done)
		if apart == 0 {
			return
		}
	}
}

// rest adds what lies past the first done elements along k of the row of b at off to
// column o of dst, or sets it if done is 0.
func (v *dotProduct) rest(b Source, off, o, done int) {
	var wide [blockK]float32
	for k0 := done; k0 < v.k; k0 += blockK {
		row := wide[:min(blockK, v.k-k0)]
		b.widen(row, off+k0)
		for t := range v.m {
			sum := dotGeneric(v.wide[t*v.ldw+k0:][:len(row)], row)
			if k0 > 0 {
				sum += v.dst[t*v.ldd+o]
			}
			v.dst[t*v.ldd+o] = sum
		}
	}
}

// address returns where element i of s is, and the bytes of an element.
func (s Source) address(i int) (at *byte, size int) {
	switch {
	case s.F32 != nil:
		return (*byte)(unsafe.Pointer(&s.F32[i])), 4
	case s.BF16 != nil:
		return (*byte)(unsafe.Pointer(&s.BF16[i])), 2
	}
	return (*byte)(unsafe.Pointer(&s.F16[i])), 2
}
