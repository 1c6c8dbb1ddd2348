// Package parquet reads Parquet files, page by page: one column of strings, or
// rows of columns that hold integers, strings, and lists and structs of these.
//
// It is what crepe needs of the format and no more: BYTE_ARRAY, INT32 and INT64
// in any of their encodings but BYTE_STREAM_SPLIT, pages of both versions,
// uncompressed or in snappy, gzip or zstd. Memory is a page of each column, its
// dictionary and a row, and bounded by the size of the file, whatever it claims.
//
// parquet-go v0.32.0, tried first, takes 20 s of processor time to compile and
// 12 MB of the binary (this package with its decompressors less than 4 s and 1
// MB), and allocates whatever sizes a file claims.
//
// Format: https://github.com/apache/parquet-format, version 2.11.
package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	magic          = "PAR1"
	codedMagic     = "PARE"   // of a file whose footer is encrypted
	maxPageHeader  = 16 << 20 // bytes; its statistics may hold values
	pageHeaderRead = 64 << 10 // bytes read for a page header at first
)

// Bounds on what a file may claim. Writers make pages of 1 MiB, or of one value
// that is longer; the footer of a dataset of terabytes has some MiB.
const (
	maxFooter = 32 << 20  // bytes of metadata
	maxSchema = 1 << 14   // elements
	maxGroups = 1 << 16   // row groups
	maxChunks = 1 << 18   // of the wanted columns, in all row groups
	maxPage   = 128 << 20 // bytes of a page, compressed or not
	maxPages  = 256 << 20 // bytes of the pages and dictionaries that are open at once

	// A few bytes can be unpacked to any number of bytes, and chunks may lie on
	// one another. Pages together take so much, and a multiple of the file:
	leastPages   = 32 << 20 // bytes
	pagesAByte   = 64
	leastPage    = 1 << 20 // bytes that a page may be unpacked to, and of each of its bytes:
	unpackedByte = 1024    // about what deflate can do
)

// file is a file at work.
type file struct {
	r    io.ReaderAt
	size int64
	room int64 // bytes that pages may still take
}

func newFile(r io.ReaderAt, size int64) *file {
	return &file{r: r, size: size, room: min(maxPages, leastPages+pagesAByte*min(size, maxPages))}
}

// take counts n more bytes of pages.
func (f *file) take(n int64) error {
	if n > f.room {
		return fmt.Errorf("pages of %d bytes more than a file of %d bytes is believed to have", n-f.room, f.size)
	}
	f.room -= n
	return nil
}

// physical types, repetitions, codecs, encodings and page types of the format
const (
	group     = -1 // no physical type: fields
	int32Type = 1
	int64Type = 2
	byteArray = 6

	required = 0
	optional = 1
	repeated = 2

	uncompressed = 0
	snappyCodec  = 1
	gzipCodec    = 2
	zstdCodec    = 6

	plain               = 0
	plainDictionary     = 2
	rle                 = 3
	deltaInts           = 5
	deltaLengthEncoding = 6
	deltaBytesEncoding  = 7
	rleDictionary       = 8

	dataPage       = 0
	dictionaryPage = 2
	dataPageV2     = 3
)

// The format's names of its physical types and codecs, by number.
var (
	typeNames  = [...]string{"BOOLEAN", "INT32", "INT64", "INT96", "FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"}
	codecNames = [...]string{"none", "snappy", "gzip", "lzo", "brotli", "lz4", "zstd", "lz4_raw"}
)

// nameOf returns the name of a number, or the number.
func nameOf(names []string, n int64) string {
	if n >= 0 && n < int64(len(names)) {
		return names[n]
	}
	return strconv.FormatInt(n, 10)
}

// rowGroup is a run of rows.
type rowGroup struct {
	rows   int64
	chunks []chunk // of the wanted columns
}

// chunk is a leaf column's part of a row group.
type chunk struct {
	codec            int64
	values           int64 // nulls included
	size             int64 // compressed bytes of all pages, with headers
	firstPage        int64 // offset of the first data page
	dictionary       int64 // offset of the dictionary page, or 0
	elsewhere, coded bool  // in another file; encrypted
	path             []string
	physical         int64
}

func readFooter(r io.ReaderAt, size int64) ([]byte, error) {
	var head [4]byte
	var tail [8]byte
	if size < int64(len(head)+len(tail)) {
		return nil, fmt.Errorf("not a Parquet file: %d bytes", size)
	}
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	if _, err := r.ReadAt(tail[:], size-int64(len(tail))); err != nil {
		return nil, err
	}
	if string(head[:]) == codedMagic && string(tail[4:]) == codedMagic {
		return nil, errors.New("encrypted, want a Parquet file that anybody can read")
	}
	if string(head[:]) != magic || string(tail[4:]) != magic {
		return nil, fmt.Errorf("not a Parquet file, or truncated: begins with %q and ends with %q, want %q", head[:], tail[4:], magic)
	}
	n := int64(binary.LittleEndian.Uint32(tail[:]))
	if n > maxFooter || n > size-int64(len(head)+len(tail)) {
		return nil, fmt.Errorf("metadata of %d bytes in a file of %d", n, size)
	}
	footer := make([]byte, n)
	_, err := r.ReadAt(footer, size-int64(len(tail))-n)
	return footer, err
}

