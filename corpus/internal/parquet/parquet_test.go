package parquet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// row is row i of the files that tools/parquet_golden.py makes.
func row(i int) string {
	if i%5 == 0 {
		return ""
	}
	return fmt.Sprintf(" row %d é世 ", i%97) + strings.Repeat("x", i*7%50) + "\n"
}

const rows = 400

func TestStringsOfEveryEncoding(t *testing.T) {
	files, err := filepath.Glob("testdata/[^b]*.parquet")
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
		"null":     "value 7 of the page is null",
		"lz4":      "compression codec",
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
		data[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzStrings(f *testing.F) {
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
	f.Fuzz(func(t *testing.T, data []byte) {
		n, enough := 0, errors.New("enough")
		Strings(bytes.NewReader(data), int64(len(data)), "text", func(v []byte) error {
			if n++; n > 1<<16 { // a run of one number stands for any number of rows
				return enough
			}
			return nil
		})
	})
}

// FuzzEncodings gives the decoders of values what a page could hold, which
// FuzzStrings seldom reaches behind a page's compression.
func FuzzEncodings(f *testing.F) {
	f.Add([]byte{3, 0, 0, 0, 'a', 'b', 'c'}, int64(1), uint8(plain))
	f.Add([]byte{2, 8, 1, 3, 0x1b}, int64(8), uint8(rleDictionary))
	f.Add([]byte{0x80, 1, 4, 2, 4, 0, 0, 0, 0, 0, 'a', 'b', 'c', 'd'}, int64(2), uint8(deltaLengthBytes))
	f.Add([]byte{0x80, 1, 4, 1, 0, 0x80, 1, 4, 1, 2, 'a'}, int64(1), uint8(deltaBytes))
	f.Fuzz(func(t *testing.T, data []byte, n int64, encoding uint8) {
		if n < 0 {
			n = -n
		}
		p := pages{dictionary: [][]byte{nil, []byte("a"), []byte("b")}}
		total := 0
		p.values(pageHeader{values: n & (1<<20 - 1), encoding: int64(encoding)}, data, func(v []byte) error {
			if total += len(v); total > 1<<24 {
				return errors.New("enough")
			}
			return nil
		})
	})
}
