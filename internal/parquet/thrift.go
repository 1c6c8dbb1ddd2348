package parquet

import (
	"encoding/binary"
	"errors"
)

// Types of Thrift's compact protocol.
const (
	typeTrue   = 1
	typeFalse  = 2
	typeByte   = 3
	typeI16    = 4
	typeI32    = 5
	typeI64    = 6
	typeDouble = 7
	typeBinary = 8
	typeList   = 9
	typeSet    = 10
	typeMap    = 11
	typeStruct = 12
	typeUUID   = 13
)

var (
	errShort = errors.New("ends early")
	errBad   = errors.New("malformed Thrift data")
	errMany  = errors.New("more schema elements, row groups or chunks than any file has")
)

// maxDepth bounds the nesting of what is skipped; Parquet's own structures are
// less than 10 deep.
const maxDepth = 32

// decoder reads Thrift's compact protocol from b. It holds the first error;
// after one, every read returns a zero value.
type decoder struct {
	b   []byte
	pos int
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *decoder) byte() byte {
	if d.err != nil || d.pos >= len(d.b) {
		d.fail(errShort)
		return 0
	}
	d.pos++
	return d.b[d.pos-1]
}

func (d *decoder) varint() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.pos:])
	switch {
	case n == 0:
		d.fail(errShort)
		return 0
	case n < 0:
		d.fail(errBad)
		return 0
	}
	d.pos += n
	return v
}

// int is a number of any of the integer types but byte.
func (d *decoder) int() int64 {
	v := d.varint()
	return int64(v>>1) ^ -int64(v&1)
}

func (d *decoder) binary() []byte {
	n := d.varint()
	if d.err != nil || n > uint64(len(d.b)-d.pos) {
		d.fail(errShort)
		return nil
	}
	d.pos += int(n)
	return d.b[d.pos-int(n) : d.pos]
}

// fields calls f with the id and type of every field of a struct. f reads the
// value and returns true, or leaves it and returns false.
func (d *decoder) fields(f func(id int64, typ byte) bool) { d.fieldsAt(0, f) }

func (d *decoder) fieldsAt(depth int, f func(id int64, typ byte) bool) {
	id := int64(0)
	for d.err == nil {
		head := d.byte()
		if head == 0 {
			return
		}
		if delta := int64(head >> 4); delta != 0 {
			id += delta
		} else {
			id = d.int()
		}
		if typ := head & 15; !f(id, typ) {
			d.skip(typ, depth+1)
		}
	}
}

// list calls f once for every element of a list, if the elements are of the
// type wanted and at most so many.
func (d *decoder) list(want byte, most uint64, f func()) {
	typ, n := d.listHead()
	switch {
	case d.err == nil && n > 0 && typ != want:
		d.fail(errBad)
	case n > most:
		d.fail(errMany)
	}
	for i := uint64(0); i < n && d.err == nil; i++ {
		f()
	}
}

func (d *decoder) listHead() (typ byte, n uint64) {
	head := d.byte()
	if n = uint64(head >> 4); n == 15 {
		n = d.varint()
	}
	if d.err == nil && n > uint64(len(d.b)-d.pos) { // an element has a byte at least
		d.fail(errShort)
	}
	return head & 15, n
}

func (d *decoder) skip(typ byte, depth int) {
	if depth > maxDepth {
		d.fail(errBad)
	}
	if d.err != nil {
		return
	}
	switch typ {
	case typeTrue, typeFalse: // the value is in the type
	case typeByte:
		d.byte()
	case typeI16, typeI32, typeI64:
		d.varint()
	case typeDouble:
		d.advance(8)
	case typeUUID:
		d.advance(16)
	case typeBinary:
		d.binary()
	case typeList, typeSet:
		elem, n := d.listHead()
		for i := uint64(0); i < n && d.err == nil; i++ {
			d.skipElement(elem, depth+1)
		}
	case typeMap:
		n := d.varint()
		if n == 0 {
			return
		}
		kinds := d.byte()
		for i := uint64(0); i < n && d.err == nil; i++ {
			d.skipElement(kinds>>4, depth+1)
			d.skipElement(kinds&15, depth+1)
		}
	case typeStruct:
		d.fieldsAt(depth, func(int64, byte) bool { return false })
	default:
		d.fail(errBad)
	}
}

// skipElement is skip for an element of a container, where a boolean has a byte.
func (d *decoder) skipElement(typ byte, depth int) {
	if typ == typeTrue || typ == typeFalse {
		d.byte()
		return
	}
	d.skip(typ, depth)
}

func (d *decoder) advance(n int) {
	if n > len(d.b)-d.pos {
		d.fail(errShort)
		return
	}
	d.pos += n
}
