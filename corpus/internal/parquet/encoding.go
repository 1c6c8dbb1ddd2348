package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxDelta bounds the values of a delta-encoded page, whose lengths are decoded
// as a whole before the first value: a few bytes can stand for any number.
const maxDelta = 1 << 24

// plainValues decodes PLAIN: every value after its length, 4 bytes little
// endian.
func plainValues(data []byte, n int64, yield func([]byte) error) error {
	for range n {
		if len(data) < 4 {
			return errShort
		}
		size := binary.LittleEndian.Uint32(data)
		if data = data[4:]; uint64(size) > uint64(len(data)) {
			return errShort
		}
		if err := yield(data[:size:size]); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

// hybrid decodes n numbers of width bits, ≤ 32, in the RLE and bit-packing
// hybrid: runs of one number, and groups of 8 packed from the lowest bit on. It
// yields a number with how often it is repeated: a few bytes can stand for any
// number of them.
func hybrid(data []byte, width uint, n int64, yield func(v uint32, count int64) error) error {
	for n > 0 {
		head, k := binary.Uvarint(data)
		if k <= 0 {
			return errShort
		}
		data = data[k:]
		if head&1 == 0 {
			used := int(width+7) / 8
			if len(data) < used {
				return errShort
			}
			var word [8]byte
			copy(word[:], data[:used])
			v := uint32(binary.LittleEndian.Uint64(word[:]))
			data = data[used:]
			run := min(head>>1, uint64(n))
			if run == 0 {
				return errors.New("empty run")
			}
			n -= int64(run)
			if err := yield(v, int64(run)); err != nil {
				return err
			}
			continue
		}
		groups := head >> 1
		if groups == 0 {
			return errors.New("empty run")
		}
		count := n // of the numbers in this run; the last group is padded
		if groups <= uint64(n)/8 {
			count = int64(groups) * 8
		}
		if width > 0 && uint64(len(data))*8/uint64(width) < uint64(count) {
			return errShort
		}
		b := bitReader{data: data}
		for range count {
			if err := yield(uint32(b.read(width)), 1); err != nil {
				return err
			}
		}
		n -= count
		data = data[min(groups*uint64(width), uint64(len(data))):]
	}
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

// deltaInts decodes DELTA_BINARY_PACKED: n lengths, ≥ 0. rest is what follows
// them.
func deltaInts(data []byte, n int64) (values []int32, rest []byte, err error) {
	if n > maxDelta {
		return nil, nil, fmt.Errorf("%d values in a page of delta encoding, want at most %d", n, maxDelta)
	}
	d := &decoder{b: data}
	block, minis, total := d.varint(), d.varint(), d.varint()
	value := d.int()
	if d.err != nil {
		return nil, nil, d.err
	}
	if total != uint64(n) || minis == 0 || block == 0 || block > maxDelta || block%minis != 0 || block/minis%8 != 0 {
		return nil, nil, fmt.Errorf("delta encoding: %d values in blocks of %d/%d, want %d", total, block, minis, n)
	}
	perMini := int64(block / minis)
	values = make([]int32, 0, n)
	add := func() error {
		if value < 0 || value > maxPage {
			return fmt.Errorf("delta encoding: length %d", value)
		}
		values = append(values, int32(value))
		return nil
	}
	if n > 0 {
		if err := add(); err != nil {
			return nil, nil, err
		}
	}
	for int64(len(values)) < n {
		least := d.int()
		at := d.pos
		d.advance(int(minis))
		for m := 0; m < int(minis) && d.err == nil && int64(len(values)) < n; m++ {
			width := uint(data[at+m])
			from := d.pos
			if width > 64 {
				return nil, nil, errBad
			}
			d.advance(int(perMini) / 8 * int(width))
			if d.err != nil {
				break
			}
			b := bitReader{data: data[from:d.pos]}
			for range min(perMini, n-int64(len(values))) {
				value += least + int64(b.read(width))
				if err := add(); err != nil {
					return nil, nil, err
				}
			}
		}
		if d.err != nil {
			return nil, nil, d.err
		}
	}
	return values, data[d.pos:], nil
}

// deltaLengthValues decodes DELTA_LENGTH_BYTE_ARRAY: all lengths, then all
// bytes.
func deltaLengthValues(data []byte, n int64, yield func([]byte) error) error {
	lengths, data, err := deltaInts(data, n)
	if err != nil {
		return err
	}
	for _, size := range lengths {
		if int(size) > len(data) {
			return errShort
		}
		if err := yield(data[:size:size]); err != nil {
			return err
		}
		data = data[size:]
	}
	return nil
}

// deltaValues decodes DELTA_BYTE_ARRAY: of every value, how many bytes it
// shares with the beginning of the one before, and the others.
func deltaValues(data []byte, n int64, yield func([]byte) error) error {
	shared, data, err := deltaInts(data, n)
	if err != nil {
		return err
	}
	var value []byte
	i := 0
	return deltaLengthValues(data, n, func(suffix []byte) error {
		if int(shared[i]) > len(value) || len(value)+len(suffix) > maxPage {
			return errors.New("delta encoding: bad prefix")
		}
		value = append(value[:shared[i]], suffix...)
		i++
		return yield(value)
	})
}
