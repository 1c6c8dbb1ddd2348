package parquet

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// column reads one leaf's values in a row group, page by page, with their
// levels. It stands at an entry.
type column struct {
	file  *file
	leaf  *node
	chunk chunk

	at, end    int64 // of the next page; of the chunk
	left       int64 // entries in pages not yet read
	dictionary dictionary
	zstd       *zstd.Decoder
	taken      [2]int64 // bytes: of the dictionary, of the page at work

	page       int64 // entries left in the page at work
	reps, defs *hybrid
	values     values

	done     bool // there is no entry
	rep, def int
	value    value // if def is the leaf's
}

// next goes to the next entry.
func (c *column) next() error {
	if c.done {
		return errors.New("fewer values than rows")
	}
	for c.page == 0 {
		if c.left == 0 {
			c.done, c.rep, c.def = true, 0, 0
			return nil
		}
		at := c.at
		if err := c.open(); err != nil {
			return fmt.Errorf("page at %d: %w", at, err)
		}
	}
	c.page--
	var err error
	if c.rep, err = level(c.reps, c.leaf.rep); err != nil {
		return fmt.Errorf("repetition levels: %w", err)
	}
	if c.def, err = level(c.defs, c.leaf.def); err != nil {
		return fmt.Errorf("definition levels: %w", err)
	}
	if c.def < c.leaf.def {
		c.value = value{}
		return nil
	}
	c.value, err = c.values.next()
	return err
}

// level returns the next level. There are none stored where all are 0.
func level(levels *hybrid, most int) (int, error) {
	if levels == nil {
		return 0, nil
	}
	v, err := levels.next()
	if err == nil && int64(v) > int64(most) {
		err = fmt.Errorf("level %d, want at most %d", v, most)
	}
	return int(v), err
}

// open reads the next page, whatever its type.
func (c *column) open() error {
	h, n, err := c.header(c.at, c.end)
	if err != nil {
		return err
	}
	at := c.at + n
	c.at = at + h.compressed
	if h.typ != dictionaryPage && h.typ != dataPage && h.typ != dataPageV2 {
		return nil
	}
	if err := c.take(h); err != nil {
		return err
	}
	body := make([]byte, h.compressed)
	if _, err := c.file.r.ReadAt(body, at); err != nil {
		return err
	}
	if h.typ == dictionaryPage {
		return c.readDictionary(h, body)
	}
	if h.values > c.left {
		return fmt.Errorf("%d values, want at most %d", h.values, c.left)
	}
	c.left -= h.values
	c.page = h.values
	return c.readData(h, body)
}

// take counts the memory of a page: as it is stored, as it is unpacked, and of a
// dictionary where each value begins. It gives back that of the page before it.
func (c *column) take(h pageHeader) error {
	if h.size > leastPage+unpackedByte*h.compressed {
		return fmt.Errorf("%d bytes unpacked from %d, which no page is", h.size, h.compressed)
	}
	kind, n := 1, h.compressed+h.size
	if h.typ == dictionaryPage {
		kind, n = 0, n+4*h.values
	}
	c.file.room += c.taken[kind]
	c.taken[kind] = 0
	if err := c.file.take(n); err != nil {
		return err
	}
	c.taken[kind] = n
	return nil
}

func (c *column) close() {
	if c.zstd != nil {
		c.zstd.Close()
	}
	c.file.room += c.taken[0] + c.taken[1]
}

// pageHeader is PageHeader with what is read of the header inside it.
type pageHeader struct {
	typ                          int64
	size, compressed             int64 // bytes of the page
	values, encoding             int64
	defEncoding, repEncoding     int64 // of the levels, version 1
	definitionBytes, repeatBytes int64 // version 2: bytes of levels before the values, never compressed
	plainV2                      bool  // version 2: values not compressed
}

