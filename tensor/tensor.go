// Package tensor holds the two kinds of matrices crepe computes with: Matrix,
// float32 activations, and Weight, a Linear's matrix in the type it is stored in.
//
// A row of a weight is an output feature, a column an input feature: W is
// out × in everywhere, and a Linear computes y = W x + b.
package tensor

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/pages"
)

// Matrix is a dense row-major float32 matrix: element (i, j) is
// Data[i*Cols+j]. In activations a row is a token.
type Matrix struct {
	Rows, Cols int
	Data       []float32 // len Rows*Cols
}

// NewMatrix returns a zero matrix.
func NewMatrix(rows, cols int) Matrix {
	return Matrix{Rows: rows, Cols: cols, Data: make([]float32, rows*cols)}
}

// Row returns row i; it aliases m.
func (m Matrix) Row(i int) []float32 {
	return m.Data[i*m.Cols : (i+1)*m.Cols : (i+1)*m.Cols]
}

// Slice returns rows lo to hi-1; it aliases m.
func (m Matrix) Slice(lo, hi int) Matrix {
	return Matrix{Rows: hi - lo, Cols: m.Cols, Data: m.Data[lo*m.Cols : hi*m.Cols : hi*m.Cols]}
}

// Weight is a row-major out × in matrix in the type it is stored in: F32, F16
// or BF16. Its memory is the checkpoint's bytes, so that what is not pruned is
// written back as it was read.
type Weight struct {
	Rows, Cols int // out, in
	DType      DType
	w16        []uint16
	w32        []float32
}

// NewWeight returns a zero weight. It panics if dtype cannot be computed with.
func NewWeight(dtype DType, rows, cols int) *Weight {
	w := &Weight{Rows: rows, Cols: cols, DType: dtype}
	switch dtype {
	case F32:
		w.w32 = make([]float32, rows*cols)
	case F16, BF16:
		w.w16 = make([]uint16, rows*cols)
	default:
		panic(fmt.Sprintf("tensor: NewWeight: dtype %v, want F32, F16 or BF16", dtype))
	}
	pages.Advise(w.Bytes())
	return w
}

// Bytes returns w's memory as the little-endian bytes of a safetensors file;
// it aliases w.
func (w *Weight) Bytes() []byte {
	if w.Rows*w.Cols == 0 {
		return nil
	}
	if w.DType == F32 {
		return unsafe.Slice((*byte)(unsafe.Pointer(&w.w32[0])), 4*len(w.w32))
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&w.w16[0])), 2*len(w.w16))
}

// Source returns w as the right-hand operand of a matrix product; it aliases w.
func (w *Weight) Source() kernel.Source {
	switch w.DType {
	case F32:
		return kernel.Source{F32: w.w32}
	case BF16:
		return kernel.Source{BF16: w.w16}
	default:
		return kernel.Source{F16: w.w16}
	}
}

// Slice returns rows lo to hi-1; it aliases w.
func (w *Weight) Slice(lo, hi int) *Weight {
	s := &Weight{Rows: hi - lo, Cols: w.Cols, DType: w.DType}
	if w.DType == F32 {
		s.w32 = w.w32[lo*w.Cols : hi*w.Cols : hi*w.Cols]
	} else {
		s.w16 = w.w16[lo*w.Cols : hi*w.Cols : hi*w.Cols]
	}
	return s
}

// Row writes row i into dst as float32 (exactly: both 16-bit types widen
// without rounding). len(dst) must be w.Cols.
func (w *Weight) Row(dst []float32, i int) {
	if len(dst) != w.Cols {
		panic(fmt.Sprintf("tensor: Weight.Row: len(dst) = %d, want %d", len(dst), w.Cols))
	}
	lo, hi := i*w.Cols, (i+1)*w.Cols
	switch w.DType {
	case F32:
		copy(dst, w.w32[lo:hi])
	case BF16:
		kernel.WidenBF16(dst, w.w16[lo:hi])
	default:
		kernel.WidenF16(dst, w.w16[lo:hi])
	}
}

// At returns element (i, j).
func (w *Weight) At(i, j int) float32 {
	var v [1]float32
	k := i*w.Cols + j
	switch w.DType {
	case F32:
		return w.w32[k]
	case BF16:
		kernel.WidenBF16(v[:], w.w16[k:k+1])
	default:
		kernel.WidenF16(v[:], w.w16[k:k+1])
	}
	return v[0]
}

// Zero sets element k of the row-major order to +0.
func (w *Weight) Zero(k int) {
	if w.DType == F32 {
		w.w32[k] = 0
	} else {
		w.w16[k] = 0
	}
}

// notZero returns, for four 16-bit numbers, the lowest bit of each that is not
// zero: its size, with all ones added, carries into the sign's place.
func notZero(four uint64) uint64 {
	const size = 0x7fff_7fff_7fff_7fff
	return (four&size + size) >> 15 & 0x0001_0001_0001_0001
}

// NonZero sets one bit for each weight of row i:
//
//	bit j%64 of dst[j/64] = (W_ij ≠ 0)
//
// −0 is 0, NaN is not. len(dst) == ⌈Cols/64⌉; bits past the end are 0.
func (w *Weight) NonZero(dst []uint64, i int) {
	if len(dst) != (w.Cols+63)/64 {
		panic(fmt.Sprintf("tensor: Weight.NonZero: len(dst) = %d for %d columns", len(dst), w.Cols))
	}
	clear(dst)
	lo, hi := i*w.Cols, (i+1)*w.Cols
	if w.DType == F32 {
		for j, v := range w.w32[lo:hi] {
			if v != 0 {
				dst[j/64] |= 1 << (j % 64)
			}
		}
		return
	}
	const gather = 1<<48 | 1<<33 | 1<<18 | 1<<3 // bits 0, 16, 32 and 48 to the four highest places in use
	row := w.Bytes()[2*lo : 2*hi]
	j := 0
	for ; len(row) >= 8; j, row = j+4, row[8:] {
		dst[j/64] |= notZero(binary.LittleEndian.Uint64(row)) * gather >> 48 << (j % 64)
	}
	for ; j < w.Cols; j++ {
		if w.w16[lo+j]&0x7fff != 0 {
			dst[j/64] |= 1 << (j % 64)
		}
	}
}

// Zeros returns how many elements are zero; −0 is one.
func (w *Weight) Zeros() int {
	n := 0
	if w.DType == F32 {
		for _, v := range w.w32 {
			if v == 0 {
				n++
			}
		}
		return n
	}
	four := w.Bytes()
	for ; len(four) >= 8; four = four[8:] {
		n += 4 - bits.OnesCount64(notZero(binary.LittleEndian.Uint64(four)))
	}
	for _, v := range w.w16[len(w.w16)-len(four)/2:] {
		if v&0x7fff == 0 {
			n++
		}
	}
	return n
}
