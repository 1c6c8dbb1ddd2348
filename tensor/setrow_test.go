package tensor

import (
	"math"
	"slices"
	"testing"
)

// Every binary16 comes back, and so does what lies less than half a unit beside
// it; halfway goes to the even one.
func TestNarrowF16(t *testing.T) {
	for h := range uint16(0x7c00) {
		v, next := f16(h), f16(h+1)
		if h+1 == 0x7c00 {
			next = 65536
		}
		middle := (v + next) / 2
		even := h + h&1
		for _, c := range []struct {
			in   float32
			want uint16
		}{
			{v, h}, {math.Nextafter32(middle, 0), h}, {math.Nextafter32(middle, 1e9), h + 1}, {middle, even},
		} {
			for _, sign := range []uint16{0, 0x8000} {
				in := c.in
				if sign != 0 {
					in = -in
				}
				if got := NarrowF16(in); got != c.want|sign {
					t.Fatalf("%v: got %#x, want %#x", in, got, c.want|sign)
				}
			}
		}
	}
	if got := NarrowF16(float32(math.Inf(-1))); got != 0xfc00 {
		t.Errorf("-Inf: got %#x", got)
	}
	if got := NarrowF16(float32(math.NaN())); got&0x7c00 != 0x7c00 || got&0x3ff == 0 {
		t.Errorf("NaN: got %#x, want a NaN", got)
	}
}

func f16(h uint16) float32 {
	w := NewWeight(F16, 1, 1)
	w.w16[0] = h
	return w.At(0, 0)
}

func TestSetRow(t *testing.T) {
	src := []float32{1, -2.5, 0, 1024}
	for _, d := range []DType{F32, F16, BF16} {
		w := NewWeight(d, 3, 4)
		w.SetRow(1, 0, src[:1])
		w.SetRow(1, 1, src[1:])
		got := make([]float32, 4)
		for i, want := range [][]float32{make([]float32, 4), src, make([]float32, 4)} {
			if w.Row(got, i); !slices.Equal(got, want) {
				t.Errorf("%v: row %d is %v, want %v", d, i, got, want)
			}
		}
	}
}
