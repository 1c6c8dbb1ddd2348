// Package parquet reads one column of strings out of a Parquet file, page by
// page.
//
// It is what crepe needs of the format and no more: a top-level column of
// BYTE_ARRAY, required or optional, in any of its encodings, pages of both
// versions, uncompressed or in snappy, gzip or zstd. parquet-go v0.32.0, tried
// first, takes 20 s of processor time to compile and 12 MB of the binary (this
// package with its decompressors less than 4 s and 1 MB), and allocates whatever
// sizes a file claims.
//
// Format: https://github.com/apache/parquet-format, version 2.11.
package parquet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	magic          = "PAR1"
	maxFooter      = 256 << 20 // bytes of metadata
	maxPage        = 256 << 20 // bytes of a page, compressed or not
	maxPageHeader  = 16 << 20  // bytes; its statistics may hold values
	pageHeaderRead = 64 << 10  // bytes read for a page header at first
)

// physical types, repetitions, codecs, encodings and page types of the format
const (
	byteArray = 6

	required = 0
	optional = 1

	uncompressed = 0
	snappyCodec  = 1
	gzipCodec    = 2
	zstdCodec    = 6

	plain            = 0
	plainDictionary  = 2
	rle              = 3
	deltaLengthBytes = 6
	deltaBytes       = 7
	rleDictionary    = 8

	dataPage       = 0
	dictionaryPage = 2
	dataPageV2     = 3
)

// schemaElement is a node of the schema, which lists them depth first.
type schemaElement struct {
	name       string
	typ        int64 // −1: a group
	repetition int64
	children   int64
}

// chunk is the column's part of a row group.
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

// Strings calls yield with every value of the column, in order. The bytes are
// valid during the call only. An error of yield ends the reading and is
// returned as it is.
func Strings(r io.ReaderAt, size int64, column string, yield func(value []byte) error) error {
	footer, err := readFooter(r, size)
	if err != nil {
		return err
	}
	schema, chunks, err := parseFooter(footer, column)
	if err != nil {
		return err
	}
	repetition, err := find(schema, column)
	if err != nil {
		return err
	}
	for i, c := range chunks {
		if err := c.validate(size); err != nil {
			return fmt.Errorf("row group %d: column %s: %w", i, column, err)
		}
		p := pages{r: r, chunk: c, optional: repetition == optional}
		if err := p.read(yield); err != nil {
			var y *yieldError
			if errors.As(err, &y) {
				return y.error
			}
			return fmt.Errorf("row group %d: column %s: %w", i, column, err)
		}
	}
	return nil
}

// yieldError marks an error of the caller's own.
type yieldError struct{ error }

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

// parseFooter reads FileMetaData: the schema, and of every row group the chunk
// of the column.
func parseFooter(footer []byte, column string) (schema []schemaElement, chunks []chunk, err error) {
	d := &decoder{b: footer}
	d.fields(func(id int64, typ byte) bool {
		switch {
		case id == 2 && typ == typeList:
			d.list(typeStruct, func() { schema = append(schema, parseSchemaElement(d)) })
		case id == 4 && typ == typeList:
			d.list(typeStruct, func() { chunks = append(chunks, parseRowGroup(d, column)...) })
		default:
			return false
		}
		return true
	})
	if d.err != nil {
		return nil, nil, fmt.Errorf("metadata: %w", d.err)
	}
	return schema, chunks, nil
}

func parseSchemaElement(d *decoder) schemaElement {
	e := schemaElement{typ: -1}
	d.fields(func(id int64, typ byte) bool {
		switch {
		case id == 1 && typ == typeI32:
			e.typ = d.int()
		case id == 3 && typ == typeI32:
			e.repetition = d.int()
		case id == 4 && typ == typeBinary:
			e.name = string(d.binary())
		case id == 5 && typ == typeI32:
			e.children = d.int()
		default:
			return false
		}
		return true
	})
	return e
}

func parseRowGroup(d *decoder, column string) (chunks []chunk) {
	d.fields(func(id int64, typ byte) bool {
		if id != 1 || typ != typeList {
			return false
		}
		d.list(typeStruct, func() {
			if c := parseChunk(d); len(c.path) == 1 && c.path[0] == column {
				chunks = append(chunks, c)
			}
		})
		return true
	})
	return chunks
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
			d.list(typeBinary, func() { c.path = append(c.path, string(d.binary())) })
			return true
		}
		return false
	})
}

// find returns the repetition of the column, which must be a top-level one of
// strings.
func find(schema []schemaElement, column string) (repetition int64, err error) {
	if len(schema) == 0 {
		return 0, errors.New("metadata: no schema")
	}
	var names bytes.Buffer
	i := 1
	for range schema[0].children {
		if i >= len(schema) {
			return 0, errors.New("metadata: schema ends early")
		}
		e := schema[i]
		if e.name == column {
			if e.typ != byteArray || e.children != 0 || e.repetition != required && e.repetition != optional {
				return 0, fmt.Errorf("column %s does not hold strings", column)
			}
			return e.repetition, nil
		}
		if names.Len() < 200 {
			fmt.Fprintf(&names, " %.40q", e.name)
		}
		for open := int64(1); open > 0 && i < len(schema); i++ { // over e and all below it
			open += schema[i].children - 1
		}
	}
	return 0, fmt.Errorf("no column %s; there are%s", column, names.String())
}

func (c *chunk) validate(size int64) error {
	switch {
	case c.coded:
		return errors.New("encrypted")
	case c.elsewhere:
		return errors.New("in another file")
	case c.physical != byteArray:
		return fmt.Errorf("physical type %d, want %d", c.physical, byteArray)
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
