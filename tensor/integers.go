package tensor

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/pages"
)

// Integers says that packed values are integers with a scale for each row and Group
// columns, so that element (i, j) that is stored is
//
//	q·s,  q the element's integer of Bits bits, s the scale of row i and columns ⌊j/Group⌋·Group and on
//
// The zero Integers are no integers: values have the weight's type.
type Integers struct {
	Bits  int // 8 or 4
	Group int // 32, 64 or 128
}

// Groups are the numbers of columns that may share a scale.
var Groups = []int{32, 64, 128}

// Check returns an error unless k is zero or integers that there are.
func (k Integers) Check() error {
	switch {
	case k == Integers{}:
		return nil
	case k.Bits != 8 && k.Bits != 4:
		return fmt.Errorf("integers of %d bits, want 8 or 4", k.Bits)
	case k.Group != 32 && k.Group != 64 && k.Group != 128:
		return fmt.Errorf("%d columns to a scale, want 32, 64 or 128", k.Group)
	}
	return nil
}

// ScaleGroups returns how many scales a row of so many columns has.
func (k Integers) ScaleGroups(cols int) int { return (cols + k.Group - 1) / k.Group }

// A scale is as short as leaves every product exact in 8 bits, which all types have: a
// power of two for integers of 8 bits, five significant bits for those of 4. Its size is
// between these, so that products are neither too large nor too small for any type.
const (
	shortBits = 9

	minScaleF16, maxScaleF16 = 0x1p-20, 0x1p8 // 128 · 2⁸ < 65504
	minScale, maxScale       = 0x1p-120, 0x1p120
)

// scaleBounds returns the least and the largest scale of weights of a type.
func scaleBounds(dtype DType) (least, most float32) {
	if dtype == F16 {
		return minScaleF16, maxScaleF16
	}
	return minScale, maxScale
}

// validScale reports whether s is a scale: 0, of a group without weights, or as short and
// as large as one may be.
func (k Integers) validScale(dtype DType, s float32) bool {
	least, most := scaleBounds(dtype)
	return math.Float32bits(s) == 0 || s >= least && s <= most && k.shorten(s) == s
}

// shorten returns s without the bits that a scale has not: the next one towards zero.
func (k Integers) shorten(s float32) float32 {
	const stored = 23 // bits of a float32's significand, but for the first
	return math.Float32frombits(math.Float32bits(s) &^ (1<<(stored+1-(shortBits-k.Bits)) - 1))
}

// above returns the scale after s.
func (k Integers) above(s float32) float32 {
	const stored = 23
	return math.Float32frombits(math.Float32bits(s) + 1<<(stored+1-(shortBits-k.Bits)))
}

// scale returns the scale by which values, a group of weights of a row, are integers with
// the least squared error; of equal ones the largest. In each octave there are as many
// scales as it has bits for.
func (k Integers) scale(dtype DType, values []float32) float32 {
	top := float32(0)
	for _, v := range values {
		top = max(top, float32(math.Abs(float64(v))))
	}
	if top == 0 {
		return 0
	}
	least, most := scaleBounds(dtype)
	limit := float32(int(1)<<(k.Bits-1) - 1)
	from := min(max(k.shorten(top/limit), least), most)
	if from*limit < top && from < most {
		from = k.above(from) // the first by which the largest value is an integer
	}
	best, lowest := from, k.squaredError(values, from)
	for s := from; s > least && s > from/2; {
		s = k.shorten(math.Float32frombits(math.Float32bits(s) - 1))
		if e := k.squaredError(values, s); e < lowest {
			best, lowest = s, e
		}
	}
	return best
}

func (k Integers) squaredError(values []float32, s float32) float64 {
	sum := 0.0
	for _, v := range values {
		d := float64(v) - float64(k.round(v, s))*float64(s)
		sum += d * d
	}
	return sum
}

// round returns v/s as an integer of k: the nearest, of two the even one.
func (k Integers) round(v, s float32) int {
	if s == 0 {
		return 0
	}
	limit := float64(int(1) << (k.Bits - 1))
	return int(max(-limit, min(math.RoundToEven(float64(v)/float64(s)), limit-1)))
}

// newIntegers returns packed integers of undefined content with room for n bytes of them.
func newIntegers(k Integers, dtype DType, rows, cols, n int) *Packed {
	w := &Packed{Rows: rows, Cols: cols, DType: dtype}
	groups := k.ScaleGroups(cols)
	scales := make([]float32, groups*rows+3)
	values := make([]byte, n+kernel.PackedSpare)
	pages.Advise(values)
	w.p = kernel.Packed{
		Cols: cols, Mask: make([]byte, rows*kernel.MaskStride(cols)), First: make([]int64, rows+1),
		Integers: &kernel.Integers{Bits: k.Bits, Group: k.Group, Values: values[:n], Scales: scales[:groups*rows], Stride: rows},
	}
	switch dtype {
	case F32:
		w.p.Values.F32 = []float32{}
	case BF16:
		w.p.Values.BF16 = []uint16{}
	default:
		w.p.Values.F16 = []uint16{}
	}
	return w
}

