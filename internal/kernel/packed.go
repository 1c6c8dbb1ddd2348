package kernel

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Packed is a matrix of which only some elements are stored:
//
//	element (r, j) = the next of the row's values, if bit j%8 of Mask[r*MaskStride(Cols) + j/8] is set
//	               = +0 otherwise
//
// The values of row r are elements First[r] to First[r+1]-1 of Values, in the order
// of the columns. There are as many of them as bits of the row are set, and bits from
// column Cols on are 0.
type Packed struct {
	Cols   int
	Mask   []byte
	First  []int64 // of each row, and of the end
	Values Source  // with room for PackedSpare more elements in the capacity
	Full   bool    // all bits are set, but for those from column Cols on

	// Integers, if not nil, are the values: Values says no more than their type.
	Integers *Integers
}

// PackedSpare is how many elements kernels may read, and not use, behind the values.
const PackedSpare = 32

// MaskStride returns how many bytes of a mask a row of so many columns has.
func MaskStride(cols int) int { return (cols + 7) / 8 }

// Rows returns the number of rows.
func (p *Packed) Rows() int { return len(p.First) - 1 }

// Slice returns rows lo to hi-1; it aliases p.
func (p *Packed) Slice(lo, hi int) *Packed {
	stride := MaskStride(p.Cols)
	return &Packed{
		Cols: p.Cols, Mask: p.Mask[lo*stride : hi*stride : hi*stride],
		First: p.First[lo : hi+1 : hi+1], Values: p.Values, Full: p.Full, Integers: p.Integers.from(lo),
	}
}

// check panics unless a product may read p as n × k elements.
func (p *Packed) check(name string, n, k, ld int) {
	have, room := p.Values.len(), max(cap(p.Values.F32), cap(p.Values.BF16), cap(p.Values.F16))
	if q := p.Integers; q != nil {
		q.check(name, p)
		have, room = len(q.Values), cap(q.Values)
	}
	spare := room - have
	if n > p.Rows() || k != p.Cols || ld != k {
		panic(fmt.Sprintf("kernel: %s: a packed matrix of %d rows and %d columns, want %d rows of %d, %d apart", name, p.Rows(), p.Cols, n, k, ld))
	}
	if len(p.Mask) != p.Rows()*MaskStride(p.Cols) || spare < PackedSpare || p.First[p.Rows()] > int64(have) {
		panic(fmt.Sprintf("kernel: %s: a packed matrix of %d rows and %d columns with %d bytes of mask, %d values and room for %d more",
			name, p.Rows(), p.Cols, len(p.Mask), have, spare))
	}
}

// row returns the mask of row r.
func (p *Packed) row(r int) []byte {
	stride := MaskStride(p.Cols)
	return p.Mask[r*stride : (r+1)*stride]
}

// expandedRows is memory for rows of a Packed that are written out, and how far in its
// values those of a task are.
type expandedRows struct {
	rows     Source
	at       []int64
	integers []int8
}

// room returns rows of n elements each, of the type of p's values.
func (e *expandedRows) room(p *Packed, n int) Source {
	switch v := p.Values; {
	case v.F32 != nil:
		e.rows.F32 = grow(e.rows.F32, n)
		return Source{F32: e.rows.F32}
	case v.BF16 != nil:
		e.rows.BF16 = grow(e.rows.BF16, n)
		return Source{BF16: e.rows.BF16}
	default:
		e.rows.BF16 = grow(e.rows.BF16, n)
		return Source{F16: e.rows.BF16}
	}
}

// expand writes columns j0 to j0+n-1 of a row into dst, from element off on; the first
// of the row's values among them is value at. It returns the one after the last. j0 is
// a multiple of integerRun.
func (e *expandedRows) expand(p *Packed, dst Source, off, row, j0, n int, at int64) int64 {
	if p.Integers != nil {
		return e.expandIntegers(p, dst, off, row, j0, n, at)
	}
	mask := p.row(row)[j0/8:]
	switch {
	case dst.F32 != nil:
		return at + int64(expandGeneric(dst.F32[off:off+n], mask, p.Values.F32[at:]))
	case dst.BF16 != nil:
		return at + int64(expand16(dst.BF16[off:off+n], mask, p.Values.BF16[at:]))
	default:
		return at + int64(expand16(dst.F16[off:off+n], mask, p.Values.F16[at:]))
	}
}

