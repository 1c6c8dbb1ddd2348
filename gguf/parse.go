package gguf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// What is believed of a head: well above any published file.
const (
	maxHead      = 512 << 20 // bytes; a vocabulary of 256k tokens takes 15 MB
	maxKeys      = 1 << 16
	maxTensors   = 1 << 17
	maxName      = 1 << 16 // bytes of a key's or tensor's name
	maxDims      = 4
	maxElements  = 1 << 48
	maxAlignment = 1 << 20

	defaultAlignment = 32
	alignmentKey     = "general.alignment"
)

// Tensor is one tensor of a file.
type Tensor struct {
	Name   string
	Type   Type
	Shape  []int // slowest dimension first, the reverse of the file's
	Offset int64 // bytes from the start of the file that holds it
	Size   int64 // bytes

	part int // the split that holds it
}

// Rows returns the number of rows: the product of all dimensions but the last.
func (t Tensor) Rows() int {
	n := 1
	for _, d := range t.Shape[:len(t.Shape)-1] {
		n *= d
	}
	return n
}

// Cols returns the length of a row, which is stored in one piece.
func (t Tensor) Cols() int { return t.Shape[len(t.Shape)-1] }

// head is what one file says before its data.
type head struct {
	metadata Metadata
	tensors  []Tensor // in the file's order; offsets count from its start
}

// readHead reads and checks the head of a file of size bytes. The head does not
// say how long it is, so it is read in pieces that double, and no length in it
// is believed that does not fit in the file.
func readHead(r io.ReaderAt, size int64) (*head, error) {
	for n := min(int64(1<<16), size); ; n = min(2*n, size, maxHead) {
		data := make([]byte, n)
		if _, err := r.ReadAt(data, 0); err != nil {
			return nil, err
		}
		c := &cursor{data: data, size: size}
		h, err := c.head()
		switch {
		case !errors.Is(err, errShort):
			return h, err
		case n == maxHead: // at the file's end take has said so
			return nil, fmt.Errorf("head of more than %d bytes", maxHead)
		}
	}
}

// errShort says that the head goes on after the bytes that have been read.
var errShort = errors.New("head longer than what was read")

// cursor walks over the first bytes of a file.
type cursor struct {
	data []byte
	pos  int
	size int64 // of the file
}

// take returns the next n bytes.
func (c *cursor) take(n uint64, what string) ([]byte, error) {
	if n > uint64(c.size)-uint64(c.pos) {
		return nil, fmt.Errorf("%s: %d bytes from byte %d on in a file of %d: truncated, or damaged", what, n, c.pos, c.size)
	}
	if n > uint64(len(c.data)-c.pos) {
		return nil, errShort
	}
	b := c.data[c.pos : c.pos+int(n)]
	c.pos += int(n)
	return b, nil
}

func (c *cursor) uint32(what string) (uint32, error) {
	b, err := c.take(4, what)
	if err != nil {
		return 0, err
	}
	return le.Uint32(b), nil
}

func (c *cursor) uint64(what string) (uint64, error) {
	b, err := c.take(8, what)
	if err != nil {
		return 0, err
	}
	return le.Uint64(b), nil
}

// name reads the name of a key or tensor.
func (c *cursor) name(what string) (string, error) {
	n, err := c.uint64(what)
	if err == nil && (n == 0 || n > maxName) {
		err = fmt.Errorf("%s: name of %d bytes, want 1 to %d", what, n, maxName)
	}
	if err != nil {
		return "", err
	}
	b, err := c.take(n, what)
	if err == nil && !utf8.Valid(b) {
		err = fmt.Errorf("%s: name %.100q is not UTF-8", what, b)
	}
	return string(b), err
}

func (c *cursor) head() (*head, error) {
	tensors, keys, err := c.counts()
	if err != nil {
		return nil, err
	}
	h := &head{}
	for i := range keys {
		if err := c.key(&h.metadata, fmt.Sprintf("key %d of %d", i+1, keys)); err != nil {
			return nil, err
		}
	}
	for i := range tensors {
		t, err := c.tensor(fmt.Sprintf("tensor %d of %d", i+1, tensors))
		if err != nil {
			return nil, err
		}
		h.tensors = append(h.tensors, t)
	}
	alignment := defaultAlignment
	if h.metadata.Has(alignmentKey) {
		alignment, err = h.metadata.Int(alignmentKey, 1, maxAlignment)
		if err == nil && bits.OnesCount(uint(alignment)) != 1 {
			err = fmt.Errorf("key %s: %d, want a power of two", alignmentKey, alignment)
		}
		if err != nil {
			return nil, err
		}
	}
	return h, h.place(align(int64(c.pos), int64(alignment)), int64(alignment), c.size)
}

// counts reads what comes before the keys.
func (c *cursor) counts() (tensors, keys uint64, err error) {
	if b, err := c.take(4, "magic"); err != nil || string(b) != "GGUF" {
		return 0, 0, errors.New("not a GGUF file: it does not begin with GGUF")
	}
	version, err := c.uint32("version")
	if err != nil {
		return 0, 0, err
	}
	if swapped := bits.ReverseBytes32(version); swapped > 0 && swapped < 1<<16 {
		return 0, 0, fmt.Errorf("a big-endian GGUF file, want little-endian: convert it with gguf-convert-endian FILE little")
	}
	if version != 2 && version != 3 {
		return 0, 0, fmt.Errorf("GGUF version %d, want 2 or 3", version)
	}
	if tensors, err = c.uint64("number of tensors"); err == nil {
		keys, err = c.uint64("number of keys")
	}
	switch {
	case err != nil:
	case tensors > maxTensors:
		err = fmt.Errorf("%d tensors, want at most %d", tensors, maxTensors)
	case keys > maxKeys:
		err = fmt.Errorf("%d keys, want at most %d", keys, maxKeys)
	}
	return tensors, keys, err
}

