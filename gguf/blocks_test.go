package gguf

import (
	"math"
	"strings"
	"testing"
)

// The golden blocks are tools/golden_gguf.py's.
const blocksFile = "testdata/blocks.gguf"

func openBlocks(t *testing.T) *File {
	t.Helper()
	f, err := Open(blocksFile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func rows(t *testing.T, f *File, name string) ([]float32, Tensor) {
	t.Helper()
	x, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %s in %s", name, blocksFile)
	}
	dst := make([]float32, x.Rows()*x.Cols())
	if err := f.ReadRows(x, dst, 0, x.Rows()); err != nil {
		t.Fatal(err)
	}
	return dst, x
}

// sameBits compares bits; one NaN is as good as another, whose bits depend on
// the processor.
func sameBits(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

func TestDequantizeEqualsPython(t *testing.T) {
	f := openBlocks(t)
	for kind, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			got, x := rows(t, f, l.name)
			want, _ := rows(t, f, l.name+".values")
			if x.Type != kind || len(got) != len(want) || x.Rows() != 3 {
				t.Fatalf("%v, %d elements in %d rows, want %v, %d in 3", x.Type, len(got), x.Rows(), kind, len(want))
			}
			for i := range want {
				if !sameBits(got[i], want[i]) {
					t.Fatalf("element %d: %g (%08x), want %g (%08x)", i, got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
				}
			}
			second := make([]float32, x.Cols())
			if err := f.ReadRows(x, second, 1, 2); err != nil {
				t.Fatal(err)
			}
			for i, v := range second {
				if !sameBits(v, want[x.Cols()+i]) {
					t.Fatalf("row 1 alone: element %d: %g, want %g", i, v, want[x.Cols()+i])
				}
			}
		})
	}
}

func TestQuantizeEqualsPython(t *testing.T) {
	f := openBlocks(t)
	tested := 0
	for kind := range encoders {
		if _, ok := f.Tensor(kind.String() + ".source"); !ok {
			continue
		}
		tested++
		source, _ := rows(t, f, kind.String()+".source")
		blocks, _ := f.Tensor(kind.String() + ".blocks")
		want := make([]byte, blocks.Size)
		if _, err := f.Files()[0].ReadAt(want, blocks.Offset); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, kind.RowBytes(len(source)))
		kind.Quantize(got, source)
		if string(got) != string(want) {
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("%v: byte %d: %#02x, want %#02x", kind, i, got[i], want[i])
					break
				}
			}
		}
	}
	if tested != 3 {
		t.Errorf("%d types have golden blocks, want BF16, Q8_0 and Q4_0", tested)
	}
}

// Exact types come back as they were.
func TestQuantizeExactTypes(t *testing.T) {
	for _, kind := range []Type{F32, F16, BF16} {
		want := []float32{0, 1, -2.5, 0.125, 65504, -0x1p-14, float32(math.Inf(1))}
		if kind == BF16 {
			want[4] = 65536
		}
		raw := make([]byte, kind.RowBytes(len(want)))
		kind.Quantize(raw, want)
		got := make([]float32, len(want))
		kind.Dequantize(got, raw)
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%v: %g, want %g", kind, got[i], want[i])
			}
		}
	}
}

func TestReadableNamesEveryType(t *testing.T) {
	for _, l := range layouts {
		if !strings.Contains(readable, l.name) {
			t.Errorf("the list %q lacks %s", readable, l.name)
		}
	}
}
