package parquet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// row is row i of the files that tools/golden_parquet.py makes.
func row(i int) string {
	if i%5 == 0 {
		return ""
	}
	return fmt.Sprintf(" row %d é世 ", i%97) + strings.Repeat("x", i*7%50) + "\n"
}

const rows = 400

func TestStringsOfEveryEncoding(t *testing.T) {
	files, err := filepath.Glob("testdata/[^bn]*.parquet")
	if err != nil || len(files) != 10 {
		t.Fatalf("files %v, %v, want 10", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		err = Strings(bytes.NewReader(data), int64(len(data)), "text", func(v []byte) error {
			if string(v) != row(i) {
				return fmt.Errorf("row %d is %q, want %q", i, v, row(i))
			}
			i++
			return nil
		})
		if err != nil || i != rows {
			t.Errorf("%s: %d rows, %v, want %d", file, i, err, rows)
		}
	}
}

func TestStringsRefuses(t *testing.T) {
	for name, want := range map[string]string{
		"null":     "row 8: column text: null, want a string",
		"lz4":      "compressed with lz4_raw; known: none, snappy, gzip, zstd",
		"twice":    "two columns of the name text",
		"columns":  "no column text; there are none",
		"integers": "does not hold strings",
		"list":     "does not hold strings",
		"nothing":  `no column text; there are "body" "title"`,
	} {
		data, err := os.ReadFile("testdata/bad-" + name + ".parquet")
		if err != nil {
			t.Fatal(err)
		}
		err = Strings(bytes.NewReader(data), int64(len(data)), "text", func([]byte) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", name, err, want)
		}
	}
}

func TestTheErrorOfYieldEndsTheReading(t *testing.T) {
	data, err := os.ReadFile("testdata/one-page.parquet")
	if err != nil {
		t.Fatal(err)
	}
	stop, n := errors.New("stop"), 0
	err = Strings(bytes.NewReader(data), int64(len(data)), "text", func([]byte) error {
		if n++; n == 3 {
			return stop
		}
		return nil
	})
	if err != stop || n != 3 {
		t.Errorf("err = %v after %d values, want %v after 3", err, n, stop)
	}
}

func TestTruncated(t *testing.T) {
	data, err := os.ReadFile("testdata/dictionary-snappy.parquet")
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(data) {
		if err := Strings(bytes.NewReader(data[:n]), int64(n), "text", func([]byte) error { return nil }); err == nil {
			t.Fatalf("the first %d bytes of %d are read without an error", n, len(data))
		}
	}
}

// want are the rows that tools/golden_parquet.py writes with nested columns, as
// pyarrow reads them.
func want(t *testing.T) []map[string]any {
	t.Helper()
	data, err := os.ReadFile("testdata/nested.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&rows); err != nil {
		t.Fatal(err)
	}
	return rows
}

// plainRow gives a row the types that encoding/json would.
func plainRow(v any) any {
	switch v := v.(type) {
	case int64:
		return json.Number(strconv.FormatInt(v, 10))
	case []any:
		for i := range v {
			v[i] = plainRow(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plainRow(v[k])
		}
	}
	return v
}

func TestNestedRows(t *testing.T) {
	files, err := filepath.Glob("testdata/nested-*.parquet")
	if err != nil || len(files) < 8 {
		t.Fatalf("files %v, %v, want 8 or more", files, err)
	}
	want := want(t)
	var columns []string
	for name := range want[0] {
		columns = append(columns, name)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		err = Rows(bytes.NewReader(data), int64(len(data)), columns, func(row map[string]any) error {
			if got := plainRow(row); i >= len(want) || !reflect.DeepEqual(got, any(want[i])) {
				return fmt.Errorf("row %d is %v, want %v", i, got, want[min(i, len(want)-1)])
			}
			i++
			return nil
		})
		if err != nil || i != len(want) {
			t.Errorf("%s: %d rows, %v, want %d", file, i, err, len(want))
		}
	}
}

func TestRowsRefuses(t *testing.T) {
	for _, c := range []struct{ file, column, want string }{
		{"nested-snappy", "absent", `no column absent; there are "text"`},
		{"bad-map", "m", "column m: a map, which is not read"},
		{"bad-double", "text", "column text: physical type DOUBLE; known: integers and strings"},
		{"bad-bytes", "text", "row 2: column text: not UTF-8"},
		{"bad-elements", "texts", "row 1: column texts: more than 1048576 elements in a row"},
		{"bad-row", "texts", "row 1: column texts: more than 16777216 bytes in a row"},
	} {
		data, err := os.ReadFile("testdata/" + c.file + ".parquet")
		if err != nil {
			t.Fatal(err)
		}
		err = Rows(bytes.NewReader(data), int64(len(data)), []string{c.column}, func(map[string]any) error { return nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", c.file, err, c.want)
		}
	}
}

func TestEncrypted(t *testing.T) {
	data := []byte("PARE and what nobody can read\x08\x00\x00\x00PARE")
	err := Strings(bytes.NewReader(data), int64(len(data)), "text", func([]byte) error { return nil })
	if err == nil || !strings.HasPrefix(err.Error(), "encrypted") {
		t.Errorf("error %v", err)
	}
}

// Every bit of a small file turned over, one at a time: an error or other rows,
// never a panic, and no memory or time that the file's size does not warrant.
func TestDamaged(t *testing.T) {
	data, err := os.ReadFile("testdata/bad-null.parquet")
	if err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	for bit := range len(data) * 8 {
		data[bit/8] ^= 1 << (bit % 8)
		n := 0
		Strings(bytes.NewReader(data), int64(len(data)), "text", func([]byte) error {
			if n++; n > 1000 {
				return enough
			}
			return nil
		})
		Rows(bytes.NewReader(data), int64(len(data)), []string{"text"}, func(map[string]any) error {
			if n++; n > 2000 {
				return enough
			}
			return nil
		})
		data[bit/8] ^= 1 << (bit % 8)
	}
}

// FuzzFile reads a file in both ways: whatever it holds, there is a ceiling on
// the memory as a multiple of its size.
func FuzzFile(f *testing.F) {
	files, err := filepath.Glob("testdata/*.parquet")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(parquetFile(zstdCodec, 1, 1, page(dictionaryPage, 100<<20, 25<<20, plain, zeros(f, 100<<20))))
	f.Add(parquetFile(zstdCodec, 1, 1, page(dataPage, 1<<20, 1, plain, zeros(f, 1<<20))))
	f.Add(parquetFile(uncompressed, 1<<30, 1, page(dictionaryPage, 4, 1, plain, make([]byte, 4)),
		page(dataPage, 6, 1<<30, rleDictionary, []byte{1, 0x80, 0x80, 0x80, 0x80, 8, 0})))
	f.Add(parquetFile(uncompressed, 0, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A run of one number stands for any number of rows.
		golden.Ceiling(t, ceiling(data), func() { _ = readAll(data, 1<<12, "number", "texts", "choices", "deep") })
	})
}

// FuzzEncodings gives the decoders of values what a page could hold, which
// the other fuzzers seldom reach behind a page's compression.
func FuzzEncodings(f *testing.F) {
	f.Add([]byte{3, 0, 0, 0, 'a', 'b', 'c'}, int64(1), uint8(plain), false)
	f.Add([]byte{2, 8, 1, 3, 0x1b}, int64(8), uint8(rleDictionary), false)
	f.Add([]byte{0x80, 1, 4, 2, 4, 0, 0, 0, 0, 0, 'a', 'b', 'c', 'd'}, int64(2), uint8(deltaLengthEncoding), false)
	f.Add([]byte{0x80, 1, 4, 1, 0, 0x80, 1, 4, 1, 2, 'a'}, int64(1), uint8(deltaBytesEncoding), false)
	f.Add([]byte{0x80, 1, 4, 3, 4, 0, 1, 0, 0, 0, 5, 0, 0, 0}, int64(3), uint8(deltaInts), true)
	f.Fuzz(func(t *testing.T, data []byte, n int64, encoding uint8, ints bool) {
		leaf := &node{typ: byteArray}
		if ints {
			leaf.typ = int64Type
		}
		c := column{leaf: leaf}
		c.dictionary, _ = newDictionary([]byte{0, 0, 0, 0, 1, 0, 0, 0, 'a', 1, 0, 0, 0, 'b', 0, 0}, leaf.typ, 2)
		const most = 1 << 16 // values; each may be allocated
		golden.Ceiling(t, uint64(64<<10+64*most+100*len(data)), func() {
			v, err := c.decode(pageHeader{values: max(n, 0), encoding: int64(encoding)}, data)
			for range most {
				if err != nil {
					return
				}
				_, err = v.next()
			}
		})
	})
}
