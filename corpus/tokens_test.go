package corpus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/crepe-llm/crepe/internal/golden"
)

// safetensors is a file with that header before that many bytes, of which the
// first have the values of ids.
func safetensors(header string, data int, ids ...int64) string {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	at := len(b)
	b = append(b, make([]byte, data)...)
	for i, id := range ids {
		binary.LittleEndian.PutUint64(b[at+i*8:], uint64(id))
	}
	return string(b)
}

// windows returns all of s.
func windows(s Source) ([][]int32, error) {
	samples, seqLen, err := s.Shape()
	if err != nil {
		return nil, err
	}
	return s.Windows(samples, seqLen)
}

// A file of a tebibyte costs no more than what is asked of it.
func TestTokensReadsWhatIsAskedFor(t *testing.T) {
	const rows, cols = 1 << 20, 1 << 17
	path := write(t, "a.safetensors", safetensors(
		fmt.Sprintf(`{"input_ids": {"dtype": "I64", "shape": [%d, %d], "data_offsets": [0, %d]}}`, rows, cols, rows*cols*8), 24, 7, 8, 9))
	info, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, info.Size()-24+rows*cols*8)
	}
	if err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	got, err := source(t, path).Windows(2, 3)
	if err != nil || fmt.Sprint(got) != "[[7 8 9] [0 0 0]]" {
		t.Errorf("Windows = %v, %v", got, err)
	}
	if _, err := windows(source(t, path)); err == nil || !strings.Contains(err.Error(), "want at most 268435456 tokens") {
		t.Errorf("all of it: %v", err)
	}
}

func TestTokens(t *testing.T) {
	path := write(t, "a.safetensors", safetensors(
		`{"__metadata__": {"a": "b"}, "attention_mask": {"dtype": "I64", "shape": [0, 3], "data_offsets": [48, 48]},
		  "input_ids": {"dtype": "I64", "shape": [2, 3], "data_offsets": [0, 48]}}`, 48, 1, 2, 3, 4, 5, 2147483647))
	got, err := windows(source(t, path))
	if err != nil || fmt.Sprint(got) != "[[1 2 3] [4 5 2147483647]]" {
		t.Errorf("Windows = %v, %v", got, err)
	}
	if _, err := source(t, path).Text(t.Context(), nil); err == nil {
		t.Error("Text of token windows: no error")
	}
	if _, err := source(t, path).Documents(t.Context(), nil); err == nil {
		t.Error("Documents of token windows: no error")
	}
}

func TestTokensRefuses(t *testing.T) {
	const good = `{"input_ids": {"dtype": "I64", "shape": [2, 3], "data_offsets": [0, 48]}}`
	with := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for _, tc := range []struct{ content, want string }{
		{"", "not a safetensors file"},
		{"\xff\xff\xff\xff\xff\xff\xff\xff{}", "header of 18446744073709551615 bytes"},
		{"\x00\x00\x00\x01\x00\x00\x00\x00{}", "header of 16777216 bytes"},
		{safetensors(`{`, 0), "header"},
		{safetensors(`{}`, 0), "no tensor input_ids"},
		{safetensors(with("I64", "I32"), 48), `"I32" of shape [2 3], want I64 [samples, seqlen]`},
		{safetensors(with("[2, 3]", "[6]"), 48), "want I64 [samples, seqlen]"},
		{safetensors(with("[2, 3]", "[2, 4]"), 48), "shape [2 4] in 48 bytes"},
		{safetensors(with("[2, 3]", "[-2, -3]"), 48), "shape [-2 -3] in 48 bytes"},
		{safetensors(with("[2, 3]", "[4294967296, 4294967296]"), 48), "in 48 bytes"},
		{safetensors(with("[2, 3], \"data_offsets\": [0, 48]", "[0, 3], \"data_offsets\": [0, 0]"), 48), "shape [0 3]"},
		{safetensors(good, 47), "truncated?"},
		{safetensors(with("[0, 48]", "[-48, 0]"), 48), "data offsets"},
		{safetensors(with("[0, 48]", "[48, 0]"), 48), "data offsets"},
		{safetensors(with("[0, 48]", "[]"), 48), "data offsets"},
		{safetensors(good, 48, 1, 2, 3, 4, -5), "input_ids[1, 1] is -5"},
		{safetensors(good, 48, 1, 1<<31), "input_ids[0, 1] is 2147483648"},
	} {
		path := write(t, "a.safetensors", tc.content)
		_, err := windows(source(t, path))
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%.120q: %v, want %q and the name in it", tc.content, err, tc.want)
		}
	}
}

func FuzzTokensHeader(f *testing.F) {
	f.Add([]byte(safetensors(`{"input_ids": {"dtype": "I64", "shape": [2, 3], "data_offsets": [0, 48]}}`, 48)))
	f.Add([]byte(safetensors(`{"input_ids": {"dtype": "I64", "shape": [9223372036854775807, 2], "data_offsets": [0, 48]}}`, 48)))
	f.Fuzz(func(t *testing.T, data []byte) {
		var samples, seqLen int
		var offset int64
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(data)), func() {
			samples, seqLen, offset, err = tokensHeader(bytes.NewReader(data), int64(len(data)))
		})
		if err == nil && (samples < 1 || seqLen < 1 || offset < 8 || offset+int64(samples)*int64(seqLen)*8 > int64(len(data))) {
			t.Errorf("%d × %d at %d in %d bytes", samples, seqLen, offset, len(data))
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte(lines))
	f.Add([]byte("[{\"text\": 1}]"))
	f.Add([]byte("{\"text\": \"a\", \"x\": NaN}\n{\"text\": \"\xe9\"}"))
	f.Add([]byte("\xef\xbb\xbf\n\r\n{\"text\":\"\\ud800\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		var d *records
		var err error
		golden.Ceiling(t, uint64(2<<20+100*len(data)), func() {
			d, err = indexLines(t.Context(), "fuzz", bytes.NewReader(data), &out, maxDocuments)
		})
		if err != nil {
			return
		}
		if !bytes.Equal(out.Bytes(), data) {
			t.Fatalf("the copy is %q, want %q", out.Bytes(), data)
		}
		d.r = bytes.NewReader(data)
		for i := range d.Len() {
			text, err := d.Text(i)
			if err == nil && !utf8.ValidString(text) {
				t.Errorf("document %d is %q, which is not UTF-8", i, text)
			}
			if err == nil && !bytes.Contains(data[d.starts[i]:], []byte("text")) && text != "" {
				t.Errorf("document %d is %q", i, text)
			}
		}
	})
}