// key reads a key and its value.
func (c *cursor) key(m *Metadata, what string) error {
	key, err := c.name(what)
	if err != nil {
		return err
	}
	what = fmt.Sprintf("key %.100s", key) // a name may have 64 KiB
	if m.Has(key) {
		return fmt.Errorf("%s is there twice", what)
	}
	kind, err := c.uint32(what)
	if err != nil {
		return err
	}
	v := Value{Kind: Kind(kind), Len: 1}
	if v.Kind == Array {
		v.List = true
		if kind, err = c.uint32(what); err != nil {
			return err
		}
		v.Kind = Kind(kind)
		n, err := c.uint64(what)
		if err != nil {
			return err
		}
		if n > uint64(c.size) {
			return fmt.Errorf("%s: %d elements in a file of %d bytes", what, n, c.size)
		}
		v.Len = int(n)
	}
	if int(v.Kind) >= len(kinds) || v.Kind == Array {
		return fmt.Errorf("%s: a value of %v, want one of uint8 to float64, a string, or an array of them", what, v.Kind)
	}
	if v.raw, err = c.elements(v, what); err == nil {
		m.set(key, v)
	}
	return err
}

// elements returns the bytes of v's elements.
func (c *cursor) elements(v Value, what string) ([]byte, error) {
	if n := kinds[v.Kind].bytes; n > 0 {
		return c.take(uint64(n)*uint64(v.Len), what)
	}
	start := c.pos
	for range v.Len {
		n, err := c.uint64(what)
		if err != nil {
			return nil, err
		}
		if _, err := c.take(n, what); err != nil {
			return nil, err
		}
	}
	return c.data[start:c.pos], nil
}

// tensor reads what the head says of a tensor; Offset counts from the start of
// the data.
func (c *cursor) tensor(what string) (t Tensor, err error) {
	if t.Name, err = c.name(what); err != nil {
		return t, err
	}
	what = fmt.Sprintf("tensor %.100s", t.Name)
	n, err := c.uint32(what)
	if err != nil {
		return t, err
	}
	if n < 1 || n > maxDims {
		return t, fmt.Errorf("%s: %d dimensions, want 1 to %d", what, n, maxDims)
	}
	elements := uint64(1)
	for range n {
		d, err := c.uint64(what)
		if err != nil {
			return t, err
		}
		if d == 0 || d > maxElements/elements {
			return t, fmt.Errorf("%s: dimension %d after %d elements, want at least 1 and at most %d in all", what, d, elements, uint64(maxElements))
		}
		elements *= d
		t.Shape = append(t.Shape, int(d))
	}
	slices.Reverse(t.Shape)
	kind, err := c.uint32(what)
	if err != nil {
		return t, err
	}
	t.Type = Type(kind)
	if _, ok := layouts[t.Type]; !ok {
		return t, fmt.Errorf("%s: stored as %v, want %s", what, t.Type, readable)
	}
	if t.Cols()%t.Type.Block() != 0 {
		return t, fmt.Errorf("%s: rows of %d elements, want a multiple of %d for %v", what, t.Cols(), t.Type.Block(), t.Type)
	}
	t.Size = int64(elements) / int64(t.Type.Block()) * int64(layouts[t.Type].bytes)
	offset, err := c.uint64(what)
	if err == nil && offset > math.MaxInt64 {
		err = fmt.Errorf("%s: offset %d, beyond any file", what, offset)
	}
	t.Offset = int64(offset)
	return t, err
}

// place checks that the tensors lie in the data, which begins at byte start,
// and apart from each other, and makes offsets count from the file's start.
func (h *head) place(start, alignment, size int64) error {
	order := make([]*Tensor, len(h.tensors))
	seen := make(map[string]bool, len(h.tensors))
	for i := range h.tensors {
		t := &h.tensors[i]
		if seen[t.Name] {
			return fmt.Errorf("tensor %.100s is there twice", t.Name)
		}
		seen[t.Name] = true
		if t.Offset%alignment != 0 {
			return fmt.Errorf("tensor %.100s: offset %d, want a multiple of %d", t.Name, t.Offset, alignment)
		}
		if have := max(size-start, 0); t.Size > have || t.Offset > have-t.Size {
			return fmt.Errorf("tensor %.100s: bytes %d to %d of %d bytes of data: truncated, or damaged", t.Name, t.Offset, t.Offset+t.Size, have)
		}
		order[i] = t
	}
	slices.SortFunc(order, func(a, b *Tensor) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	for i, t := range order {
		if i > 0 && t.Offset < order[i-1].Offset+order[i-1].Size {
			return fmt.Errorf("tensor %.100s: offset %d, within tensor %.100s", t.Name, t.Offset, order[i-1].Name)
		}
	}
	for _, t := range order {
		t.Offset += start
	}
	return nil
}

// align returns the next multiple of alignment from n on.
func align(n, alignment int64) int64 { return (n + alignment - 1) / alignment * alignment }
