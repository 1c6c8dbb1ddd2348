package tensor

import "testing"

func TestFirstNonFinite(t *testing.T) {
	for _, dtype := range []DType{F32, F16, BF16} {
		w := NewWeight(dtype, 3, 300_000)
		if got := w.FirstNonFinite(); got != -1 {
			t.Errorf("%v: zeros: got %d, want -1", dtype, got)
		}
		size := dtype.Size()
		largest := map[DType][]byte{F32: {0xff, 0xff, 0x7f, 0xff}, F16: {0xff, 0xfb}, BF16: {0x7f, 0xff}}[dtype]
		for i := range w.Bytes() {
			w.Bytes()[i] = largest[i%size]
		}
		if got := w.FirstNonFinite(); got != -1 {
			t.Errorf("%v: the largest negative number: got %d, want -1", dtype, got)
		}
		for _, at := range []int{899_999, 600_001, 262_146, 262_145, 262_144, 135, 70, 7} {
			// All bits set is a NaN in each type.
			data := w.Bytes()[at*size:][:size]
			for i := range data {
				data[i] = 0xff
			}
			if got := w.FirstNonFinite(); got != at {
				t.Errorf("%v: got %d, want %d", dtype, got, at)
			}
		}
	}
}