// header reads the page header at offset at. n is its length in bytes.
func (c *column) header(at, end int64) (h pageHeader, n int64, err error) {
	for window := int64(pageHeaderRead); ; window *= 4 {
		window = min(window, end-at)
		if window <= 0 {
			return h, 0, errShort
		}
		buf := make([]byte, window)
		if _, err := c.file.r.ReadAt(buf, at); err != nil {
			return h, 0, err
		}
		d := &decoder{b: buf}
		h = parsePageHeader(d)
		if d.err == errShort && window < end-at && window < maxPageHeader {
			continue
		}
		if d.err != nil {
			return h, 0, fmt.Errorf("header: %w", d.err)
		}
		n = int64(d.pos)
		if h.compressed < 0 || h.compressed > end-at-n || h.compressed > maxPage || h.size < 0 || h.size > maxPage || h.values < 0 || h.values > math.MaxInt32 {
			return h, 0, fmt.Errorf("%d values in %d bytes, %d compressed: more than the column has, or than %d bytes", h.values, h.size, h.compressed, maxPage)
		}
		return h, n, nil
	}
}

func parsePageHeader(d *decoder) (h pageHeader) {
	d.fields(func(id int64, typ byte) bool {
		switch {
		case id == 1 && typ == typeI32:
			h.typ = d.int()
		case id == 2 && typ == typeI32:
			h.size = d.int()
		case id == 3 && typ == typeI32:
			h.compressed = d.int()
		case id == 5 && typ == typeStruct: // DataPageHeader
			parseNumbers(d, &h, map[int64]*int64{1: &h.values, 2: &h.encoding, 3: &h.defEncoding, 4: &h.repEncoding})
		case id == 7 && typ == typeStruct: // DictionaryPageHeader
			parseNumbers(d, &h, map[int64]*int64{1: &h.values, 2: &h.encoding})
		case id == 8 && typ == typeStruct: // DataPageHeaderV2
			parseNumbers(d, &h, map[int64]*int64{1: &h.values, 4: &h.encoding, 5: &h.definitionBytes, 6: &h.repeatBytes})
		default:
			return false
		}
		return true
	})
	return h
}

func parseNumbers(d *decoder, h *pageHeader, numbers map[int64]*int64) {
	d.fields(func(id int64, typ byte) bool {
		if p := numbers[id]; p != nil && typ == typeI32 {
			*p = d.int()
			return true
		}
		h.plainV2 = h.plainV2 || id == 7 && typ == typeFalse
		return false
	})
}

// decompress returns size bytes.
func (c *column) decompress(body []byte, size int64) ([]byte, error) {
	var out []byte
	var err error
	switch c.chunk.codec {
	case uncompressed:
		out = body
	case snappyCodec:
		// No snappy element makes more than 64 bytes of 2.
		if n, lenErr := snappy.DecodedLen(body); lenErr != nil || int64(n) != size || n > 32*len(body) {
			return nil, errors.New("snappy: bad length")
		}
		out, err = snappy.Decode(nil, body)
	case gzipCodec:
		var z *gzip.Reader
		if z, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
			out = make([]byte, size+1)
			var n int
			n, err = io.ReadFull(z, out)
			if out = out[:n]; err == io.EOF || err == io.ErrUnexpectedEOF {
				err = nil // shorter than size+1, as it should be, or broken: below
			}
		}
	case zstdCodec:
		if c.zstd == nil {
			c.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPage), zstd.WithDecodeAllCapLimit(true))
			if err != nil {
				return nil, err
			}
		}
		out, err = c.zstd.DecodeAll(body, make([]byte, 0, size))
	default:
		return nil, fmt.Errorf("compressed with %s; known: none, snappy, gzip, zstd", nameOf(codecNames[:], c.chunk.codec))
	}
	if err != nil {
		return nil, err
	}
	if int64(len(out)) != size {
		return nil, fmt.Errorf("%d bytes, want %d", len(out), size)
	}
	return out, nil
}

