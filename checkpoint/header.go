package checkpoint

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/tensor"
)

const (
	maxHeader = 100_000_000 // bytes; the limit of the safetensors library
	maxRank   = 64          // dimensions; no framework has more
)

// Tensor is one tensor of a checkpoint: what it is and where its bytes lie.
type Tensor struct {
	Name   string
	DType  tensor.DType
	Shape  []int
	File   string // base name of the file that holds it
	Offset int64  // bytes from the start of the file
	Size   int64  // bytes: product of Shape times the bits of DType, over 8
}

// Elements returns the product of the shape.
func (t Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= int64(d)
	}
	return n
}

// pair is an entry of a header's __metadata__. Pairs keep the file's order, so
// that a header is written back as it was read.
type pair struct{ key, value string }

// header is what the head of a safetensors file says, checked.
type header struct {
	tensors  []Tensor // by offset; Offset counts from the start of the file
	metadata []pair
}

// readHeader reads and checks the header of a safetensors file of size bytes:
//
//	8 bytes  n, the header's length, little-endian
//	n bytes  JSON {"name": {"dtype": …, "shape": […], "data_offsets": [begin, end]}, …}
//	the rest data; tensors follow one another without hole or overlap
//
// Nothing is allocated before n is known to fit both the file and maxHeader.
// https://github.com/huggingface/safetensors#format
func readHeader(r io.ReaderAt, size int64) (*header, error) {
	if size < 8 {
		return nil, fmt.Errorf("%d bytes long, want a safetensors file, which has at least 8", size)
	}
	var prefix [8]byte
	if _, err := r.ReadAt(prefix[:], 0); err != nil {
		return nil, fmt.Errorf("reading the header's length: %w", err)
	}
	n := binary.LittleEndian.Uint64(prefix[:])
	if n > maxHeader {
		head := make([]byte, min(size, int64(regular.PointerBytes)))
		if _, err := r.ReadAt(head, 0); err == nil {
			if err := regular.CheckPointer(head); err != nil {
				return nil, err
			}
		}
		return nil, fmt.Errorf("header of %d bytes, want at most %d: not a safetensors file, or damaged", n, maxHeader)
	}
	if int64(n) > size-8 {
		return nil, fmt.Errorf("header of %d bytes in a file of %d: truncated", n, size)
	}
	if n < 2 {
		return nil, fmt.Errorf("header of %d bytes, want at least {}", n)
	}
	text := make([]byte, n)
	if _, err := r.ReadAt(text, 8); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	h, err := parseHeader(text)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if err := h.place(8+int64(n), size); err != nil {
		return nil, err
	}
	return h, nil
}

