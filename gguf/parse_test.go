package gguf

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// builder writes heads of files, right or wrong.
type builder struct{ data []byte }

func (b *builder) u32(v uint32) { b.data = binary.LittleEndian.AppendUint32(b.data, v) }
func (b *builder) u64(v uint64) { b.data = binary.LittleEndian.AppendUint64(b.data, v) }
func (b *builder) text(s string) {
	b.u64(uint64(len(s)))
	b.data = append(b.data, s...)
}

func begin(version uint32, tensors, keys uint64) *builder {
	b := &builder{data: []byte("GGUF")}
	b.u32(version)
	b.u64(tensors)
	b.u64(keys)
	return b
}

func (b *builder) tensor(name string, kind Type, offset uint64, dims ...uint64) *builder {
	b.text(name)
	b.u32(uint32(len(dims)))
	for _, d := range dims {
		b.u64(d)
	}
	b.u32(uint32(kind))
	b.u64(offset)
	return b
}

func (b *builder) key(name string, kinds ...Kind) *builder {
	b.text(name)
	for _, k := range kinds {
		b.u32(uint32(k))
	}
	return b
}

// pad ends the head and adds so many bytes of data.
func (b *builder) pad(n int) *builder {
	b.data = append(b.data, make([]byte, int(align(int64(len(b.data)), 32))-len(b.data)+n)...)
	return b
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenRefuses(t *testing.T) {
	good := begin(3, 1, 0).tensor("w", F32, 0, 4, 2).pad(32).data
	swapped := append([]byte("GGUF\x00\x00\x00\x03"), good[8:]...)
	many := func(b *builder, v uint64) []byte { b.u64(v); return b.data }
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"empty":           {nil, "not a GGUF file"},
		"other":           {[]byte("PK\x03\x04 a zip file"), "not a GGUF file"},
		"version 1":       {begin(1, 0, 0).data, "GGUF version 1, want 2 or 3"},
		"version 4":       {begin(4, 0, 0).data, "GGUF version 4"},
		"big-endian":      {swapped, "a big-endian GGUF file, want little-endian"},
		"head cut":        {good[:40], "truncated"},
		"data cut":        {good[:len(good)-1], "tensor w: bytes 0 to 32 of 31 bytes of data: truncated"},
		"no data":         {begin(3, 1, 0).tensor("w", F32, 0, 4).data, "tensor w: bytes 0 to 16 of 0"},
		"offset outside":  {begin(3, 1, 0).tensor("w", F32, 1<<40, 4).pad(32).data, "tensor w: bytes 1099511627776"},
		"offset huge":     {begin(3, 1, 0).tensor("w", F32, 1<<63, 4).pad(32).data, "tensor w: offset 9223372036854775808"},
		"offset odd":      {begin(3, 1, 0).tensor("w", F32, 8, 4).pad(64).data, "tensor w: offset 8, want a multiple of 32"},
		"overlap":         {begin(3, 2, 0).tensor("v", F32, 0, 16).tensor("w", F32, 32, 8).pad(64).data, "tensor w: offset 32, within tensor v"},
		"twice":           {begin(3, 2, 0).tensor("w", F32, 0, 8).tensor("w", F32, 32, 8).pad(64).data, "tensor w is there twice"},
		"type":            {begin(3, 1, 0).tensor("w", 16, 0, 256).pad(512).data, "tensor w: stored as IQ2_XXS, want F32, F16"},
		"type unknown":    {begin(3, 1, 0).tensor("w", 999, 0, 256).pad(512).data, "tensor w: stored as type 999"},
		"row":             {begin(3, 1, 0).tensor("w", Q4_0, 0, 33).pad(64).data, "tensor w: rows of 33 elements, want a multiple of 32 for Q4_0"},
		"dimensions":      {begin(3, 1, 0).tensor("w", F32, 0, 1, 1, 1, 1, 1).pad(64).data, "tensor w: 5 dimensions"},
		"empty dimension": {begin(3, 1, 0).tensor("w", F32, 0, 0).pad(64).data, "tensor w: dimension 0"},
		"huge dimension":  {begin(3, 1, 0).tensor("w", F32, 0, 1<<62, 1<<62).pad(64).data, "tensor w: dimension 4611686018427387904"},
		"tensors":         {begin(3, 1<<40, 0).data, "1099511627776 tensors, want at most"},
		"keys":            {begin(3, 0, 1<<40).data, "1099511627776 keys, want at most"},
		"key twice": {func() []byte {
			b := begin(3, 0, 2).key("a", Uint8)
			b.data = append(b.data, 1)
			b.key("a", Uint8)
			return append(b.data, 1)
		}(), "key a is there twice"},
		"kind":             {begin(3, 0, 1).key("a", 77).data, "key a: a value of kind 77"},
		"array of arrays":  {many(begin(3, 0, 1).key("a", Array, Array), 1), "key a: a value of array"},
		"array's length":   {many(begin(3, 0, 1).key("a", Array, Uint64), 1<<60), "key a: 1152921504606846976 elements in a file of"},
		"string's length":  {many(begin(3, 0, 1).key("a", String), 1<<62), "key a: 4611686018427387904 bytes from byte"},
		"strings in array": {func() []byte { b := begin(3, 0, 1).key("a", Array, String); b.u64(2); b.u64(1 << 50); return b.data }(), "key a: 1125899906842624 bytes"},
		"alignment":        {func() []byte { b := begin(3, 0, 1).key("general.alignment", Uint32); b.u32(24); return b.data }(), "general.alignment: 24, want a power of two"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "m.gguf", c.data)
			_, err := Open(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want the file and %q", err, c.want)
			}
		})
	}
}

