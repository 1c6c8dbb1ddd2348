package tensor

import (
	"fmt"
	"unsafe"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/pages"
	"github.com/crepe-llm/crepe/internal/parallel"
)

// Packed is a Weight in packed form: a bit for every element, and the elements whose
// bit is set one after the other. Those without a bit are +0.
//
// Bit j%8 of byte i*⌈Cols/8⌉ + j/8 of the mask is that of element (i, j); what fills
// up the last byte of a row is 0. A row's values follow each other in the order of
// the columns, and rows in theirs.
type Packed struct {
	Rows, Cols int // out, in
	DType      DType
	p          kernel.Packed
}

// NewPacked returns a packed weight of undefined content with room for kept values.
// It panics if dtype cannot be computed with.
func NewPacked(dtype DType, rows, cols, kept int) *Packed {
	w := &Packed{Rows: rows, Cols: cols, DType: dtype}
	w.p = kernel.Packed{
		Cols: cols, Mask: make([]byte, rows*kernel.MaskStride(cols)), First: make([]int64, rows+1),
	}
	pages.Advise(w.p.Mask)
	all := NewWeight(dtype, 1, kept+kernel.PackedSpare)
	if dtype == F32 {
		w.p.Values.F32 = all.w32[:kept]
		return w
	}
	values := all.w16[:kept]
	if dtype == BF16 {
		w.p.Values.BF16 = values
	} else {
		w.p.Values.F16 = values
	}
	return w
}

// Pack returns w in packed form. Only +0 is left out: −0 is kept, so that Expand
// gives the same bits.
func Pack(w *Weight) *Packed {
	kept, total := w.keptRows()
	p := NewPacked(w.DType, w.Rows, w.Cols, total)
	for i, n := range kept {
		p.p.First[i+1] = p.p.First[i] + int64(n)
	}
	stride := kernel.MaskStride(w.Cols)
	eachRow(w.Rows, w.Cols, func(i int) {
		first, end := p.p.First[i], p.p.First[i+1]
		row := p.p.Mask[i*stride : (i+1)*stride]
		if w.DType == F32 {
			kernel.Compress32(bits32(p.p.Values.F32[first:end]), row, bits32(w.w32[i*w.Cols:(i+1)*w.Cols]))
			return
		}
		kernel.Compress16(p.words()[first:end], row, w.w16[i*w.Cols:(i+1)*w.Cols])
	})
	return p
}

// eachRow calls f for each row, on all cores.
func eachRow(rows, cols int, f func(i int)) {
	const grain = 1 << 16 // elements that a task takes
	parallel.For(rows, max(1, grain/max(1, cols)), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			f(i)
		}
	})
}

func bits32(v []float32) []uint32 {
	return unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(v))), len(v))
}

// words returns the values of a 16-bit type.
func (w *Packed) words() []uint16 {
	if w.DType == BF16 {
		return w.p.Values.BF16
	}
	return w.p.Values.F16
}

// Kept returns the number of values.
func (w *Packed) Kept() int {
	if w.p.Integers != nil {
		return kernel.MaskCount(w.p.Mask)
	}
	return len(w.p.Values.F32) + len(w.p.Values.BF16) + len(w.p.Values.F16)
}

// Bytes returns what w takes in memory.
func (w *Packed) Bytes() int64 {
	n := int64(len(w.p.Mask)) + 8*int64(len(w.p.First)) + int64(len(w.Values()))
	if q := w.p.Integers; q != nil {
		n += 4 * int64(len(q.Scales))
	}
	return n
}

// Mask returns the bits, ⌈Cols/8⌉ bytes a row. It aliases w.
func (w *Packed) Mask() []byte { return w.p.Mask }

// First returns where among the values each row begins and, last, their number; of
// integers, among their bytes. It aliases w.
func (w *Packed) First() []int64 { return w.p.First }

// Values returns the values as the little-endian bytes of a safetensors file. It
// aliases w.
func (w *Packed) Values() []byte {
	if q := w.p.Integers; q != nil {
		return q.Values
	}
	return w.values().Bytes()
}

// values returns the values as a weight of one row. It aliases w.
func (w *Packed) values() *Weight {
	all := &Weight{Rows: 1, Cols: w.Kept(), DType: w.DType, w32: w.p.Values.F32}
	if w.DType != F32 {
		all.w16 = w.words()
	}
	return all
}

