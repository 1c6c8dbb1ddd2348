package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// value is one value of a column: a number, or bytes that are valid until the
// next value is read.
type value struct {
	bytes  []byte
	number int64
}

// values decodes the values of a page, one at a time: a few bytes can stand for
// any number of them.
type values interface{ next() (value, error) }

// plainBytes decodes PLAIN byte arrays: each after its length, 4 bytes little
// endian.
type plainBytes struct{ data []byte }

func (p *plainBytes) next() (v value, err error) {
	if len(p.data) < 4 {
		return v, errShort
	}
	size := binary.LittleEndian.Uint32(p.data)
	return takeBytes(&p.data, 4, int64(size))
}

// takeBytes returns size bytes of data from at on, and leaves what follows.
func takeBytes(data *[]byte, at int, size int64) (v value, err error) {
	if size < 0 || size > int64(len(*data)-at) {
		return v, errShort
	}
	end := at + int(size)
	v.bytes = (*data)[at:end:end]
	*data = (*data)[end:]
	return v, nil
}

// plainInts decodes PLAIN integers of width bytes, little endian.
type plainInts struct {
	data  []byte
	width int
}

func (p *plainInts) next() (v value, err error) {
	if len(p.data) < p.width {
		return v, errShort
	}
	if p.width == 4 {
		v.number = int64(int32(binary.LittleEndian.Uint32(p.data)))
	} else {
		v.number = int64(binary.LittleEndian.Uint64(p.data))
	}
	p.data = p.data[p.width:]
	return v, nil
}

// dictionary is a page of plain values, read by their number.
type dictionary struct {
	data   []byte
	typ    int64
	starts []uint32 // of byte arrays, with their lengths; integers have a width
	n      int
}

// newDictionary returns the first n values of data, which is less than 4 GiB.
func newDictionary(data []byte, typ int64, n int) (dictionary, error) {
	d := dictionary{data: data, typ: typ, n: n}
	if typ == byteArray {
		d.starts = make([]uint32, n)
	}
	rest := plainValues(data, typ)
	for i := range n {
		if p, ok := rest.(*plainBytes); ok {
			d.starts[i] = uint32(len(data) - len(p.data))
		}
		if _, err := rest.next(); err != nil {
			return dictionary{}, fmt.Errorf("dictionary: %w", err)
		}
	}
	return d, nil
}

// at returns value i.
func (d *dictionary) at(i uint32) (value, error) {
	if uint64(i) >= uint64(d.n) {
		return value{}, fmt.Errorf("index %d in a dictionary of %d values", i, d.n)
	}
	switch d.typ {
	case byteArray:
		return (&plainBytes{d.data[d.starts[i]:]}).next()
	case int32Type:
		return (&plainInts{d.data[4*i:], 4}).next()
	}
	return (&plainInts{d.data[8*i:], 8}).next()
}

// indexed decodes indices into a dictionary.
type indexed struct {
	indices    *hybrid
	dictionary *dictionary
}

func (x *indexed) next() (value, error) {
	i, err := x.indices.next()
	if err != nil {
		return value{}, err
	}
	return x.dictionary.at(i)
}

// hybrid decodes numbers of width bits, ≤ 32, in the RLE and bit-packing hybrid:
// runs of one number, and groups of 8 packed from the lowest bit on.
type hybrid struct {
	data   []byte // after the run at work
	width  uint
	left   int64 // numbers not yet read
	run    int64 // of these, in the run of one number
	number uint32
	packed int64 // or in the packed run
	bits   bitReader
}

func (h *hybrid) next() (uint32, error) {
	if h.left == 0 {
		return 0, errShort
	}
	if h.run == 0 && h.packed == 0 {
		if err := h.open(); err != nil {
			return 0, err
		}
	}
	h.left--
	if h.run > 0 {
		h.run--
		return h.number, nil
	}
	h.packed--
	return uint32(h.bits.read(h.width)), nil
}

// open begins the next run.
func (h *hybrid) open() error {
	head, k := binary.Uvarint(h.data)
	if k <= 0 {
		return errShort
	}
	h.data = h.data[k:]
	if head>>1 == 0 {
		return errors.New("empty run")
	}
	if head&1 == 0 {
		used := int(h.width+7) / 8
		if len(h.data) < used {
			return errShort
		}
		var word [8]byte
		copy(word[:], h.data[:used])
		h.number = uint32(binary.LittleEndian.Uint64(word[:]))
		h.data = h.data[used:]
		h.run = int64(min(head>>1, uint64(h.left)))
		return nil
	}
	groups := head >> 1
	h.packed = h.left // the last group is padded
	if groups <= uint64(h.left)/8 {
		h.packed = int64(groups) * 8
	}
	if h.width > 0 && uint64(len(h.data))*8/uint64(h.width) < uint64(h.packed) {
		return errShort
	}
	h.bits = bitReader{data: h.data}
	used := uint64(len(h.data))
	if h.width == 0 || groups <= used/uint64(h.width) {
		used = groups * uint64(h.width)
	}
	h.data = h.data[used:]
	return nil
}