// parseHeader parses the JSON of a header. Each tensor by itself is checked,
// its offsets count from the start of the data.
func parseHeader(text []byte) (*header, error) {
	h := &header{}
	s := &scanner{data: text}
	if len(text) == 0 || text[0] != '{' {
		return nil, s.errorf("%s, want '{': not a safetensors file", s.found())
	}
	seen := map[string]bool{}
	err := s.object("the header", func(name string) error {
		if seen[name] {
			return s.errorf("tensor %.200q is there twice", name)
		}
		seen[name] = true
		if name == "__metadata__" {
			return h.parseMetadata(s)
		}
		t, err := parseTensor(s, name)
		if err != nil {
			return fmt.Errorf("tensor %.200q: %w", name, err)
		}
		h.tensors = append(h.tensors, t)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return h, s.end()
}

// parseMetadata reads __metadata__, which null leaves empty, as the safetensors
// library has it.
func (h *header) parseMetadata(s *scanner) error {
	if s.peek() == 'n' {
		return s.null("__metadata__")
	}
	seen := map[string]bool{}
	return s.object("__metadata__", func(key string) error {
		if seen[key] {
			return s.errorf("__metadata__: key %.200q is there twice", key)
		}
		seen[key] = true
		value, err := s.str("__metadata__")
		if err != nil {
			return err
		}
		h.metadata = append(h.metadata, pair{key, value})
		return nil
	})
}

// parseTensor reads a tensor's object and checks that its range is as long as
// its shape says.
func parseTensor(s *scanner, name string) (Tensor, error) {
	t := Tensor{Name: name}
	var begin, end int64
	seen := map[string]bool{}
	err := s.object("a tensor", func(key string) (err error) {
		if seen[key] {
			return s.errorf("key %.200q is there twice", key)
		}
		seen[key] = true
		switch key {
		case "dtype":
			var d string
			if d, err = s.str("dtype"); err == nil {
				t.DType, err = tensor.ParseDType(d)
			}
		case "shape":
			t.Shape, err = parseShape(s)
		case "data_offsets":
			begin, end, err = parseOffsets(s)
		default:
			err = s.errorf("unknown key %.200q", key)
		}
		return err
	})
	if err != nil {
		return t, err
	}
	for _, key := range [...]string{"dtype", "shape", "data_offsets"} {
		if !seen[key] {
			return t, fmt.Errorf("no %s", key)
		}
	}
	want, err := byteSize(t.DType, t.Shape)
	if err != nil {
		return t, err
	}
	if end < begin || end-begin != want {
		return t, fmt.Errorf("data_offsets [%d, %d], want %d bytes for shape %v of %v", begin, end, want, t.Shape, t.DType)
	}
	t.Offset, t.Size = begin, want
	return t, nil
}

func parseShape(s *scanner) ([]int, error) {
	shape := []int{}
	err := s.array("shape", func() error {
		d, err := s.uint("shape")
		if err != nil {
			return err
		}
		if d > math.MaxInt {
			return s.errorf("shape: dimension %d is too large for this machine", d)
		}
		if len(shape) == maxRank {
			return s.errorf("shape: more than %d dimensions", maxRank)
		}
		shape = append(shape, int(d))
		return nil
	})
	return shape, err
}

func parseOffsets(s *scanner) (begin, end int64, err error) {
	var v []int64
	err = s.array("data_offsets", func() error {
		o, err := s.uint("data_offsets")
		if err == nil && len(v) == 2 {
			err = s.errorf("data_offsets: more than 2 numbers")
		}
		v = append(v, o)
		return err
	})
	if err == nil && len(v) != 2 {
		err = s.errorf("data_offsets: %d numbers, want 2", len(v))
	}
	if err != nil {
		return 0, 0, err
	}
	return v[0], v[1], nil
}

// byteSize returns the bytes of a tensor, or an error if they are no whole number,
// which the format does not have, or they or a product on the way to them, in bits,
// exceed 2⁶³−1.
func byteSize(d tensor.DType, shape []int) (int64, error) {
	n := int64(1)
	for _, dim := range shape {
		if dim != 0 && n > math.MaxInt64/int64(dim) {
			return 0, fmt.Errorf("shape %v: too large", shape)
		}
		n *= int64(dim)
	}
	if n > math.MaxInt64/int64(d.Bits()) {
		return 0, fmt.Errorf("shape %v: too large", shape)
	}
	if n *= int64(d.Bits()); n%8 != 0 {
		return 0, fmt.Errorf("shape %v of %v: %d bits, want whole bytes", shape, d, n)
	}
	return n / 8, nil
}

// place sorts the tensors by offset, checks that they fill the data from its
// start to the end of the file, and makes offsets count from the file's start.
func (h *header) place(data, size int64) error {
	slices.SortStableFunc(h.tensors, func(a, b Tensor) int {
		// An empty tensor comes before the one that begins where it lies.
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size))
	})
	var at int64
	for i := range h.tensors {
		t := &h.tensors[i]
		if t.Offset < at {
			return fmt.Errorf("tensor %.200q: data from byte %d overlaps that of %.200q, which ends at %d", t.Name, t.Offset, h.tensors[i-1].Name, at)
		}
		if t.Offset > at {
			return fmt.Errorf("tensor %.200q: data from byte %d leaves a hole after byte %d", t.Name, t.Offset, at)
		}
		at += t.Size
		if at < 0 || at > size-data {
			return fmt.Errorf("tensor %.200q: data to byte %d, file has %d: truncated", t.Name, t.Offset+t.Size, size-data)
		}
		t.Offset += data
	}
	if at != size-data {
		return fmt.Errorf("%d bytes after the last tensor", size-data-at)
	}
	return nil
}

// encode returns the head of a safetensors file with h's tensors, in their
// order, and their offsets from the start of the file set. It is padded with
// spaces to a multiple of 8 bytes as safetensors does, byte for byte what the
// safetensors library writes.
func (h *header) encode() []byte {
	text := make([]byte, 8, 8+128*(len(h.tensors)+1))
	text = append(text, '{')
	comma := func() {
		if text[len(text)-1] != '{' {
			text = append(text, ',')
		}
	}
	if len(h.metadata) > 0 {
		text = append(text, `"__metadata__":{`...)
		for _, p := range h.metadata {
			comma()
			text = append(appendString(text, p.key), ':')
			text = appendString(text, p.value)
		}
		text = append(text, '}')
	}
	var at int64
	for _, t := range h.tensors {
		comma()
		text = appendTensor(text, t, at)
		at += t.Size
	}
	text = append(text, '}')
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	binary.LittleEndian.PutUint64(text, uint64(len(text)-8))
	at = int64(len(text))
	for i := range h.tensors {
		h.tensors[i].Offset = at
		at += h.tensors[i].Size
	}
	return text
}

func appendTensor(text []byte, t Tensor, at int64) []byte {
	text = append(appendString(text, t.Name), `:{"dtype":`...)
	text = append(appendString(text, t.DType.String()), `,"shape":[`...)
	for i, d := range t.Shape {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(d), 10)
	}
	text = append(text, `],"data_offsets":[`...)
	text = append(strconv.AppendInt(text, at, 10), ',')
	text = strconv.AppendInt(text, at+t.Size, 10)
	return append(text, `]}`...)
}
