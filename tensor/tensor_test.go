package tensor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

func TestParseDTypeKnowsWhatStringPrints(t *testing.T) {
	for d := F32; d <= C64; d++ {
		got, err := ParseDType(d.String())
		if got != d || err != nil {
			t.Errorf("ParseDType(%q) = %v, %v, want %v", d.String(), got, err, d)
		}
		want := d == F32 || d == F16 || d == BF16
		if d.Computable() != want {
			t.Errorf("%v.Computable() = %v, want %v", d, d.Computable(), want)
		}
	}
	for _, name := range []string{"", "f32", "BF16 ", "F4_E2M1", "I4", "C128", "DType(0)"} {
		if got, err := ParseDType(name); got != Invalid || err == nil {
			t.Errorf("ParseDType(%q) = %v, %v, want an error", name, got, err)
		}
	}
	for d, want := range map[DType]string{Invalid: "DType(0)", C64 + 1: "DType(23)"} {
		if got := d.String(); got != want {
			t.Errorf("String of %d = %q, want %q", uint8(d), got, want)
		}
	}
}

// All types that safetensors 0.8 names, and their sizes there.
func TestBits(t *testing.T) {
	known := 0
	for bits, names := range map[int][]string{
		64: {"F64", "I64", "U64", "C64"},
		32: {"F32", "I32", "U32"},
		16: {"F16", "BF16", "I16", "U16"},
		8:  {"I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"},
		6:  {"F6_E2M3", "F6_E3M2"},
		4:  {"F4"},
	} {
		known += len(names)
		for _, name := range names {
			d, err := ParseDType(name)
			if err != nil {
				t.Error(err)
			} else if d.Bits() != bits || d.Size() != bits/8 {
				t.Errorf("%s: %d bits and %d bytes, want %d bits", name, d.Bits(), d.Size(), bits)
			}
		}
	}
	if known != int(C64) {
		t.Errorf("the format has %d types, DType %d", known, C64)
	}
}

// sample is a 3 × 5 weight with every kind of value, as in a file of each type.
var sample = []struct {
	value     float32
	f16, bf16 uint16
}{
	{0, 0x0000, 0x0000},
	{float32(math.Copysign(0, -1)), 0x8000, 0x8000},
	{1, 0x3c00, 0x3f80},
	{-2, 0xc000, 0xc000},
	{0.5, 0x3800, 0x3f00},
	{1.5, 0x3e00, 0x3fc0},
	{-0.0078125, 0xa000, 0xbc00},
	{1984, 0x67c0, 0x44f8},
	{0x1p-14, 0x0400, 0x3880},
	{0x1p-15, 0x0200, 0x3800}, // subnormal as F16
	{float32(math.Inf(1)), 0x7c00, 0x7f80},
	{float32(math.Inf(-1)), 0xfc00, 0xff80},
	{float32(math.NaN()), 0x7e00, 0x7fc0},
	{0, 0x0000, 0x0000},
	{-1, 0xbc00, 0xbf80},
}

const sampleZeros = 3 // −0 is one

// sampleBytes is what a safetensors file holds of sample.
func sampleBytes(d DType) []byte {
	var b []byte
	for _, s := range sample {
		switch d {
		case F32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(s.value))
		case F16:
			b = binary.LittleEndian.AppendUint16(b, s.f16)
		case BF16:
			b = binary.LittleEndian.AppendUint16(b, s.bf16)
		}
	}
	return b
}

func eachWeight(t *testing.T, f func(t *testing.T, w *Weight)) {
	for _, d := range []DType{F32, F16, BF16} {
		t.Run(d.String(), func(t *testing.T) {
			w := NewWeight(d, 3, 5)
			if n := copy(w.Bytes(), sampleBytes(d)); n != 15*d.Size() || len(w.Bytes()) != n {
				t.Fatalf("Bytes has %d bytes, want %d", len(w.Bytes()), 15*d.Size())
			}
			f(t, w)
		})
	}
}