func (c *column) readDictionary(h pageHeader, body []byte) error {
	if h.encoding != plain && h.encoding != plainDictionary {
		return fmt.Errorf("dictionary encoding %d", h.encoding)
	}
	data, err := c.decompress(body, h.size)
	if err != nil {
		return err
	}
	if h.values > int64(len(data)/4) { // the least bytes of a value
		return fmt.Errorf("dictionary of %d values in %d bytes", h.values, len(data))
	}
	c.dictionary, err = newDictionary(data, c.leaf.typ, int(h.values))
	return err
}

// readData makes the page's levels and values ready to be read.
func (c *column) readData(h pageHeader, body []byte) (err error) {
	var data, reps, defs []byte
	if h.typ == dataPageV2 {
		levels := h.repeatBytes + h.definitionBytes
		if h.definitionBytes < 0 || h.repeatBytes < 0 || levels > h.compressed || levels > h.size {
			return fmt.Errorf("%d and %d bytes of levels in a page of %d", h.repeatBytes, h.definitionBytes, h.size)
		}
		reps, defs, data = body[:h.repeatBytes], body[h.repeatBytes:levels], body[levels:]
		if !h.plainV2 {
			data, err = c.decompress(data, h.size-levels)
		}
	} else if data, err = c.decompress(body, h.size); err == nil {
		if reps, data, err = splitLevels(c.leaf.rep, h.repEncoding, data); err == nil {
			defs, data, err = splitLevels(c.leaf.def, h.defEncoding, data)
		}
	}
	if err != nil {
		return err
	}
	c.reps, c.defs = levelsOf(reps, c.leaf.rep, h.values), levelsOf(defs, c.leaf.def, h.values)
	c.values, err = c.decode(h, data)
	return err
}

// levelsOf decodes n levels of 0 to most; nil where all are 0.
func levelsOf(data []byte, most int, n int64) *hybrid {
	if most == 0 {
		return nil
	}
	return &hybrid{data: data, width: uint(bits.Len(uint(most))), left: n}
}

// splitLevels parts levels of 0 to most from what follows them in a version 1 page.
func splitLevels(most int, encoding int64, data []byte) (levels, rest []byte, err error) {
	if most == 0 {
		return nil, data, nil
	}
	if encoding != rle {
		return nil, nil, fmt.Errorf("levels in encoding %d, want %d", encoding, rle)
	}
	if len(data) < 4 {
		return nil, nil, errShort
	}
	n := binary.LittleEndian.Uint32(data)
	if uint64(n) > uint64(len(data)-4) {
		return nil, nil, errShort
	}
	return data[4 : 4+n], data[4+n:], nil
}

func plainValues(data []byte, typ int64) values {
	switch typ {
	case int32Type:
		return &plainInts{data, 4}
	case int64Type:
		return &plainInts{data, 8}
	}
	return &plainBytes{data}
}

// noValues are those of a page in which all is null.
type noValues struct{}

func (noValues) next() (value, error) { return value{}, errShort }

// decode returns the values of a page of h.values entries, some of which may
// be null. The delta encodings say themselves how many there are.
func (c *column) decode(h pageHeader, data []byte) (values, error) {
	if len(data) == 0 {
		return noValues{}, nil
	}
	isBytes := c.leaf.typ == byteArray
	switch {
	case h.encoding == plain:
		return plainValues(data, c.leaf.typ), nil
	case h.encoding == plainDictionary || h.encoding == rleDictionary:
		if data[0] > 32 {
			return nil, errors.New("dictionary indices: bad width")
		}
		return &indexed{&hybrid{data: data[1:], width: uint(data[0]), left: h.values}, &c.dictionary}, nil
	case h.encoding == deltaLengthEncoding && isBytes:
		return newDeltaLength(data)
	case h.encoding == deltaBytesEncoding && isBytes:
		return newDeltaBytes(data)
	case h.encoding == deltaInts && !isBytes:
		x, _, err := newDelta(data, c.leaf.typ == int32Type)
		return x, err
	}
	return nil, fmt.Errorf("unknown encoding %d", h.encoding)
}
