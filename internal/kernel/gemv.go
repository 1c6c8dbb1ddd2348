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
	dotsGrain  = 1 << 16 // elements of b that a task reads, about
)

// dotter holds the kernels for one type of b.
type dotter struct {
	step  int  // elements along k in a block
	pairs bool // x is bfloat16 as b is

	// kernels[t-1] is, for g < groups, i < t and r < dotsRows,
	//
	//	dst[(g*t+i)*dotsRows+r] = Σ_j x[i*ldx+j]·b[r*ldb+g*blocks*step+j]    for j < blocks·step
	//
	// so that the rows of a group follow those of the one before. ldx and ldb are in
	// bytes; blocks, groups ≥ 1. nil if there are none.
	kernels []dotsKernel

	// packed[t-1] is, with the sums of kernels[t-1] to the same bits,
	//
	//	dst[(g*t+i)*dotsRows+r] = Σ_j x[i*ldx+j]·b[(g*dotsRows+r)*ldb+j]
	//
	// for a packed b of bfloat16. Row r's values begin at values[first[r]], and its masks
	// at mask[r*ldm]. Of several groups, masks are blocks·step bits. table is shuffles.
	packed []packedKernel

	// int8s and int4s are packed for integers, and full8s and full4s for those of a matrix
	// that is Full.
	int8s, int4s, full8s, full4s []integersKernel
}

type packedKernel func(dst *float32, x *byte, ldx int, values *uint16, first *int64, mask *byte, ldm int, table *byte, blocks, groups int)

type integersKernel func(dst *float32, x *byte, ldx int, values *byte, first *int64, mask *byte, ldm int, scales *float32, lds, perScale, blocks, groups int)

type dotsKernel func(dst *float32, x *byte, ldx int, b *byte, ldb int, blocks, groups int)

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

// rows computes columns lo to hi-1 of dst. A kernel takes as many groups as it can at a
// time: those of rows that are whole blocks and follow each other.
func (v *dotProduct) rows(lo, hi int) {
	buf := packBuffers.Get().(*packBuffer)
	defer packBuffers.Put(buf)
	most := 1
	if v.kernels != nil && v.k%v.step == 0 && v.ldb == v.k {
		most = len(buf.tmp) / (v.m * dotsRows)
	}
	if v.b.Packed != nil {
		v.rowsPacked(buf, lo, hi, most)
		return
	}
	// The rows of b that a kernel reads side by side are a quarter of them apart, so
	// that each is read on and on: memory is prefetched best so.
	apart := (hi - lo) / dotsRows
	for o := 0; o < apart; o += most {
		v.groups(buf.tmp[:], v.b, (lo+o)*v.ldb, apart*v.ldb, lo+o, apart, min(most, apart-o))
	}
	for o := lo + apart*dotsRows; o < hi; o++ {
		v.groups(buf.tmp[:], v.b, o*v.ldb, 0, o, 0, 1)
	}
}

// rowsPacked is rows for a packed b, at most so many groups at a time.
func (v *dotProduct) rowsPacked(buf *packBuffer, lo, hi, most int) {
	b := v.b.Packed
	whole := lo + (hi-lo)/dotsRows*dotsRows
	kernel := v.packedKernel(b)
	if kernel == nil || v.k < v.step {
		rows := buf.expanded.room(b, dotsRows*v.k)
		for o := lo; o < hi; o++ {
			buf.expanded.expand(b, rows, (o-lo)%dotsRows*v.k, o, 0, v.k, b.First[o])
			switch {
			case o >= whole:
				v.groups(buf.tmp[:], rows, (o-lo)%dotsRows*v.k, 0, o, 0, 1)
			case (o-lo)%dotsRows == dotsRows-1:
				v.groups(buf.tmp[:], rows, 0, v.k, o-dotsRows+1, 1, 1)
			}
		}
		return
	}
	for o := lo; o < whole; o += most * dotsRows {
		v.groupsPacked(kernel, buf, o, 1, min(most, (whole-o)/dotsRows))
	}
	for o := whole; o < hi; o++ {
		v.groupsPacked(kernel, buf, o, 0, 1)
	}
}

// packedKernel returns what computes groups of b that begin with row o, whose values
// begin at first, from masks that are ldm apart. It is nil if no kernel expands b.
func (v *dotProduct) packedKernel(b *Packed) func(out *float32, o int, first *int64, ldm, n int) {
	blocks := v.k / max(v.step, 1)
	if q := b.Integers; q != nil {
		kernels := v.int8s
		switch {
		case b.Full && q.Bits == 8:
			kernels = v.full8s
		case b.Full:
			kernels = v.full4s
		case q.Bits == 4:
			kernels = v.int4s
		}
		if kernels == nil {
			return nil
		}
		kernel := kernels[v.m-1]
		return func(out *float32, o int, first *int64, ldm, n int) {
			kernel(out, v.at, v.ld, unsafe.SliceData(q.Values), first, &b.row(o)[0], ldm, &q.Scales[o], 4*q.Stride, q.Group/v.step, blocks, n)
		}
	}
	kernels := packedFor(v.dotter)
	if kernels == nil || b.Values.BF16 == nil {
		return nil
	}
	kernel := kernels[v.m-1]
	return func(out *float32, o int, first *int64, ldm, n int) {
		kernel(out, v.at, v.ld, unsafe.SliceData(b.Values.BF16), first, &b.row(o)[0], ldm, &shuffles[0][0], blocks, n)
	}
}

// groups computes n groups of columns of dst: o, o+apart, …, dotsRows of them, or o
// alone if apart is 0; then o+1, o+1+apart, … and so on. Their rows of b are from
// element off on, ld apart. n is more than 1 only if a row is whole blocks and the next
// follows it.
func (v *dotProduct) groups(out []float32, b Source, off, ld, o, apart, n int) {
	done := 0
	if v.kernels != nil && v.k >= v.step {
		done = v.k / v.step * v.step
		at, size := b.address(off)
		v.kernels[v.m-1](&out[0], v.at, v.ld, at, ld*size, done/v.step, n)
		v.place(out, o, apart, 1, n)
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

// groupsPacked computes n groups of dotsRows columns of dst from column o on by a kernel
// that expands in registers, or column o alone if apart is 0.
func (v *dotProduct) groupsPacked(kernel func(out *float32, o int, first *int64, ldm, n int), buf *packBuffer, o, apart, n int) {
	b := v.b.Packed
	done := v.k / v.step * v.step
	first := &b.First[o]
	if apart == 0 {
		buf.firstOf = [dotsRows]int64{*first, *first, *first, *first}
		first = &buf.firstOf[0]
	}
	kernel(&buf.tmp[0], o, first, apart*MaskStride(v.k), n)
	v.place(buf.tmp[:], o, apart, dotsRows, n)
	if done == v.k {
		return
	}
	rest := buf.expanded.room(b, v.k-done)
	for r := range dotsRows {
		row := o + r*apart
		buf.expanded.expand(b, rest, 0, row, done, v.k-done, b.First[row]+b.stored(row, done))
		v.rest(rest, -done, row, done)
		if apart == 0 {
			return
		}
	}
}

// place copies what a kernel has made of n groups, of which each begins next columns
// after the one before, to their columns of dst.
func (v *dotProduct) place(out []float32, o, apart, next, n int) {
	rows := dotsRows
	if apart == 0 {
		rows = 1 // the others are that row again, or nothing
	}
	for i := range n {
		for t := range v.m {
			dst := v.dst[t*v.ldd+o+i*next:]
			for r, sum := range out[(i*v.m+t)*dotsRows:][:rows] {
				dst[r*apart] = sum
			}
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
