package parquet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/crepe-llm/crepe/internal/golden"
)

// thrift writes structs of the compact protocol, whose fields come in order.
type thrift struct {
	b    []byte
	last byte
}

func (t *thrift) field(id, typ byte) *thrift {
	t.b = append(t.b, (id-t.last)<<4|typ)
	t.last = id
	return t
}

func (t *thrift) num(id, typ byte, v int64) *thrift {
	t.field(id, typ)
	t.b = binary.AppendUvarint(t.b, uint64(v<<1^v>>63))
	return t
}

func (t *thrift) i32(id byte, v int64) *thrift { return t.num(id, typeI32, v) }
func (t *thrift) i64(id byte, v int64) *thrift { return t.num(id, typeI64, v) }

func (t *thrift) str(id byte, v string) *thrift {
	t.field(id, typeBinary)
	t.b = append(binary.AppendUvarint(t.b, uint64(len(v))), v...)
	return t
}

func (t *thrift) sub(id byte, s *thrift) *thrift {
	t.field(id, typeStruct)
	t.b = append(t.b, s.end()...)
	return t
}

// list writes elements that are encoded already.
func (t *thrift) list(id, typ byte, elements ...[]byte) *thrift {
	t.field(id, typeList)
	t.b = append(t.b, 0xf0|typ)
	t.b = binary.AppendUvarint(t.b, uint64(len(elements)))
	t.b = append(t.b, bytes.Join(elements, nil)...)
	return t
}

func (t *thrift) end() []byte { return append(t.b, 0) }

// parquetFile is a file with one column of required strings, of one chunk made
// of pages, in so many row groups that all refer to it.
func parquetFile(codec, rows int64, groups int, pages ...[]byte) []byte {
	body := append([]byte(magic), bytes.Join(pages, nil)...)
	size := int64(len(body) - len(magic))
	meta := new(thrift).i32(1, byteArray).list(3, typeBinary, append([]byte{4}, "text"...)).i32(4, codec).
		i64(5, rows).i64(7, size).i64(9, int64(len(magic)))
	chunk := new(thrift).i64(2, int64(len(magic))).sub(3, meta).end()
	group := new(thrift).list(1, typeStruct, chunk).i64(3, rows).end()
	footer := new(thrift).i32(1, 2).list(2, typeStruct,
		new(thrift).str(4, "root").i32(5, 1).end(),
		new(thrift).i32(1, byteArray).i32(3, required).str(4, "text").end(),
	).i64(3, rows).list(4, typeStruct, slices.Repeat([][]byte{group}, groups)...).end()
	body = append(body, footer...)
	body = binary.LittleEndian.AppendUint32(body, uint32(len(footer)))
	return append(body, magic...)
}

// page is a page of so many values in body, which is unpacked to size bytes.
func page(typ, size, values, encoding int64, body []byte) []byte {
	head := new(thrift).i32(1, typ).i32(2, size).i32(3, int64(len(body)))
	in := new(thrift).i32(1, values).i32(2, encoding)
	if typ == dictionaryPage {
		head.sub(7, in)
	} else {
		head.sub(5, in.i32(3, rle).i32(4, rle))
	}
	return append(head.end(), body...)
}

// zeros returns n zeros packed by zstd, with their number in the frame's head.
func zeros(t testing.TB, n int) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return e.EncodeAll(make([]byte, n), nil)
}

var errEnough = errors.New("enough")

// ceiling is how much reading a file may allocate in all, freed or not.
func ceiling(data []byte) uint64 { return uint64(16<<20 + 200*len(data)) }

// readAll reads the column text in both ways, the second time beside others, at
// most so many values.
func readAll(data []byte, most int, more ...string) error {
	n := 0
	count := func() error {
		if n++; n > most {
			return errEnough
		}
		return nil
	}
	r := bytes.NewReader(data)
	err := Strings(r, int64(len(data)), "text", func([]byte) error { return count() })
	n = 0
	rowsErr := Rows(r, int64(len(data)), append([]string{"text"}, more...), func(map[string]any) error { return count() })
	for _, e := range []*error{&err, &rowsErr} {
		if *e == errEnough {
			*e = nil
		}
	}
	return errors.Join(err, rowsErr)
}

// TestBombs: small files that claim much. All memory that was taken, freed or
// not, is held against a bound.
func TestBombs(t *testing.T) {
	packed := zeros(t, 100<<20)
	for name, c := range map[string]struct {
		data []byte
		want string
	}{
		"a dictionary of 100 MiB":        {parquetFile(zstdCodec, 1, 1, page(dictionaryPage, 100<<20, 25<<20, plain, packed)), "which no page is"},
		"a page of 100 MiB":              {parquetFile(zstdCodec, 1, 1, page(dataPage, 100<<20, 1, plain, packed)), "which no page is"},
		"a page that says less":          {parquetFile(zstdCodec, 1, 1, page(dataPage, 100, 1, plain, packed)), "decompressed size exceeds"},
		"a page longer than it says":     {parquetFile(gzipCodec, 1, 1, page(dataPage, 1<<19, 1, plain, []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0})), "0 bytes, want 524288"},
		"row groups on the same bytes":   {parquetFile(uncompressed, 1, 1000, page(dataPage, 1<<16, 1, plain, make([]byte, 1<<16))), "chunks of more bytes than the file"},
		"more row groups than there are": {parquetFile(uncompressed, 0, maxGroups+1), "more schema elements, row groups or chunks"},
	} {
		var err error
		golden.Ceiling(t, ceiling(c.data), func() { err = readAll(c.data, 10) })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q in it", name, err, c.want)
		}
	}
}

// TestNoRows: pyarrow writes a row group without rows for an empty table, with
// chunks that lie nowhere.
func TestNoRows(t *testing.T) {
	for name, data := range map[string][]byte{"no row group": parquetFile(uncompressed, 0, 0), "an empty one": parquetFile(uncompressed, 0, 1)} {
		if err := readAll(data, 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestHandmade holds the builder of these tests to what is no bomb.
func TestHandmade(t *testing.T) {
	data := parquetFile(uncompressed, 3, 1,
		page(dictionaryPage, 11, 2, plain, []byte{1, 0, 0, 0, 'a', 2, 0, 0, 0, 'b', 'c'}),
		page(dataPage, 3, 3, rleDictionary, []byte{1, 3, 0b101}))
	var got []string
	err := Strings(bytes.NewReader(data), int64(len(data)), "text", func(v []byte) error { got = append(got, string(v)); return nil })
	if err != nil || !slices.Equal(got, []string{"bc", "a", "bc"}) {
		t.Errorf("%q, %v", got, err)
	}
}
