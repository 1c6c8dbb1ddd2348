package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// goldenPacked is what compressed-tensors wrote (tools/golden_pack.py).
const goldenPacked = "testdata/packed"

// A folder that compressed-tensors packed is read as the plain one: names, types,
// shapes and every bit, at any place, and its config has no entry left.
func TestPackedOfCompressedTensors(t *testing.T) {
	inv := open(t, goldenPacked)
	f, err := os.Open(filepath.Join(goldenPacked, "plain.safetensors.golden"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := readHeader(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	if len(plain.tensors) != len(inv.Tensors()) || len(plain.tensors) != 7 {
		t.Fatalf("%d tensors, want %d", len(inv.Tensors()), len(plain.tensors))
	}
	raw, err := readHeader(inv.files[0].f, inv.files[0].size)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 0))
	for _, want := range plain.tensors {
		data := make([]byte, want.Size)
		if _, err := f.ReadAt(data, want.Offset); err != nil {
			t.Fatal(err)
		}
		got, ok := inv.Tensor(want.Name)
		if !ok || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || inv.Packed(got) == (want.Name == "norm.weight") {
			t.Fatalf("%s: %+v, packed %v, want %v %v", want.Name, got, inv.Packed(got), want.DType, want.Shape)
		}
		for range 50 {
			lo := rng.Int64N(want.Size + 1)
			hi := lo + rng.Int64N(want.Size-lo+1)
			part := make([]byte, hi-lo)
			if err := inv.ReadAt(got, part, lo); err != nil || !bytes.Equal(part, data[lo:hi]) {
				t.Fatalf("%s: bytes %d to %d are not the plain weight's (%v)", want.Name, lo, hi, err)
			}
		}
		if !inv.Packed(got) {
			continue
		}
		w, err := inv.ReadPacked(got)
		if err != nil {
			t.Fatal(err)
		}
		// What crepe writes of it is what compressed-tensors wrote.
		weight := tensor.NewWeight(got.DType, got.Shape[0], got.Shape[1])
		w.Expand(weight, 0)
		parts, bytesOf := PackedTensors(got, tensor.Pack(weight))
		stored := int64(0)
		for i, part := range parts {
			at := slices.IndexFunc(raw.tensors, func(r Tensor) bool { return r.Name == part.Name })
			if at < 0 || raw.tensors[at].DType != part.DType || !slices.Equal(raw.tensors[at].Shape, part.Shape) {
				t.Fatalf("%+v, want a tensor of the file", part)
			}
			there := make([]byte, raw.tensors[at].Size)
			if _, err := inv.files[0].f.ReadAt(there, raw.tensors[at].Offset); err != nil || !bytes.Equal(there, bytesOf[i]) {
				t.Errorf("%s: other bytes than in the file (%v)", part.Name, err)
			}
			stored += part.Size
		}
		if stored != inv.Stored(got) {
			t.Errorf("%s: %d bytes stored, want %d", want.Name, inv.Stored(got), stored)
		}
	}
	config, err := inv.ReadFile(configName, maxConfig)
	if want := "{\n  \"hidden_size\": 64,\n  \"model_type\": \"llama\"\n}"; err != nil || string(config) != want || string(inv.Config()) != want {
		t.Errorf("config %s, %v, want %s", config, err, want)
	}
}

// PackedConfig's entry can be taken away again, whatever the config looks like.
func TestPackedConfig(t *testing.T) {
	for _, config := range []string{
		"{\"a\": 1}", "{\n  \"a\": [1, {\"b\": \"}\"}],\n  \"n\": NaN\n}\n", "{ \"a\":null\t}\n\n", "{\"a\": Infinity, \"b\": -Infinity}",
	} {
		out, err := PackedConfig([]byte(config), tensor.Integers{}, []string{"x.q", "x.\"k\""}, 0.5)
		if err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		if plain, ok := plainConfig(out); !ok || string(plain) != config {
			t.Errorf("%q becomes %q and then %q", config, out, plain)
		}
	}
	for config, want := range map[string]string{
		`{"quantization_config": {}}`: "quantization_config already",
		`{"compression_config": 1}`:   "compression_config already",
		`{}`:                          "cannot be given",
		`[]`:                          "config.json",
	} {
		if out, err := PackedConfig([]byte(config), tensor.Integers{}, nil, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %s, %v, want an error with %q", config, out, err, want)
		}
	}
	for _, config := range []string{
		`{"quantization_config": {"sparsity_config": {"format": "dense"}}}`,
		`{"quantization_config": {"format": "pack-quantized", "sparsity_config": {"format": "sparse-bitmask"}}}`,
		`{"quantization_config": {"config_groups": {"a": 1}, "sparsity_config": {"format": "sparse-bitmask"}}}`,
		`{"a": 1}`, `x`, `{"quantization_config": 3}`,
	} {
		if plain, ok := plainConfig([]byte(config)); ok {
			t.Errorf("%s: taken for a packed one: %s", config, plain)
		}
	}
	first := `{"compression_config": {"sparsity_config": {"format": "sparse-bitmask"}} , "b": 2}`
	if plain, ok := plainConfig([]byte(first)); !ok || string(plain) != `{ "b": 2}` {
		t.Errorf("the first of two: %s, %v", plain, ok)
	}
}

const packedConfig = `{"a": 1, "quantization_config": {"sparsity_config": {"format": "sparse-bitmask"}}}`

// part is one tensor of a packed weight, to be made.
type part struct {
	name  string
	dtype tensor.DType
	shape []int
	data  []byte
}

func int64s(v ...int64) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}
	return b
}

