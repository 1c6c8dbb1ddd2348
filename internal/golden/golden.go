// Package golden compares results with stored ones. Tests import it; nothing
// else does.
package golden

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"testing"
)

// Ceiling fails t if f allocates more than so many bytes, freed or not: what
// reads an input may take a multiple of its size, whatever the input claims. Other
// goroutines' allocations count too.
func Ceiling(t testing.TB, bytes uint64, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > bytes {
		t.Errorf("%d bytes were allocated, want at most %d", got, bytes)
	}
}

// Tolerance bounds a difference: |got − want| ≤ Abs + Rel·|want|.
type Tolerance struct{ Abs, Rel float64 }

// Compare fails t unless got equals want element by element within tol. It
// accepts what is close rather than refusing what is far, so a NaN fails.
func Compare[T float32 | float64](t testing.TB, name string, got, want []T, tol Tolerance) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d elements, want %d", name, len(got), len(want))
		return
	}
	bad, worst, excess := 0, 0, 0.0
	for i := range want {
		g, w := float64(got[i]), float64(want[i])
		bound := tol.Abs + tol.Rel*math.Abs(w)
		if math.Abs(g-w) <= bound {
			continue
		}
		over := math.Abs(g-w) - bound
		if bad == 0 || math.IsNaN(over) || over > excess {
			worst, excess = i, over
		}
		bad++
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d elements are off; the worst is [%d]: got %v, want %v ± %g",
			name, bad, len(want), worst, got[worst], want[worst], tol.Abs+tol.Rel*math.Abs(float64(want[worst])))
	}
}

// MaxAbs returns the largest |a[i] − b[i]|, NaN if any is NaN.
func MaxAbs[T float32 | float64](a, b []T) float64 {
	most := 0.0
	for i := range a {
		most = max(most, math.Abs(float64(a[i])-float64(b[i]))) // max keeps a NaN
	}
	return most
}

// Folders returns the names of the folders in dir. It fails t if there is none:
// a test of goldens must not pass for want of them.
func Folders(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s: no folder in it", dir)
	}
	return names
}

// NLL returns the mean negative log-likelihood, in nats, of each next token of
// ids, sequences × tokens, under logits, sequences × tokens × vocabulary.
func NLL(ids, logits Tensor) float64 {
	tokens, vocab, sum, n := ids.Shape[1], logits.Shape[2], 0.0, 0
	for i, id := range ids.I64 {
		if i%tokens == 0 {
			continue // nothing predicts a sequence's first token
		}
		row, total := logits.F32[(i-1)*vocab:i*vocab], 0.0
		top := float64(slices.Max(row))
		for _, v := range row {
			total += math.Exp(float64(v) - top)
		}
		sum += math.Log(total) + top - float64(row[id])
		n++
	}
	return sum / float64(n)
}

// Tensor is a stored array; the field of its type is set.
type Tensor struct {
	Shape []int
	F32   []float32
	F64   []float64
	I64   []int64
	U8    []uint8 // also of dtype BOOL
}

// Read returns the arrays of a safetensors file by name. It trusts the file.
func Read(t testing.TB, path string) map[string]Tensor {
	t.Helper()
	out, err := read(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return out
}

func read(path string) (map[string]Tensor, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(data)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(data[8:8+n], &header); err != nil {
		return nil, err
	}
	delete(header, "__metadata__")
	out := map[string]Tensor{}
	for name, raw := range header {
		var e struct {
			DType   string
			Shape   []int
			Offsets [2]uint64 `json:"data_offsets"`
		}
		if err := json.Unmarshal(raw, &e); err != nil {
			return nil, err
		}
		tensor := Tensor{Shape: e.Shape}
		if err := tensor.decode(e.DType, data[8+n+e.Offsets[0]:8+n+e.Offsets[1]]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = tensor
	}
	return out, nil
}

func (t *Tensor) decode(dtype string, data []byte) error {
	switch dtype {
	case "F32":
		t.F32 = make([]float32, len(data)/4)
		_, err := binary.Decode(data, binary.LittleEndian, t.F32)
		return err
	case "F64":
		t.F64 = make([]float64, len(data)/8)
		_, err := binary.Decode(data, binary.LittleEndian, t.F64)
		return err
	case "I64":
		t.I64 = make([]int64, len(data)/8)
		_, err := binary.Decode(data, binary.LittleEndian, t.I64)
		return err
	case "U8", "BOOL":
		t.U8 = data
		return nil
	}
	return fmt.Errorf("dtype %s, want F32, F64, I64, U8 or BOOL", dtype)
}