// Check returns an error unless mask, row ends and values fit each other. What is
// read from a file is of use only then. Kept must not change afterwards.
func (w *Packed) Check() error {
	stride := kernel.MaskStride(w.Cols)
	last := byte(0xff) // bits of a row's last byte that are columns
	if used := w.Cols % 8; used > 0 {
		last = 1<<used - 1
	}
	k := w.Integers()
	kept := w.Kept()
	have, unit := kept, "bits"
	if k.Bits > 0 {
		have, unit = len(w.p.Integers.Values), "bytes of integers"
	}
	at := int64(0)
	for i := range w.Rows {
		row := w.p.Mask[i*stride : (i+1)*stride]
		if stride > 0 && row[stride-1]&^last != 0 {
			return fmt.Errorf("row %d: the mask has bits past column %d", i, w.Cols)
		}
		if w.p.First[i] != at {
			return fmt.Errorf("row %d: values from %d on, the masks of the rows before it have %d %s", i, w.p.First[i], at, unit)
		}
		at += int64(k.bytesOf(row))
	}
	if w.p.First[w.Rows] != at || int64(have) != at {
		return fmt.Errorf("%d values, the mask has %d %s", have, at, unit)
	}
	w.p.Full = kept == w.Rows*w.Cols
	return nil
}

// Source returns w as the right-hand operand of a matrix product; it aliases w.
func (w *Packed) Source() kernel.Source { return kernel.Source{Packed: &w.p} }

// Slice returns rows lo to hi-1; it aliases w, and its Kept and Values are w's.
func (w *Packed) Slice(lo, hi int) *Packed {
	return &Packed{Rows: hi - lo, Cols: w.Cols, DType: w.DType, p: *w.p.Slice(lo, hi)}
}

// Expand writes rows lo to lo+dst.Rows-1 into dst, which is of w's type.
func (w *Packed) Expand(dst *Weight, lo int) {
	if dst.DType != w.DType || dst.Cols != w.Cols || lo < 0 || lo+dst.Rows > w.Rows {
		panic(fmt.Sprintf("tensor: Packed.Expand: rows %d to %d into %v of %d × %d, want %v within %d × %d",
			lo, lo+dst.Rows-1, dst.DType, dst.Rows, dst.Cols, w.DType, w.Rows, w.Cols))
	}
	stride := kernel.MaskStride(w.Cols)
	eachRow(dst.Rows, w.Cols, func(i int) {
		if w.p.Integers != nil {
			w.p.ExpandRow(dst.Slice(i, i+1).Source(), lo+i)
			return
		}
		mask := w.p.Mask[(lo+i)*stride : (lo+i+1)*stride]
		first, end := w.p.First[lo+i], w.p.First[lo+i+1]
		if w.DType == F32 {
			kernel.Expand32(dst.w32[i*w.Cols:(i+1)*w.Cols], mask, w.p.Values.F32[first:end])
			return
		}
		kernel.Expand16(dst.w16[i*w.Cols:(i+1)*w.Cols], mask, w.words()[first:end])
	})
}

// FirstNonFinite returns the row and column of the first NaN or infinity in row-major
// order and its value; ok is false if there is none.
func (w *Packed) FirstNonFinite() (row, col int, v float32, ok bool) {
	if w.p.Integers != nil {
		return 0, 0, 0, false // no product of integer and scale is one
	}
	at := w.values().FirstNonFinite()
	if at < 0 {
		return 0, 0, 0, false
	}
	for w.p.First[row+1] <= int64(at) {
		row++
	}
	dense := NewWeight(w.DType, 1, w.Cols)
	w.Expand(dense, row)
	col = dense.FirstNonFinite()
	return row, col, dense.At(0, col), true
}

// Kept returns how many elements of w Pack stores: all but +0.
func (w *Weight) Kept() int {
	_, total := w.keptRows()
	return total
}

// keptRows is Kept of each row, and of all.
func (w *Weight) keptRows() (kept []int, total int) {
	kept = make([]int, w.Rows)
	eachRow(w.Rows, w.Cols, func(i int) { kept[i] = w.keptOf(i) })
	for _, n := range kept {
		total += n
	}
	return kept, total
}

// keptOf is Kept of row i.
func (w *Weight) keptOf(i int) int {
	n := 0
	if w.DType == F32 {
		for _, v := range bits32(w.w32[i*w.Cols : (i+1)*w.Cols]) {
			if v != 0 {
				n++
			}
		}
		return n
	}
	for _, v := range w.w16[i*w.Cols : (i+1)*w.Cols] {
		if v != 0 {
			n++
		}
	}
	return n
}