// packedParts2x9 are those of a weight [2 9] with 3 elements, columns 0 and 8 of the
// first row and 1 of the second.
func packedParts2x9() []part {
	return []part{
		{"x.shape", tensor.I64, []int{2}, int64s(2, 9)},
		{"x.row_offsets", tensor.I64, []int{2}, int64s(0, 2)},
		{"x.bitmask", tensor.U8, []int{2, 2}, []byte{1, 1, 2, 0}},
		{"x.compressed", tensor.BF16, []int{3}, []byte{1, 0, 2, 0, 3, 0}},
	}
}

func packedFolder(t testing.TB, parts []part) string {
	h := header{metadata: []pair{{"format", "pt"}}}
	for _, p := range parts {
		h.tensors = append(h.tensors, Tensor{Name: p.name, DType: p.dtype, Shape: p.shape, Size: int64(len(p.data))})
	}
	file := h.encode()
	for _, p := range parts {
		file = append(file, p.data...)
	}
	return folder(t, map[string]string{configName: packedConfig, singleName: string(file)})
}

func TestPackedByHand(t *testing.T) {
	for _, old := range []bool{false, true} {
		parts := packedParts2x9()
		if old { // the names of old versions
			for i := range parts {
				parts[i].name = strings.Replace(parts[i].name, "x.", "x.weight.", 1)
			}
		}
		inv := open(t, packedFolder(t, parts))
		x, ok := inv.Tensor("x.weight")
		if !ok || x.Size != 36 || inv.Stored(x) != 16+16+4+6 {
			t.Fatalf("%+v, %d bytes stored", inv.Tensors(), inv.Stored(x))
		}
		got := make([]byte, 36)
		want := make([]byte, 36)
		want[0], want[16], want[20] = 1, 2, 3
		if err := inv.Read(x, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
}

// What does not fit together is refused with its name, before memory is taken for it.
func TestPackedRefuses(t *testing.T) {
	huge := int64(math.MaxInt64)
	for name, c := range map[string]struct {
		change func(p []part) []part
		want   string
	}{
		"no shape":        {func(p []part) []part { return p[1:] }, "no tensor x.shape"},
		"no mask":         {func(p []part) []part { return slices.Delete(p, 2, 3) }, "no tensor x.bitmask"},
		"no values":       {func(p []part) []part { return p[:3] }, "no x.compressed beside it"},
		"mask of floats":  {func(p []part) []part { p[2].dtype, p[2].shape = tensor.F32, []int{1, 1}; return p }, "bitmask is F32"},
		"mask of one dim": {func(p []part) []part { p[2].shape = []int{4}; return p }, "bitmask is U8 [4]"},
		"values of ints":  {func(p []part) []part { p[3].dtype = tensor.I16; return p }, "compressed is I16"},
		"three sizes":     {func(p []part) []part { p[0].shape, p[0].data = []int{3}, int64s(2, 9, 1); return p }, "shape has 3 elements"},
		"no rows": {func(p []part) []part {
			p[0].data, p[1].shape, p[1].data = int64s(0, 9), []int{0}, nil
			p[2].shape, p[2].data = []int{0, 2}, nil
			return p
		}, "shape [0 9], want one element at least"},
		"no columns": {func(p []part) []part {
			p[0].data, p[2].shape, p[2].data = int64s(2, 0), []int{2, 0}, nil
			return p
		}, "shape [2 0], want one element at least"},
		"other rows":      {func(p []part) []part { p[0].data = int64s(3, 9); return p }, "shape [3 9]"},
		"huge rows":       {func(p []part) []part { p[0].data = int64s(huge, 9); return p }, "shape ["},
		"huge columns":    {func(p []part) []part { p[0].data = int64s(2, huge); return p }, "shape [2 "},
		"negative":        {func(p []part) []part { p[0].data = int64s(-1, 9); return p }, "shape ["},
		"more columns":    {func(p []part) []part { p[0].data = int64s(2, 17); return p }, "shape [2 17]"},
		"fewer columns":   {func(p []part) []part { p[0].data = int64s(2, 8); return p }, "shape [2 8]"},
		"fewer offsets":   {func(p []part) []part { p[1].shape, p[1].data = []int{1}, int64s(0); return p }, "row_offsets [1]"},
		"too many values": {func(p []part) []part { p[3].shape, p[3].data = []int{19}, make([]byte, 38); return p }, "19 values for 2 × 9"},
		"bit past the end": {func(p []part) []part { p[2].data[1] = 3; return p },
			"row 0: the mask has bits past column 9"},
		"unordered":       {func(p []part) []part { p[1].data = int64s(2, 0); return p }, "row 1: values from -2"},
		"negative offset": {func(p []part) []part { p[1].data = int64s(-2, 2); return p }, "row_offsets from -2"},
		"huge offset":     {func(p []part) []part { p[1].data = int64s(0, huge); return p }, "row 1: values from"},
		"wrong offset":    {func(p []part) []part { p[1].data = int64s(0, 1); return p }, "row 1: values from 1 on, the masks of the rows before it have 2 bits"},
		"missing bit":     {func(p []part) []part { p[2].data[2] = 0; return p }, "3 values, the mask has 2 bits"},
		"plain, too": {func(p []part) []part {
			return append(p, part{"x.weight", tensor.BF16, []int{1}, []byte{0, 0}})
		}, "plain and packed"},
	} {
		inv, err := Open(packedFolder(t, c.change(packedParts2x9())))
		if err == nil {
			x, _ := inv.Tensor("x.weight")
			err = inv.Read(x, make([]byte, x.Size))
			if _, perr := inv.ReadPacked(x); fmt.Sprint(perr) == "<nil>" {
				t.Errorf("%s: ReadPacked has no error", name)
			}
			inv.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzPacked opens anything as the tensors of a packed weight and reads what it then
// is said to be. A column takes a bit at least, so nothing takes more memory than some
// multiple of the file.
func FuzzPacked(f *testing.F) {
	p := packedParts2x9()
	f.Add(uint16(2), uint16(2), uint16(2), uint16(3), p[0].data, p[1].data, p[2].data, p[3].data)
	f.Add(uint16(1), uint16(1), uint16(1), uint16(0), int64s(1, 8), int64s(0), []byte{0}, []byte{})
	// All columns, none, many rows, a wide mask of which little is said to be used.
	f.Add(uint16(1), uint16(1), uint16(1), uint16(8), int64s(1, 8), int64s(0), []byte{255}, []byte{1, 2, 3})
	f.Add(uint16(4096), uint16(1), uint16(4096), uint16(0), int64s(4096, 1), []byte{}, []byte{}, []byte{})
	f.Add(uint16(1), uint16(4096), uint16(1), uint16(0), int64s(1, 1<<15), []byte{}, []byte{}, []byte{})
	f.Add(uint16(1), uint16(4096), uint16(1), uint16(1), int64s(1, 1), int64s(0), []byte{1}, []byte{1, 2})
	// Rows that begin past the values, before them, and backwards; sizes that overflow.
	f.Add(uint16(2), uint16(1), uint16(2), uint16(1), int64s(2, 8), int64s(0, math.MaxInt64), []byte{1, 0}, []byte{1, 2})
	f.Add(uint16(2), uint16(1), uint16(2), uint16(1), int64s(2, 8), int64s(math.MinInt64, 0), []byte{1, 0}, []byte{1, 2})
	f.Add(uint16(2), uint16(1), uint16(2), uint16(1), int64s(2, 8), int64s(1, 0), []byte{0, 1}, []byte{1, 2})
	f.Add(uint16(0), uint16(0), uint16(0), uint16(0), int64s(0, math.MaxInt64), []byte{}, []byte{}, []byte{})
	f.Add(uint16(0), uint16(8), uint16(0), uint16(0), int64s(0, 64), []byte{}, []byte{}, []byte{})
	f.Add(uint16(8), uint16(0), uint16(8), uint16(0), int64s(8, 0), []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, rows, stride, offsets, kept uint16, shape, first, mask, values []byte) {
		parts := packedParts2x9()
		if int(rows)*int(stride) > 1<<16 {
			return
		}
		fit := func(data []byte, n int) []byte { return append(slices.Clone(data), make([]byte, n)...)[:n] }
		parts[0].data = fit(shape, 16)
		parts[1].shape, parts[1].data = []int{int(offsets)}, fit(first, 8*int(offsets))
		parts[2].shape, parts[2].data = []int{int(rows), int(stride)}, fit(mask, int(rows)*int(stride))
		parts[3].shape, parts[3].data = []int{int(kept)}, fit(values, 2*int(kept))
		size := 0
		for _, p := range parts {
			size += len(p.data)
		}
		dir := packedFolder(t, parts)
		var inv *Inventory
		var err error
		golden.Ceiling(t, uint64(256<<10), func() { inv, err = Open(dir) })
		if err != nil {
			return
		}
		defer inv.Close()
		x, _ := inv.Tensor("x.weight")
		if x.Size > 16*int64(len(parts[2].data)) {
			t.Fatalf("%v from a mask of %d bytes", x.Shape, len(parts[2].data))
		}
		plain := make([]byte, x.Size)
		var w *tensor.Packed
		var perr error
		golden.Ceiling(t, uint64(256<<10+64*size), func() {
			err = inv.Read(x, plain)
			w, perr = inv.ReadPacked(x)
		})
		if (err == nil) != (perr == nil) {
			t.Fatalf("Read: %v, ReadPacked: %v", err, perr)
		}
		if err == nil {
			dense := tensor.NewWeight(x.DType, x.Shape[0], x.Shape[1])
			w.Expand(dense, 0)
			if !bytes.Equal(dense.Bytes(), plain) {
				t.Fatal("Read and ReadPacked differ")
			}
		}
	})
}

// packedIntegers2x9 are the parts of the same weight as integers of 8 bits: 1·2⁻¹, −2·2⁻¹
// and 3·2³.
func packedIntegers2x9() []part {
	p := packedParts2x9()
	p[0].shape, p[0].data = []int{3}, int64s(2, 9, 32)
	p[3] = part{"x.compressed", tensor.I8, []int{3}, []byte{1, 0xfe, 3}}
	return append(p, part{"x.scale", tensor.BF16, []int{2, 1}, []byte{0x00, 0x3f, 0x00, 0x41}})
}

func TestPackedIntegersByHand(t *testing.T) {
	want := make([]byte, 36)
	for at, v := range map[int]uint16{0: 0x3f00, 16: 0xbf80, 20: 0x41c0} { // 0.5, −1, 24
		binary.LittleEndian.PutUint16(want[at:], v)
	}
	four := packedIntegers2x9() // two in a byte, the second row's in its own
	four[1].data = int64s(0, 1)
	four[3] = part{"x.compressed", tensor.U8, []int{2}, []byte{0xe1, 0x03}}
	for i, parts := range [][]part{packedIntegers2x9(), four} {
		inv := open(t, packedFolder(t, parts))
		x, ok := inv.Tensor("x.weight")
		bits, stored := []int{8, 4}[i], 24+16+4+[]int64{3, 2}[i]+4
		if !ok || x.Size != 36 || x.DType != tensor.BF16 || inv.Stored(x) != stored || inv.Resident(x) != stored+4 || inv.Integers(x) != (tensor.Integers{Bits: bits, Group: 32}) {
			t.Fatalf("%+v, %d bytes stored, %v", inv.Tensors(), inv.Stored(x), inv.Integers(x))
		}
		got := make([]byte, 36)
		if err := inv.Read(x, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bits: %x, %v, want %x", bits, got, err, want)
		}
		if kept, err := inv.Kept(x); kept != 3 || err != nil {
			t.Errorf("%d bits: %d kept, %v", bits, kept, err)
		}
		w, err := inv.ReadPacked(x)
		if err != nil {
			t.Fatal(err)
		}
		again, data := PackedTensors(x, w)
		for j, part := range again {
			if in := parts[j]; in.name != part.Name || in.dtype != part.DType || !slices.Equal(in.shape, part.Shape) || !bytes.Equal(in.data, data[j]) {
				t.Errorf("%d bits: %v %v, want what was read: %+v", bits, part, data[j], in)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(p []part) []part
		want   string
	}{
		"two sizes":      {func(p []part) []part { p[0].shape, p[0].data = []int{2}, int64s(2, 9); return p }, "shape has 2 elements, want 3"},
		"group":          {func(p []part) []part { p[0].data = int64s(2, 9, 33); return p }, "33 columns to a scale"},
		"huge group":     {func(p []part) []part { p[0].data = int64s(2, 9, -1); return p }, "columns to a scale"},
		"few scales":     {func(p []part) []part { p[4].shape, p[4].data = []int{1, 1}, []byte{0, 0x3f}; return p }, "scale [1 1], want [2 1]"},
		"flat scales":    {func(p []part) []part { p[4].shape = []int{2}; return p }, "scale is BF16 [2]"},
		"scales of ints": {func(p []part) []part { p[4].dtype = tensor.I16; return p }, "scale is I16"},
		"long scale":     {func(p []part) []part { p[4].data[0] = 1; return p }, "scale [0 0] is 0.50"},
		"negative scale": {func(p []part) []part { p[4].data[3] = 0xc1; return p }, "scale [1 0] is -8"},
		"values of 16":   {func(p []part) []part { p[3].dtype, p[3].data = tensor.I16, make([]byte, 6); return p }, "compressed is I16, want I8 or U8"},
		"too many":       {func(p []part) []part { p[3].shape, p[3].data = []int{4}, make([]byte, 4); return p }, "4 values, the mask has 3 bytes of integers"},
		"wrong offset":   {func(p []part) []part { p[1].data = int64s(0, 1); return p }, "row 1: values from 1 on"},
	} {
		inv, err := Open(packedFolder(t, c.change(packedIntegers2x9())))
		if err == nil {
			x, _ := inv.Tensor("x.weight")
			err = inv.Read(x, make([]byte, x.Size))
			inv.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// Of a folder without packed values so called, a scale is a tensor like others.
	parts := append(packedParts2x9(), part{"norm.scale", tensor.BF16, []int{1}, []byte{0, 0}})
	if _, ok := open(t, packedFolder(t, parts)).Tensor("norm.scale"); !ok {
		t.Error("norm.scale is no tensor")
	}
}

// FuzzPackedIntegers is FuzzPacked for integers.
func FuzzPackedIntegers(f *testing.F) {
	p := packedIntegers2x9()
	f.Add(false, uint16(2), uint16(2), uint16(3), p[0].data, p[1].data, p[2].data, p[3].data, p[4].data)
	f.Add(true, uint16(2), uint16(2), uint16(2), p[0].data, int64s(0, 1), p[2].data, []byte{0xe1, 3}, p[4].data)
	// Many rows of a column, a wide row without elements, all elements, no rows.
	f.Add(true, uint16(4096), uint16(1), uint16(0), int64s(4096, 1, 32), []byte{}, []byte{}, []byte{}, []byte{})
	f.Add(false, uint16(1), uint16(4096), uint16(0), int64s(1, 1<<15, 32), []byte{}, []byte{}, []byte{}, []byte{})
	f.Add(true, uint16(1), uint16(1), uint16(4), int64s(1, 8, 128), int64s(0), []byte{255}, []byte{1, 2, 3, 4}, []byte{0x80, 0x3f})
	f.Add(false, uint16(0), uint16(8), uint16(0), int64s(0, 64, 64), []byte{}, []byte{}, []byte{}, []byte{})
	f.Add(true, uint16(2), uint16(1), uint16(1), int64s(2, 8, 32), int64s(math.MinInt64, 0), []byte{1, 0}, []byte{1}, []byte{0, 0x3f, 0, 0x3f})
	f.Fuzz(func(t *testing.T, four bool, rows, stride, stored uint16, shape, first, mask, values, scales []byte) {
		if int(rows)*int(stride) > 1<<16 {
			return
		}
		parts := packedIntegers2x9()
		fit := func(data []byte, n int) []byte { return append(slices.Clone(data), make([]byte, n)...)[:n] }
		parts[0].data = fit(shape, 24)
		parts[1].shape, parts[1].data = []int{int(rows)}, fit(first, 8*int(rows))
		parts[2].shape, parts[2].data = []int{int(rows), int(stride)}, fit(mask, int(rows)*int(stride))
		parts[3].shape, parts[3].data = []int{int(stored)}, fit(values, int(stored))
		if four {
			parts[3].dtype = tensor.U8
		}
		group := max(1, int(binary.LittleEndian.Uint64(parts[0].data[16:])&0xff))
		parts[4].shape = []int{int(rows), (8*int(stride) + group - 1) / group}
		parts[4].data = fit(scales, 2*parts[4].shape[0]*parts[4].shape[1])
		size := 0
		for _, p := range parts {
			size += len(p.data)
		}
		dir := packedFolder(t, parts)
		var inv *Inventory
		var err error
		golden.Ceiling(t, uint64(256<<10), func() { inv, err = Open(dir) })
		if err != nil {
			return
		}
		defer inv.Close()
		x, _ := inv.Tensor("x.weight")
		if x.Size > 16*int64(len(parts[2].data)) {
			t.Fatalf("%v from a mask of %d bytes", x.Shape, len(parts[2].data))
		}
		plain := make([]byte, x.Size)
		var w *tensor.Packed
		var perr error
		golden.Ceiling(t, uint64(256<<10+64*size), func() {
			err = inv.Read(x, plain)
			w, perr = inv.ReadPacked(x)
		})
		if (err == nil) != (perr == nil) {
			t.Fatalf("Read: %v, ReadPacked: %v", err, perr)
		}
		if err != nil {
			return
		}
		if most := inv.Resident(x) + 8; w.Bytes() > most {
			t.Fatalf("%d bytes in memory, want at most %d", w.Bytes(), most)
		}
		dense := tensor.NewWeight(x.DType, x.Shape[0], x.Shape[1])
		w.Expand(dense, 0)
		if !bytes.Equal(dense.Bytes(), plain) || dense.FirstNonFinite() >= 0 {
			t.Fatal("Read and ReadPacked differ, or are not finite")
		}
	})
}

// The entry of packed integers can be taken away again, too.
func TestPackedIntegersConfig(t *testing.T) {
	for _, bits := range []int{8, 4} {
		out, err := PackedConfig([]byte("{\"a\": 1}"), tensor.Integers{Bits: bits, Group: 64}, []string{"x.q"}, 0.5)
		if want := fmt.Sprintf(`"format": "sparse-bitmask-int%d"`, bits); err != nil || !strings.Contains(string(out), want) || !strings.Contains(string(out), `"quant_method": "crepe"`) {
			t.Fatalf("%s, %v, want %s", out, err, want)
		}
		if plain, ok := plainConfig(out); !ok || string(plain) != "{\"a\": 1}" {
			t.Errorf("%s becomes %q", out, plain)
		}
	}
	if _, ok := plainConfig([]byte(`{"quantization_config": {"quant_method": "crepe", "format": "int3"}}`)); ok {
		t.Error("an unknown format is taken for a packed one")
	}
}
