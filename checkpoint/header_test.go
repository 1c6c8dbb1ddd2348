package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// TestGolden reads a file that the Python library has made and checks what
// that library reads from it; see tools/golden_checkpoint.py.
func TestGolden(t *testing.T) {
	var want struct {
		Metadata map[string]string
		Tensors  map[string]struct {
			DType  string
			Shape  []int
			SHA256 string
		}
	}
	text, err := os.ReadFile("testdata/golden/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	inv := open(t, "testdata/golden")
	if len(want.Tensors) < 17 || len(inv.Tensors()) != len(want.Tensors) {
		t.Fatalf("%d tensors, want %d, and 17 or more", len(inv.Tensors()), len(want.Tensors))
	}
	for name, w := range want.Tensors {
		x, ok := inv.Tensor(name)
		if !ok {
			t.Errorf("no tensor %q", name)
			continue
		}
		if x.DType.String() != w.DType || !slices.Equal(x.Shape, w.Shape) {
			t.Errorf("%q: %v %v, want %v %v", name, x.DType, x.Shape, w.DType, w.Shape)
		}
		sum := sha256.Sum256(read(t, inv, name))
		if got := hex.EncodeToString(sum[:]); got != w.SHA256 {
			t.Errorf("%q: sha256 of the data %s, want %s", name, got, w.SHA256)
		}
	}
	if len(inv.metadata) != len(want.Metadata) {
		t.Errorf("metadata %v, want %v", inv.metadata, want.Metadata)
	}
	for _, p := range inv.metadata {
		if want.Metadata[p.key] != p.value {
			t.Errorf("metadata %q: %q, want %q", p.key, p.value, want.Metadata[p.key])
		}
	}
}

// TestEncodeAsLibrary checks that a header is written as the Python library
// has written it, byte for byte.
func TestEncodeAsLibrary(t *testing.T) {
	for _, path := range []string{
		"testdata/golden/model.safetensors",
		"../testdata/fixtures/llama-mha/model.safetensors",
		"../testdata/fixtures/llama3-gqa/model-00002-of-00003.safetensors",
	} {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		h, err := readHeader(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		if head := h.encode(); !bytes.Equal(head, file[:len(head)]) {
			t.Errorf("%s: header written as\n%s\nwant\n%s", path, head, file[:len(head)])
		}
	}
}

// withHeader returns a file of the header text and data bytes of data.
func withHeader(text string, data int) []byte {
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	return append(append(file, text...), make([]byte, data)...)
}

func TestReadHeaderRefuses(t *testing.T) {
	one := func(fields string) string { return `{"w":{` + fields + `}}` }
	good := `"dtype":"F32","shape":[2],"data_offsets":[0,8]`
	length := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "0 bytes long"},
		{"short", []byte("1234567"), "7 bytes long"},
		{"huge header", append(length(math.MaxUint64), '{'), "header of 18446744073709551615 bytes"},
		{"header over the limit", append(length(maxHeader+1), '{'), "want at most 100000000"},
		{"header past the end", append(length(9), "{}"...), "truncated"},
		{"no header", length(0), "header of 0 bytes"},
		{"text", []byte("# A model card, and not a model\n"), "header of"},
		{"begins with a space", withHeader(` {}`, 0), "want '{'"},
		{"array", withHeader(`[]`, 0), "want '{'"},
		{"no end", withHeader(`{"w":`, 0), "the end"},
		{"text after it", withHeader(`{} x`, 0), "after the end"},
		{"two objects", withHeader(`{}{}`, 0), "after the end"},
		{"comma at the end", withHeader(`{"__metadata__":{},}`, 0), `want '"'`},
		{"no dtype", withHeader(one(`"shape":[2],"data_offsets":[0,8]`), 8), "no dtype"},
		{"no shape", withHeader(one(`"dtype":"F32","data_offsets":[0,8]`), 8), "no shape"},
		{"no offsets", withHeader(one(`"dtype":"F32","shape":[2]`), 8), "no data_offsets"},
		{"unknown dtype", withHeader(one(`"dtype":"F31","shape":[2],"data_offsets":[0,8]`), 8), `unknown dtype "F31"`},
		{"unknown key", withHeader(one(good+`,"strides":[1]`), 8), `unknown key "strides"`},
		{"key twice", withHeader(one(good+`,"dtype":"I32"`), 8), `key "dtype" is there twice`},
		{"tensor twice", withHeader(`{"w":{`+good+`},"w":{`+good+`}}`, 8), `tensor "w" is there twice`},
		{"tensor twice, escaped", withHeader(`{"w":{`+good+`},"\u0077":{`+good+`}}`, 8), `tensor "w" is there twice`},
		{"metadata twice", withHeader(`{"__metadata__":{},"__metadata__":{}}`, 0), "is there twice"},
		{"metadata key twice", withHeader(`{"__metadata__":{"a":"1","a":"2"}}`, 0), `key "a" is there twice`},
		{"metadata not a string", withHeader(`{"__metadata__":{"a":1}}`, 0), "begin a string"},
		{"tensor is null", withHeader(`{"w":null}`, 0), "want '{'"},
		{"negative", withHeader(one(`"dtype":"F32","shape":[-2],"data_offsets":[0,8]`), 8), "whole number"},
		{"fraction", withHeader(one(`"dtype":"F32","shape":[2.0],"data_offsets":[0,8]`), 8), "not a whole number"},
		{"exponent", withHeader(one(`"dtype":"F32","shape":[2e0],"data_offsets":[0,8]`), 8), "not a whole number"},
		{"leading zero", withHeader(one(`"dtype":"F32","shape":[02],"data_offsets":[0,8]`), 8), "leading zero"},
		{"half a byte", withHeader(one(`"dtype":"F4","shape":[3],"data_offsets":[0,2]`), 2), "shape [3] of F4: 12 bits, want whole bytes"},
		{"bits of 6", withHeader(one(`"dtype":"F6_E2M3","shape":[5],"data_offsets":[0,4]`), 4), "shape [5] of F6_E2M3: 30 bits, want whole bytes"},
		{"bytes of 4 bits", withHeader(one(`"dtype":"F4","shape":[4],"data_offsets":[0,4]`), 4), "want 2 bytes for shape [4] of F4"},
		{"dimension 2⁶⁴", withHeader(one(`"dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8]`), 8), "beyond"},
		{"product overflows", withHeader(one(`"dtype":"U8","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,0]`), 0), "too large"},
		{"bytes overflow", withHeader(one(`"dtype":"F64","shape":[4611686018427387904],"data_offsets":[0,0]`), 0), "too large"},
		{"overflow hidden by 0", withHeader(one(`"dtype":"U8","shape":[9223372036854775807,9223372036854775807,0],"data_offsets":[0,0]`), 0), "too large"},
		{"too many dimensions", withHeader(one(`"dtype":"U8","shape":[`+strings.Repeat("1,", 64)+`1],"data_offsets":[0,1]`), 1), "more than 64"},
		{"size not the shape's", withHeader(one(`"dtype":"F32","shape":[3],"data_offsets":[0,8]`), 8), "want 12 bytes"},
		{"offsets turned", withHeader(one(`"dtype":"F32","shape":[2],"data_offsets":[8,0]`), 8), "data_offsets [8, 0]"},
		{"one offset", withHeader(one(`"dtype":"F32","shape":[2],"data_offsets":[8]`), 8), "1 numbers, want 2"},
		{"three offsets", withHeader(one(`"dtype":"F32","shape":[2],"data_offsets":[0,8,8]`), 8), "more than 2"},
		{"truncated", withHeader(one(good), 7), "truncated"},
		{"trailing", withHeader(one(good), 9), "1 bytes after the last tensor"},
		{"trailing, no tensor", withHeader(`{}`, 3), "3 bytes after the last tensor"},
		{"hole at the start", withHeader(one(`"dtype":"F32","shape":[2],"data_offsets":[4,12]`), 12), "leaves a hole"},
		{"hole", withHeader(`{"w":{`+good+`},"v":{"dtype":"U8","shape":[1],"data_offsets":[9,10]}}`, 10), "leaves a hole"},
		{"overlap", withHeader(`{"w":{`+good+`},"v":{"dtype":"U8","shape":[2],"data_offsets":[7,9]}}`, 9), "overlaps"},
		{"same place", withHeader(`{"w":{`+good+`},"v":{`+good+`}}`, 8), "overlaps"},
		{"empty one within", withHeader(`{"w":{`+good+`},"v":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}}`, 8), "overlaps"},
		{"offsets near 2⁶³", withHeader(one(`"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]`), 1), "hole"},
		{"sizes sum beyond 2⁶³", withHeader(`{"w":{"dtype":"U8","shape":[1152921504606846975],"data_offsets":[0,1152921504606846975]},`+
			`"v":{"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]}}`, 1), "truncated"},
		{"not UTF-8", withHeader("{\"\xff\":{"+good+"}}", 8), "not UTF-8"},
		{"not UTF-8, escaped", withHeader("{\"\\n\xff\":{"+good+"}}", 8), "not UTF-8"},
		{"half a surrogate", withHeader(`{"\ud800":{`+good+`}}`, 8), "half a surrogate"},
		{"unknown escape", withHeader(`{"\x":{`+good+`}}`, 8), "unknown escape"},
		{"short escape", withHeader(`{"\u12`, 0), "four digits"},
		{"signed escape", withHeader(`{"\u+123":{`+good+`}}`, 8), "digits"},
		{"control character", withHeader("{\"a\nb\":{"+good+"}}", 8), "control character"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := readHeader(bytes.NewReader(c.file), int64(len(c.file)))
			wantError(t, err, c.want)
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line", err)
			}
		})
	}
}