func same(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func TestWeightRowAndAt(t *testing.T) {
	eachWeight(t, func(t *testing.T, w *Weight) {
		row := make([]float32, 5)
		for i := range 3 {
			w.Row(row, i)
			for j, got := range row {
				want := sample[i*5+j].value
				if !same(got, want) || !same(w.At(i, j), want) {
					t.Errorf("(%d, %d): Row %g, At %g, want %g", i, j, got, w.At(i, j), want)
				}
			}
		}
		if !bytes.Equal(w.Bytes(), sampleBytes(w.DType)) {
			t.Error("reading changed the weight")
		}
	})
}

func TestWeightZero(t *testing.T) {
	eachWeight(t, func(t *testing.T, w *Weight) {
		if got := w.Zeros(); got != sampleZeros {
			t.Errorf("Zeros = %d, want %d", got, sampleZeros)
		}
		want := sampleBytes(w.DType)
		size := w.DType.Size()
		for _, k := range []int{1, 7, 12, 14} { // −0 becomes +0, NaN goes
			w.Zero(k)
			clear(want[k*size : (k+1)*size])
		}
		if !bytes.Equal(w.Bytes(), want) {
			t.Errorf("got % x, want % x", w.Bytes(), want)
		}
		if got := w.Zeros(); got != sampleZeros+3 {
			t.Errorf("Zeros = %d, want %d", got, sampleZeros+3)
		}
		for k := range 15 {
			w.Zero(k)
		}
		if got := w.Zeros(); got != 15 {
			t.Errorf("Zeros = %d of 15", got)
		}
	})
}

func TestWeightNonZero(t *testing.T) {
	eachWeight(t, func(t *testing.T, w *Weight) {
		for i := range 3 {
			want := uint64(0)
			for j := range 5 {
				if sample[i*5+j].value != 0 {
					want |= 1 << j
				}
			}
			got := []uint64{math.MaxUint64}
			if w.NonZero(got, i); got[0] != want {
				t.Errorf("row %d: %05b, want %05b", i, got[0], want)
			}
		}
		// Every length of a row, with one weight that is not zero, and with one that is.
		const longest = 140
		for cols := range longest {
			one, others := NewWeight(w.DType, 1, cols), NewWeight(w.DType, 1, cols)
			for i := range others.Bytes() {
				others.Bytes()[i] = 0x11
			}
			for j := range cols {
				at := (j + 1) * w.DType.Size()
				one.Bytes()[at-1] = 0x80 // −0
				set, unset := make([]uint64, (cols+63)/64), make([]uint64, (cols+63)/64)
				for _, b := range []byte{0x80, 1, 0xff} { // the last byte, then the first
					if b != 0x80 {
						one.Bytes()[at-w.DType.Size()] = b
					}
					one.NonZero(set, 0)
					for k := range cols {
						if got, want := set[k/64]>>(k%64)&1 != 0, k == j && b != 0x80; got != want {
							t.Fatalf("%d columns, %#x at %d: [%d] not zero: %v", cols, b, j, k, got)
						}
					}
				}
				clear(one.Bytes())
				others.Zero(j)
				others.NonZero(unset, 0)
				for k := range (cols + 63) / 64 * 64 {
					if got, want := unset[k/64]>>(k%64)&1 != 0, k < cols && k != j; got != want {
						t.Fatalf("%d columns, all but %d: [%d] not zero: %v", cols, j, k, got)
					}
				}
				copy(others.Bytes()[at-w.DType.Size():at], []byte{0x11, 0x11, 0x11, 0x11})
			}
		}
	})
}

func TestWeightSourceAliases(t *testing.T) {
	eachWeight(t, func(t *testing.T, w *Weight) {
		s := w.Source()
		if set := fmt.Sprint(s.F32 != nil, s.F16 != nil, s.BF16 != nil); set !=
			fmt.Sprint(w.DType == F32, w.DType == F16, w.DType == BF16) {
			t.Errorf("Source sets F32, F16, BF16: %s", set)
		}
		w.Zero(2)
		if len(s.F32) > 0 && s.F32[2] != 0 || len(s.F16) > 0 && s.F16[2] != 0 || len(s.BF16) > 0 && s.BF16[2] != 0 {
			t.Error("Source is a copy")
		}
	})
}

func TestWeightOfNothing(t *testing.T) {
	for _, d := range []DType{F32, F16, BF16} {
		for _, shape := range [][2]int{{0, 0}, {0, 4}, {4, 0}} {
			w := NewWeight(d, shape[0], shape[1])
			if len(w.Bytes()) != 0 || w.Zeros() != 0 {
				t.Errorf("%v %v: %d bytes, %d zeros", d, shape, len(w.Bytes()), w.Zeros())
			}
		}
	}
}

func TestPanics(t *testing.T) {
	w := NewWeight(BF16, 2, 3)
	for want, call := range map[string]func(){
		"tensor: NewWeight: dtype I64, want F32, F16 or BF16": func() { NewWeight(I64, 1, 1) },
		"tensor: Weight.Row: len(dst) = 2, want 3":            func() { w.Row(make([]float32, 2), 0) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panic %v, want %s", got, want)
				}
			}()
			call()
		}()
	}
}

func TestMatrixViewsAlias(t *testing.T) {
	m := NewMatrix(4, 3)
	for i := range m.Data {
		m.Data[i] = float32(i)
	}
	s := m.Slice(1, 3)
	if s.Rows != 2 || s.Cols != 3 || s.Row(1)[2] != 8 {
		t.Errorf("Slice(1, 3) = %+v", s)
	}
	s.Row(0)[1] = -1
	if m.Data[4] != -1 {
		t.Error("the views are copies")
	}
	_ = append(m.Row(0), 99)
	_ = append(s.Data, 99)
	if m.Data[3] != 3 || m.Data[9] != 9 {
		t.Error("appending to a view overwrote the matrix")
	}
}

func TestSliceAliases(t *testing.T) {
	for _, d := range []DType{F32, F16, BF16} {
		w := NewWeight(d, 4, 3)
		for i := range w.Bytes() {
			w.Bytes()[i] = byte(1 + i%100) // every element its own, none zero
		}
		s := w.Slice(1, 3)
		if s.Rows != 2 || s.Cols != 3 || s.DType != d || s.At(0, 0) != w.At(1, 0) || s.At(1, 2) != w.At(2, 2) {
			t.Errorf("%v: %d × %d from %v to %v", d, s.Rows, s.Cols, s.At(0, 0), s.At(1, 2))
		}
		s.Zero(4)
		if w.At(2, 1) != 0 || w.Zeros() != 1 || s.Zeros() != 1 {
			t.Errorf("%v: %d zeros in the weight and %d in its rows, want 1 at [2 1]", d, w.Zeros(), s.Zeros())
		}
		if empty := w.Slice(2, 2); empty.Zeros() != 0 || empty.Bytes() != nil {
			t.Errorf("%v: no rows hold %d bytes", d, len(empty.Bytes()))
		}
	}
}
