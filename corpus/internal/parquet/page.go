package parquet

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

// pages reads the pages of a chunk.
type pages struct {
	r          io.ReaderAt
	chunk      chunk
	optional   bool // values may be null: definition levels are stored
	dictionary [][]byte
	zstd       *zstd.Decoder
}

// pageHeader is PageHeader with what is read of the header inside it.
type pageHeader struct {
	typ                          int64
	size, compressed             int64 // bytes of the page
	values, encoding             int64
	levelEncoding                int64 // version 1
	definitionBytes, repeatBytes int64 // version 2: bytes of levels before the values, never compressed
	plainV2                      bool  // version 2: values not compressed
}

// read calls yield with every value of the chunk.
func (p *pages) read(yield func([]byte) error) error {
	defer func() {
		if p.zstd != nil {
			p.zstd.Close()
		}
	}()
	at, end := p.chunk.start(), p.chunk.start()+p.chunk.size
	for left := p.chunk.values; left > 0; {
		h, n, err := p.header(at, end)
		if err != nil {
			return fmt.Errorf("page at %d: %w", at, err)
		}
		at += n
		body := make([]byte, h.compressed)
		if _, err := p.r.ReadAt(body, at); err != nil {
			return err
		}
		switch h.typ {
		case dictionaryPage:
			err = p.readDictionary(h, body)
		case dataPage, dataPageV2:
			if h.values > left {
				return fmt.Errorf("page at %d: %d values, want at most %d", at, h.values, left)
			}
			left -= h.values
			err = p.readData(h, body, yield)
		}
		if err != nil {
			return fmt.Errorf("page at %d: %w", at, err)
		}
		at += h.compressed
	}
	return nil
}

// header reads the page header at offset at. n is its length in bytes.
func (p *pages) header(at, end int64) (h pageHeader, n int64, err error) {
	for window := int64(pageHeaderRead); ; window *= 4 {
		window = min(window, end-at)
		if window <= 0 {
			return h, 0, errShort
		}
		buf := make([]byte, window)
		if _, err := p.r.ReadAt(buf, at); err != nil {
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
			parseNumbers(d, &h, map[int64]*int64{1: &h.values, 2: &h.encoding, 3: &h.levelEncoding})
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
func (p *pages) decompress(body []byte, size int64) ([]byte, error) {
	var out []byte
	var err error
	switch p.chunk.codec {
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
			out, err = io.ReadAll(io.LimitReader(z, size+1))
		}
	case zstdCodec:
		if p.zstd == nil {
			if p.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPage)); err != nil {
				return nil, err
			}
		}
		out, err = p.zstd.DecodeAll(body, nil)
	default:
		return nil, fmt.Errorf("compression codec %d; known: none, snappy, gzip, zstd", p.chunk.codec)
	}
	if err != nil {
		return nil, err
	}
	if int64(len(out)) != size {
		return nil, fmt.Errorf("%d bytes, want %d", len(out), size)
	}
	return out, nil
}

func (p *pages) readDictionary(h pageHeader, body []byte) error {
	if h.encoding != plain && h.encoding != plainDictionary {
		return fmt.Errorf("dictionary encoding %d", h.encoding)
	}
	data, err := p.decompress(body, h.size)
	if err != nil {
		return err
	}
	if h.values > int64(len(data)/4) {
		return fmt.Errorf("dictionary of %d values in %d bytes", h.values, len(data))
	}
	p.dictionary = make([][]byte, 0, h.values)
	return plainValues(data, h.values, func(v []byte) error {
		p.dictionary = append(p.dictionary, v)
		return nil
	})
}

func (p *pages) readData(h pageHeader, body []byte, yield func([]byte) error) error {
	var levels, data []byte
	var err error
	if h.typ == dataPageV2 {
		if h.definitionBytes < 0 || h.repeatBytes != 0 || h.definitionBytes > h.compressed || h.definitionBytes > h.size {
			return fmt.Errorf("%d and %d bytes of levels in a page of %d", h.definitionBytes, h.repeatBytes, h.size)
		}
		levels, data = body[:h.definitionBytes], body[h.definitionBytes:]
		if !h.plainV2 {
			data, err = p.decompress(data, h.size-h.definitionBytes)
		}
	} else {
		if data, err = p.decompress(body, h.size); err == nil && p.optional {
			levels, data, err = splitLevels(h, data)
		}
	}
	if err != nil {
		return err
	}
	if p.optional {
		if err := noNulls(levels, h.values); err != nil {
			return err
		}
	}
	return p.values(h, data, func(v []byte) error {
		if err := yield(v); err != nil {
			return &yieldError{err}
		}
		return nil
	})
}

// splitLevels parts the definition levels of a version 1 page from its values.
func splitLevels(h pageHeader, data []byte) (levels, values []byte, err error) {
	if h.levelEncoding != rle {
		return nil, nil, fmt.Errorf("definition levels in encoding %d, want %d", h.levelEncoding, rle)
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

// noNulls checks that all n definition levels, of one bit, are 1.
func noNulls(levels []byte, n int64) error {
	row := int64(0)
	return hybrid(levels, 1, n, func(level uint32, count int64) error {
		if level == 0 {
			return fmt.Errorf("value %d of the page is null, want a string", row)
		}
		row += count
		return nil
	})
}

// values decodes n values.
func (p *pages) values(h pageHeader, data []byte, yield func([]byte) error) error {
	switch h.encoding {
	case plain:
		return plainValues(data, h.values, yield)
	case plainDictionary, rleDictionary:
		if h.values == 0 {
			return nil
		}
		if len(data) == 0 || data[0] > 32 {
			return errors.New("dictionary indices: bad width")
		}
		return hybrid(data[1:], uint(data[0]), h.values, func(index uint32, count int64) error {
			if uint64(index) >= uint64(len(p.dictionary)) {
				return fmt.Errorf("index %d in a dictionary of %d values", index, len(p.dictionary))
			}
			for range count {
				if err := yield(p.dictionary[index]); err != nil {
					return err
				}
			}
			return nil
		})
	case deltaLengthBytes:
		return deltaLengthValues(data, h.values, yield)
	case deltaBytes:
		return deltaValues(data, h.values, yield)
	}
	return fmt.Errorf("unknown encoding %d", h.encoding)
}