func split(no, count, tensors int, name string) []byte {
	b := begin(3, 1, 3).key(splitNo, Uint16)
	b.data = binary.LittleEndian.AppendUint16(b.data, uint16(no))
	b.key(splitCount, Uint16)
	b.data = binary.LittleEndian.AppendUint16(b.data, uint16(count))
	b.key(splitTensors, Int32).u32(uint32(tensors))
	b.tensor(name, F32, 0, 8).pad(0)
	for i := range 8 {
		b.u32(0x3f800000 + uint32(no*8+i)<<16)
	}
	return b.data
}

func TestSplits(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := put("m-00001-of-00002.gguf", split(0, 2, 2, "a"))
	if _, err := Open(first); err == nil || !strings.Contains(err.Error(), "m-00002-of-00002.gguf: missing") {
		t.Errorf("a split missing: %v", err)
	}
	second := put("m-00002-of-00002.gguf", split(1, 2, 2, "b"))
	f, err := Open(first)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, ok := f.Tensor("b")
	row := make([]float32, 8)
	if !ok || f.ReadRows(b, row, 0, 1) != nil || row[0] != 1.0625 {
		t.Errorf("tensor b of the second split: %v %v", ok, row)
	}
	for name, c := range map[string]struct{ path, want string }{
		"second":  {second, "split 2 of 2: name the first, "},
		"renamed": {put("m.gguf", split(0, 2, 2, "a")), "one of 2 splits: want a name like model-00001-of-00002.gguf"},
		"of 3":    {put("n-00001-of-00003.gguf", split(0, 2, 2, "a")), "the first of 2 splits"},
		"order":   {put("o-00001-of-00002.gguf", split(0, 2, 2, "a")), "split.no: 0, want a whole number in [1, 1]"},
		"tensors": {put("p-00001-of-00002.gguf", split(0, 2, 3, "a")), "split.tensors.count: 3, want a whole number in [2, 2]"},
		"twice":   {put("q-00001-of-00002.gguf", split(0, 2, 2, "b")), "tensor b is in another split too"},
	} {
		put("o-00002-of-00002.gguf", split(0, 2, 2, "b"))
		put("p-00002-of-00002.gguf", split(1, 2, 3, "b"))
		put("q-00002-of-00002.gguf", split(1, 2, 2, "b"))
		if _, err := Open(c.path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestReadRowsOfAFileThatShrinks(t *testing.T) {
	path := write(t, "m.gguf", begin(3, 1, 0).tensor("w", F32, 0, 4, 2).pad(32).data)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	w, _ := f.Tensor("w")
	if err := f.ReadRows(w, make([]float32, 8), 0, 2); err == nil || !strings.Contains(err.Error(), "tensor w: the file has become shorter") {
		t.Error(err)
	}
}
