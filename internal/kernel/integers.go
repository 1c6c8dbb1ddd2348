package kernel

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"unsafe"
)

// Integers are the values of a Packed matrix as integers of 8 or 4 bits: element (r, j)
// that is stored is
//
//	its integer · Scales[j/Group*Stride + r]
//
// A row's integers begin at byte First[r] of Values. Those of 8 bits follow each other.
// Those of 4 bits lie two in a byte, the lower half first, and those of every integerRun
// columns begin with a whole byte; a half that is left over is 0.
//
// The product of integer and scale is exact in the matrix's type: that of b.Values. So
// products are those with the plain matrix, to the same bits.
type Integers struct {
	Bits   int
	Group  int       // columns that share a scale: a multiple of integerRun
	Values []byte    // with room for PackedSpare more in the capacity
	Scales []float32 // with room for three more in the capacity
	Stride int       // between the scales of two groups of columns: rows of the whole matrix
}

// integerRun is how many columns lie together in a packed row of integers of 4 bits.
const integerRun = 16

// MaxGroup is the largest Group.
const MaxGroup = 128

// from returns q of the rows from lo on.
func (q *Integers) from(lo int) *Integers {
	if q == nil {
		return nil
	}
	rows := *q
	rows.Scales = q.Scales[min(lo, len(q.Scales)):]
	return &rows
}

// check panics unless q has what p's elements need.
func (q *Integers) check(name string, p *Packed) {
	groups := ceil(p.Cols, max(q.Group, 1))
	if (q.Bits != 8 && q.Bits != 4) || q.Group < integerRun || q.Group%integerRun != 0 || q.Group > MaxGroup || q.Stride < p.Rows() ||
		p.Rows()*groups > 0 && len(q.Scales) < (groups-1)*q.Stride+p.Rows() || cap(q.Scales)-len(q.Scales) < dotsRows-1 {
		panic(fmt.Sprintf("kernel: %s: integers of %d bits with %d scales, %d columns to one and rows %d apart, for %d rows of %d",
			name, q.Bits, len(q.Scales), q.Group, q.Stride, p.Rows(), p.Cols))
	}
}

// stored returns how many places of the values the first n columns of a row take; n is a
// multiple of integerRun, or of 8 but for integers of 4 bits.
func (p *Packed) stored(row, n int) int64 {
	mask := p.row(row)[:n/8]
	if p.Integers != nil && p.Integers.Bits == 4 {
		return int64(NibbleBytes(mask))
	}
	return int64(MaskCount(mask))
}

// NibbleBytes returns how many bytes the integers of 4 bits of a mask take.
func NibbleBytes(mask []byte) int {
	n := 0
	for ; len(mask) >= 2; mask = mask[2:] {
		n += (bits.OnesCount16(binary.LittleEndian.Uint16(mask)) + 1) / 2
	}
	return n + (MaskCount(mask)+1)/2
}

// expandIntegers is expand for integers.
func (e *expandedRows) expandIntegers(p *Packed, dst Source, off, row, j0, n int, at int64) int64 {
	q := p.Integers
	mask := p.row(row)
	for j, end := j0, j0+n; j < end; {
		next := min((j/q.Group+1)*q.Group, end)
		part := mask[j/8 : MaskStride(next)]
		var values []int8
		if q.Bits == 4 {
			e.integers = grow(e.integers, MaxGroup+integerRun)
			at += int64(nibbles(e.integers, part, next-j, q.Values[at:]))
			values = e.integers
		} else {
			values = unsafe.Slice((*int8)(unsafe.Pointer(unsafe.SliceData(q.Values[at:]))), len(q.Values)-int(at))
			at += int64(MaskCount(part))
		}
		scale := q.Scales[j/q.Group*q.Stride+row]
		from := off + j - j0
		switch {
		case dst.F32 != nil:
			scaleExpand(dst.F32[from:from+next-j], part, values, scale, func(v float32) float32 { return v })
		case dst.BF16 != nil:
			expandInt8(dst.BF16[from:from+next-j], part, values, scale)
		default:
			scaleExpand(dst.F16[from:from+next-j], part, values, scale, narrowF16)
		}
		j = next
	}
	return at
}

// ExpandRow writes a row of p, whose values are integers, into dst, which is of its type.
func (p *Packed) ExpandRow(dst Source, row int) {
	p.check("ExpandRow", row+1, p.Cols, p.Cols)
	if dst.len() != p.Cols {
		panic(fmt.Sprintf("kernel: ExpandRow: %d elements, want %d", dst.len(), p.Cols))
	}
	var e expandedRows
	e.expandIntegers(p, dst, 0, row, 0, p.Cols, p.First[row])
}

// nibbles writes the integers of 4 bits that n columns have, one after the other, and up
// to integerRun more elements. It returns the bytes that they take.
func nibbles(dst []int8, mask []byte, n int, values []byte) int {
	const eight = 0x0808080808080808
	at, to := 0, 0
	for j := 0; j < n; j += integerRun {
		count := bits.OnesCount64(maskBits(mask[j/8:], min(integerRun, n-j)))
		all := binary.LittleEndian.Uint64(values[at : at+8 : cap(values)])
		for half := range 2 {
			// Each half byte in a byte of its own, and its sign in the upper four bits.
			x := all >> (32 * half) & 0xffffffff
			x = (x | x<<16) & 0x0000ffff0000ffff
			x = (x | x<<8) & 0x00ff00ff00ff00ff
			x = (x | x<<4) & 0x0f0f0f0f0f0f0f0f
			x |= x & eight * 0x1e
			*(*[8]int8)(dst[to+8*half:]) = *(*[8]int8)(unsafe.Pointer(&x))
		}
		at, to = at+(count+1)/2, to+count
	}
	return at
}

// scaleExpand is
//
//	for j < len(dst): if bit j%8 of mask[j/8] is set: dst[j], next = narrow(values[next]·scale), next+1
//	                  else: dst[j] = 0
//
// with next from 0 on.
func scaleExpand[T uint16 | float32](dst []T, mask []byte, values []int8, scale float32, narrow func(float32) T) {
	next := 0
	clear(dst)
	for j := 0; j < len(dst); j += 64 {
		for b := maskBits(mask[j/8:], len(dst)-j); b != 0; b &= b - 1 {
			dst[j+bits.TrailingZeros64(b)] = narrow(float32(values[next]) * scale)
			next++
		}
	}
}

// narrowF16 returns v, which float16 has, as float16.
func narrowF16(v float32) uint16 {
	bits := math.Float32bits(v)
	sign, exponent := uint16(bits>>16&0x8000), int(bits>>23&0xff)-127
	if exponent < -14 { // 0, or subnormal: a multiple of 2⁻²⁴
		return sign | uint16(math.Abs(float64(v))*(1<<24))
	}
	return sign | uint16((exponent+15)<<10) | uint16(bits>>13&0x3ff)
}

// narrowBF16 returns v, which bfloat16 has, as bfloat16.
func narrowBF16(v float32) uint16 { return uint16(math.Float32bits(v) >> 16) }