// PackIntegers returns w packed as integers of k. What is stored is what Pack stores; an
// element may become 0 then. It is an error if w has NaN or an infinity.
func PackIntegers(w *Weight, k Integers) (*Packed, error) {
	if err := k.Check(); err != nil || k == (Integers{}) {
		panic(fmt.Sprintf("tensor: PackIntegers: %v: %v", k, err))
	}
	if i := w.FirstNonFinite(); i >= 0 {
		return nil, fmt.Errorf("element [%d %d] is %v, want a finite number", i/w.Cols, i%w.Cols, w.At(i/w.Cols, i%w.Cols))
	}
	masks := make([]byte, w.Rows*kernel.MaskStride(w.Cols))
	stride := kernel.MaskStride(w.Cols)
	first := make([]int64, w.Rows+1)
	eachRow(w.Rows, w.Cols, func(i int) {
		mask := masks[i*stride : (i+1)*stride]
		if w.DType == F32 {
			kernel.Compress32(make([]uint32, w.Cols), mask, bits32(w.w32[i*w.Cols:(i+1)*w.Cols]))
		} else {
			kernel.Compress16(make([]uint16, w.Cols), mask, w.w16[i*w.Cols:(i+1)*w.Cols])
		}
		first[i+1] = int64(k.bytesOf(mask))
	})
	for i := range w.Rows {
		first[i+1] += first[i]
	}
	p := newIntegers(k, w.DType, w.Rows, w.Cols, int(first[w.Rows]))
	p.p.Mask, p.p.First = masks, first
	eachRow(w.Rows, w.Cols, func(i int) {
		row := make([]float32, w.Cols)
		w.Row(row, i)
		p.packRow(k, i, row)
	})
	return p, nil
}

// packRow sets the scales and the integers of row i.
func (w *Packed) packRow(k Integers, i int, row []float32) {
	q := w.p.Integers
	mask := w.p.Mask[i*kernel.MaskStride(w.Cols):]
	to := q.Values[w.p.First[i]:w.p.First[i+1]]
	clear(to)
	var kept []float32
	n := 0 // halves of bytes, or bytes, that are set
	for j := 0; j < w.Cols; j += k.Group {
		end := min(j+k.Group, w.Cols)
		kept = kept[:0]
		for c := j; c < end; c++ {
			if mask[c/8]>>(c%8)&1 != 0 {
				kept = append(kept, row[c])
			}
		}
		s := k.scale(w.DType, kept)
		q.Scales[j/k.Group*q.Stride+i] = s
		if k.Bits == 8 {
			for _, v := range kept {
				to[n] = byte(k.round(v, s))
				n++
			}
			continue
		}
		for c := j; c < end; c++ {
			if c%16 == 0 {
				n += n & 1 // those of 16 columns begin with a whole byte
			}
			if mask[c/8]>>(c%8)&1 != 0 {
				to[n/2] |= byte(k.round(kept[0], s)) & 15 << (n % 2 * 4)
				kept = kept[1:]
				n++
			}
		}
	}
}

// bytesOf returns how many bytes the integers of a row with that mask take.
func (k Integers) bytesOf(mask []byte) int {
	if k.Bits == 4 {
		return kernel.NibbleBytes(mask)
	}
	return kernel.MaskCount(mask)
}

// Bytes returns how many bytes the integers of w take, without masks and scales.
func (k Integers) Bytes(w *Weight) int {
	each := make([]int, w.Rows)
	eachRow(w.Rows, w.Cols, func(i int) {
		if k.Bits == 8 {
			each[i] = w.keptOf(i)
			return
		}
		for j := 0; j < w.Cols; j += 16 {
			part := &Weight{Rows: 1, Cols: min(16, w.Cols-j), DType: w.DType}
			if w.DType == F32 {
				part.w32 = w.w32[i*w.Cols+j:]
			} else {
				part.w16 = w.w16[i*w.Cols+j:]
			}
			each[i] += (part.keptOf(0) + 1) / 2
		}
	})
	n := 0
	for _, b := range each {
		n += b
	}
	return n
}

// NewPackedIntegers returns packed integers of undefined content, n bytes of them without
// masks and scales. Its panics are NewPacked's.
func NewPackedIntegers(k Integers, dtype DType, rows, cols, n int) *Packed {
	if err := k.Check(); err != nil || k == (Integers{}) || !dtype.Computable() {
		panic(fmt.Sprintf("tensor: NewPackedIntegers: %v of %v: %v", k, dtype, err))
	}
	return newIntegers(k, dtype, rows, cols, n)
}

// Integers returns what the values are, zero if they have the weight's type.
func (w *Packed) Integers() Integers {
	if q := w.p.Integers; q != nil {
		return Integers{Bits: q.Bits, Group: q.Group}
	}
	return Integers{}
}

// Scales returns the scales as a weight of w's type: a row for each row, a column for
// each group of columns.
func (w *Packed) Scales() *Weight {
	k, q := w.Integers(), w.p.Integers
	s := NewWeight(w.DType, w.Rows, k.ScaleGroups(w.Cols))
	row := make([]float32, s.Cols)
	for i := range w.Rows {
		for g := range row {
			row[g] = q.Scales[g*q.Stride+i]
		}
		s.SetRow(i, 0, row)
	}
	return s
}

// SetScales sets the scales to s, which is as Scales returns it. It is an error if one of
// them is none.
func (w *Packed) SetScales(s *Weight) error {
	k, q := w.Integers(), w.p.Integers
	if s.DType != w.DType || s.Rows != w.Rows || s.Cols != k.ScaleGroups(w.Cols) {
		panic(fmt.Sprintf("tensor: SetScales: %v of %d × %d for %v of %d × %d", s.DType, s.Rows, s.Cols, w.DType, w.Rows, w.Cols))
	}
	row := make([]float32, s.Cols)
	for i := range w.Rows {
		s.Row(row, i)
		for g, v := range row {
			if !k.validScale(w.DType, v) {
				return fmt.Errorf("scale [%d %d] is %v, want one of %d significant bits, of such a size that products with integers of %d bits are exact", i, g, v, shortBits-k.Bits, k.Bits)
			}
			q.Scales[g*q.Stride+i] = v
		}
	}
	return nil
}