// bitReader reads numbers packed from the lowest bit of the first byte on.
type bitReader struct {
	data []byte
	bit  int
}

// read returns the next width bits, ≤ 64. The caller has seen that they are there.
func (b *bitReader) read(width uint) (v uint64) {
	for got := uint(0); got < width; {
		at := uint(b.bit % 8)
		n := min(8-at, width-got)
		v |= uint64(b.data[b.bit/8]>>at&(1<<n-1)) << got
		got += n
		b.bit += int(n)
	}
	return v
}

// delta decodes DELTA_BINARY_PACKED: the first number, then blocks of mini
// blocks of differences, packed, above a least one. Sums wrap around in the
// numbers' own width.
type delta struct {
	narrow  bool    // 32 bits
	d       decoder // after what is read
	minis   int     // mini blocks in a block
	perMini int64
	left    int64 // numbers not yet read
	number  int64
	first   bool // number is the first and not yet read

	least  int64
	widths []byte // of the mini blocks that follow in this block
	bits   bitReader
	width  uint
	inMini int64 // numbers left in the mini block at work
}

// maxDeltaBlock bounds the numbers in a block; writers use 128 or so.
const maxDeltaBlock = 1 << 24

// newDelta reads the head. rest is what follows the last number.
func newDelta(data []byte, narrow bool) (x *delta, rest []byte, err error) {
	d := decoder{b: data}
	block, minis, total := d.varint(), d.varint(), d.varint()
	x = &delta{narrow: narrow, minis: int(min(minis, maxDeltaBlock)), left: int64(min(total, math.MaxInt32)), number: d.int(), first: true}
	if d.err != nil {
		return nil, nil, d.err
	}
	if total > math.MaxInt32 || minis == 0 || block == 0 || block > maxDeltaBlock || block%minis != 0 || block/minis%8 != 0 {
		return nil, nil, fmt.Errorf("delta encoding: %d values in blocks of %d/%d", total, block, minis)
	}
	x.perMini = int64(block / minis)
	x.d = d
	skip := *x
	skip.left = max(0, skip.left-1)
	for skip.left > 0 {
		if err := skip.openMini(); err != nil {
			return nil, nil, err
		}
		skip.left -= min(skip.inMini, skip.left)
		skip.inMini = 0
	}
	return x, data[skip.d.pos:], nil
}

func (x *delta) next() (v value, err error) {
	if x.left == 0 {
		return v, errShort
	}
	x.left--
	if x.first {
		x.first = false
		return value{number: x.number}, nil
	}
	if x.inMini == 0 {
		if err := x.openMini(); err != nil {
			return v, err
		}
	}
	x.inMini--
	x.number += x.least + int64(x.bits.read(x.width))
	if x.narrow {
		x.number = int64(int32(x.number))
	}
	return value{number: x.number}, nil
}

// openMini begins the next mini block, of the next block if need be.
func (x *delta) openMini() error {
	if len(x.widths) == 0 {
		x.least = x.d.int()
		at := x.d.pos
		x.d.advance(x.minis)
		if x.d.err != nil {
			return x.d.err
		}
		x.widths = x.d.b[at:x.d.pos]
	}
	x.width, x.widths = uint(x.widths[0]), x.widths[1:]
	if x.width > 64 {
		return errBad
	}
	at := x.d.pos
	x.d.advance(int(x.perMini) / 8 * int(x.width))
	if x.d.err != nil {
		return x.d.err
	}
	x.bits, x.inMini = bitReader{data: x.d.b[at:x.d.pos]}, x.perMini
	return nil
}

// deltaLength decodes DELTA_LENGTH_BYTE_ARRAY: all lengths, then all bytes.
type deltaLength struct {
	lengths *delta
	data    []byte
}

func newDeltaLength(data []byte) (*deltaLength, error) {
	lengths, rest, err := newDelta(data, true)
	return &deltaLength{lengths, rest}, err
}

func (x *deltaLength) next() (value, error) {
	size, err := x.lengths.next()
	if err != nil {
		return value{}, err
	}
	return takeBytes(&x.data, 0, size.number)
}

// deltaBytes decodes DELTA_BYTE_ARRAY: of each value, how many bytes it shares
// with the beginning of the one before, and the others.
type deltaBytes struct {
	shared   *delta
	suffixes *deltaLength
	last     []byte
}

func newDeltaBytes(data []byte) (*deltaBytes, error) {
	shared, rest, err := newDelta(data, true)
	if err != nil {
		return nil, err
	}
	suffixes, err := newDeltaLength(rest)
	return &deltaBytes{shared: shared, suffixes: suffixes}, err
}

func (x *deltaBytes) next() (v value, err error) {
	shared, err := x.shared.next()
	if err != nil {
		return v, err
	}
	suffix, err := x.suffixes.next()
	if err != nil {
		return v, err
	}
	if shared.number < 0 || shared.number > int64(len(x.last)) || len(x.last)+len(suffix.bytes) > maxPage {
		return v, errors.New("delta encoding: bad prefix")
	}
	x.last = append(x.last[:shared.number], suffix.bytes...)
	return value{bytes: x.last}, nil
}