// packExpanded is packT of rows j0 to j1-1 of b, columns k0 to k0+k-1, into buf.b. The
// blocks along the depth come in order.
func (t *tile) packExpanded(buf *packBuffer, b *Packed, j0, j1, k0, k int) {
	e := &buf.expanded
	if k0 == 0 {
		e.at = append(e.at[:0], b.First[j0:j1]...)
	}
	rows, depth := e.room(b, t.cols*k), t.units(k)
	for j := j0; j < j1; j += t.cols {
		n := min(t.cols, j1-j)
		for r := range n {
			at := &e.at[j-j0+r]
			*at = e.expand(b, rows, r*k, j+r, k0, k, *at)
		}
		t.packPanel(buf.b[(j-j0)*depth:(j-j0+t.cols)*depth], rows, 0, k, n, k)
	}
}

// Expand16 is
//
//	for j < len(dst): if bit j%8 of mask[j/8] is set: dst[j], next = values[next], next+1
//	                  else: dst[j] = 0
//
// and returns next, which begins at 0. values has as many elements as bits are set.
func Expand16(dst []uint16, mask []byte, values []uint16) int {
	checkExpand("Expand16", len(dst), mask)
	return expand16(dst, mask, values)
}

// Expand32 is Expand16 for float32.
func Expand32(dst []float32, mask []byte, values []float32) int {
	checkExpand("Expand32", len(dst), mask)
	return expandGeneric(dst, mask, values)
}

func checkExpand(name string, n int, mask []byte) {
	if len(mask) < MaskStride(n) {
		panic(fmt.Sprintf("kernel: %s: %d bytes of mask for %d elements, want %d", name, len(mask), n, MaskStride(n)))
	}
}

// expandGeneric is Expand16 and Expand32.
func expandGeneric[T uint16 | float32](dst []T, mask []byte, values []T) int {
	next := 0
	clear(dst)
	for j := 0; j < len(dst); j += 64 {
		for b := maskBits(mask[j/8:], len(dst)-j); b != 0; b &= b - 1 {
			dst[j+bits.TrailingZeros64(b)] = values[next]
			next++
		}
	}
	return next
}

// maskBits returns the first n bits of a mask, at most 64.
func maskBits(mask []byte, n int) uint64 {
	var b uint64
	if len(mask) >= 8 {
		b = binary.LittleEndian.Uint64(mask)
	} else {
		for i, m := range mask {
			b |= uint64(m) << (8 * i)
		}
	}
	if n < 64 {
		b &= 1<<n - 1
	}
	return b
}

// MaskCount returns how many bits of a mask are set.
func MaskCount(mask []byte) int {
	n := 0
	for ; len(mask) >= 8; mask = mask[8:] {
		n += bits.OnesCount64(binary.LittleEndian.Uint64(mask))
	}
	return n + bits.OnesCount64(maskBits(mask, 64))
}

// Compress16 is the inverse of Expand16: it writes the elements of src that have a
// bit set into values, one after the other, and a bit for each into mask, whose last
// byte is filled up with 0. It returns how many they are. Only +0 has no bit, so
// that −0 comes back as it was. len(values) ≥ the number of bits, len(mask) ==
// MaskStride(len(src)).
func Compress16(values []uint16, mask []byte, src []uint16) int {
	return compress(values, mask, src)
}

// Compress32 is Compress16 for float32, given by its bits.
func Compress32(values []uint32, mask []byte, src []uint32) int {
	return compress(values, mask, src)
}

func compress[T uint16 | uint32](values []T, mask []byte, src []T) int {
	checkLen("Compress", "mask", len(mask), MaskStride(len(src)))
	clear(mask)
	n := 0
	for j, v := range src {
		if v != 0 {
			mask[j/8] |= 1 << (j % 8)
			values[n] = v
			n++
		}
	}
	return n
}