// parseFooter reads FileMetaData: the schema, and of every row group the chunks
// of the top-level columns.
func parseFooter(footer []byte, columns []string) (schema []schemaElement, groups []rowGroup, err error) {
	d := &decoder{b: footer}
	chunks := 0
	d.fields(func(id int64, typ byte) bool {
		switch {
		case id == 2 && typ == typeList:
			d.list(typeStruct, maxSchema, func() { schema = append(schema, parseSchemaElement(d)) })
		case id == 4 && typ == typeList:
			d.list(typeStruct, maxGroups, func() {
				g := parseRowGroup(d, columns)
				if chunks += len(g.chunks); chunks > maxChunks {
					d.fail(errMany)
				}
				groups = append(groups, g)
			})
		default:
			return false
		}
		return true
	})
	if d.err != nil {
		return nil, nil, fmt.Errorf("metadata: %w", d.err)
	}
	return schema, groups, nil
}

func parseRowGroup(d *decoder, columns []string) (g rowGroup) {
	d.fields(func(id int64, typ byte) bool {
		switch {
		case id == 1 && typ == typeList:
			d.list(typeStruct, maxChunks, func() {
				if c := parseChunk(d); len(c.path) > 0 && slices.Contains(columns, c.path[0]) {
					g.chunks = append(g.chunks, c)
				}
			})
		case id == 3 && typ == typeI64:
			g.rows = d.int()
		default:
			return false
		}
		return true
	})
	return g
}

func parseChunk(d *decoder) (c chunk) {
	d.fields(func(id int64, typ byte) bool {
		switch {
		case id == 1 && typ == typeBinary:
			c.elsewhere = len(d.binary()) > 0
		case id == 3 && typ == typeStruct:
			parseColumnMetaData(d, &c)
		case id == 8:
			c.coded = true
			return false
		default:
			return false
		}
		return true
	})
	return c
}

func parseColumnMetaData(d *decoder, c *chunk) {
	numbers := map[int64]*int64{1: &c.physical, 4: &c.codec, 5: &c.values, 7: &c.size, 9: &c.firstPage, 11: &c.dictionary}
	d.fields(func(id int64, typ byte) bool {
		if p := numbers[id]; p != nil && (typ == typeI32 || typ == typeI64) {
			*p = d.int()
			return true
		}
		if id == 3 && typ == typeList {
			d.list(typeBinary, maxNesting, func() { c.path = append(c.path, string(d.binary())) })
			return true
		}
		return false
	})
}

// checkChunks refuses row groups whose chunks of the wanted columns are larger
// than the file: they would lie on one another, to be read again and again.
func checkChunks(groups []rowGroup, size int64) error {
	left := size
	for i, g := range groups {
		for _, c := range g.chunks {
			if c.size < 0 || c.size > left {
				return fmt.Errorf("row group %d: chunks of more bytes than the file of %d has", i, size)
			}
			left -= c.size
		}
	}
	return nil
}

// open makes the columns below n ready to read the row group.
func (g *rowGroup) open(f *file, n *node) error {
	if g.rows < 0 || g.rows > math.MaxInt32 {
		return fmt.Errorf("%d rows", g.rows)
	}
	for _, leaf := range n.leaves {
		name := strings.Join(leaf.path, ".")
		i := slices.IndexFunc(g.chunks, func(c chunk) bool { return slices.Equal(c.path, leaf.path) })
		if i < 0 {
			return fmt.Errorf("column %s: no chunk", name)
		}
		c := g.chunks[i]
		if err := c.validate(f.size, leaf.typ); err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
		leaf.column = &column{file: f, leaf: leaf, chunk: c, at: c.start(), end: c.start() + c.size, left: c.values}
		if err := leaf.column.next(); err != nil {
			return fmt.Errorf("column %s: %w", name, err)
		}
	}
	return nil
}

func (c *chunk) validate(size, physical int64) error {
	switch {
	case c.coded:
		return errors.New("encrypted")
	case c.elsewhere:
		return errors.New("in another file")
	case c.physical != physical:
		return fmt.Errorf("physical type %d, want the schema's %d", c.physical, physical)
	case c.values < 0 || c.size < 0 || c.start() < int64(len(magic)) || c.start() > size || c.size > size-c.start():
		return fmt.Errorf("%d values in %d bytes at %d: outside the file of %d bytes", c.values, c.size, c.start(), size)
	}
	return nil
}

// start is the offset of the chunk's first page of any type.
func (c *chunk) start() int64 {
	if c.dictionary > 0 && c.dictionary < c.firstPage {
		return c.dictionary
	}
	return c.firstPage
}