func TestReadHeaderAccepts(t *testing.T) {
	for _, c := range []struct {
		name string
		file []byte
		want string // names, sizes
	}{
		{"no tensor", withHeader(`{}`, 0), ""},
		{"padded", withHeader("{}      \n", 0), ""},
		{"white space", withHeader("{ \"w\" :\t{\n\"dtype\" : \"U8\" ,\r\"shape\" : [ ] , \"data_offsets\" : [ 0 , 1 ] } }", 1), "w 1 "},
		{"any order", withHeader(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},"a":{"data_offsets":[0,3],"shape":[3],"dtype":"U8"}}`, 5), "a 3 b 2 "},
		{"empty tensors anywhere", withHeader(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"F32","shape":[0,9],"data_offsets":[0,0]},`+
			`"c":{"dtype":"F32","shape":[9,0],"data_offsets":[2,2]}}`, 2), "a 0 b 2 c 0 "},
		{"shared bytes", withHeader(`{"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]},"b":{"dtype":"F6_E3M2","shape":[4],"data_offsets":[3,6]},`+
			`"c":{"dtype":"F6_E2M3","shape":[0],"data_offsets":[6,6]},"d":{"dtype":"F8_E5M2FNUZ","shape":[1],"data_offsets":[6,7]}}`, 7), "a 3 b 3 c 0 d 1 "},
		{"escapes", withHeader(`{"\u00e9\ud834\udd1e\/\"\\":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "é𝄞/\"\\ 1 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := readHeader(bytes.NewReader(c.file), int64(len(c.file)))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, x := range h.tensors {
				got += fmt.Sprintf("%s %d ", x.Name, x.Size)
			}
			if got != c.want {
				t.Errorf("tensors %q, want %q", got, c.want)
			}
		})
	}
}

// TestHeaderMemory checks that a header's claims cost nothing: a file of a few
// bytes that promises 100 MB must not have them allocated.
func TestHeaderMemory(t *testing.T) {
	file := append(binary.LittleEndian.AppendUint64(nil, maxHeader), '{')
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readHeader(bytes.NewReader(file), int64(len(file))); err == nil {
		t.Fatal("no error")
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes allocated for a header that is not there, want less than 1 MiB", got)
	}
}

// FuzzReadHeader checks that a header is refused or consistent: tensors fill
// the data, names are unique, and what is written reads back the same. The text
// stands for a whole file too.
func FuzzReadHeader(f *testing.F) {
	made, err := os.ReadFile("testdata/golden/model.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(made)
	f.Add(made[8:8+n], uint16(len(made)-8-int(n)))
	f.Add(made, uint16(0))
	f.Add([]byte(lfsPointer), uint16(0))
	f.Add([]byte(`{"__metadata__":null,"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}`), uint16(1))
	f.Add([]byte(`{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}}`), uint16(8))
	f.Add([]byte(`{"w":{"dtype":"F4","shape":[6],"data_offsets":[0,3]}}`), uint16(3))
	f.Add([]byte(`{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}`), uint16(8))
	f.Add([]byte(`{"\u00e9\ud834\udd1e":{"dtype":"U8","shape":[0,1],"data_offsets":[0,0]}}  `), uint16(0))
	f.Fuzz(func(t *testing.T, text []byte, data uint16) {
		_, _ = readHeader(bytes.NewReader(text), int64(len(text)))
		file := withHeader(string(text), int(data))
		var h *header
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(file)), func() { h, err = readHeader(bytes.NewReader(file), int64(len(file))) })
		if err != nil {
			return
		}
		var total int64
		names := map[string]bool{}
		for _, x := range h.tensors {
			if size, err := byteSize(x.DType, x.Shape); err != nil || size != x.Size {
				t.Fatalf("%q: size %d, want %d", x.Name, x.Size, size)
			}
			if x.Offset < 8 || x.Offset+x.Size > int64(len(file)) || names[x.Name] {
				t.Fatalf("%q: bytes %d to %d of %d, twice %v", x.Name, x.Offset, x.Offset+x.Size, len(file), names[x.Name])
			}
			names[x.Name] = true
			total += x.Size
		}
		metadata := slices.Clone(h.metadata)
		again := h.encode()
		again = append(again, file[int64(len(file))-total:]...)
		h2, err := readHeader(bytes.NewReader(again), int64(len(again)))
		if err != nil {
			t.Fatalf("what was written: %v", err)
		}
		if fmt.Sprint(h2.tensors) != fmt.Sprint(h.tensors) || !slices.Equal(h2.metadata, metadata) {
			t.Fatalf("read back %v %v, want %v %v", h2.tensors, h2.metadata, h.tensors, metadata)
		}
	})
}
