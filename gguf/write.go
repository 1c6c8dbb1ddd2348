package gguf

import (
	"fmt"
	"math"
	"slices"
)

// Header is what a file says before its data.
type Header struct {
	Metadata Metadata
	Tensors  []Tensor // Name, Type and Shape; Offset and Size are set by Encode
}

// Set gives a key a value: a string, bool, float32, uint32, int32, or a slice
// of strings, float32 or int32.
func (m *Metadata) Set(key string, value any) {
	v := Value{Len: 1}
	switch x := value.(type) {
	case string:
		v.Kind, v.raw = String, appendText(nil, x)
	case bool:
		v.Kind, v.raw = Bool, []byte{0}
		if x {
			v.raw[0] = 1
		}
	case float32:
		v.Kind, v.raw = Float32, le.AppendUint32(nil, math.Float32bits(x))
	case uint32:
		v.Kind, v.raw = Uint32, le.AppendUint32(nil, x)
	case int32:
		v.Kind, v.raw = Int32, le.AppendUint32(nil, uint32(x))
	case []string:
		v = list(String, x, appendText)
	case []float32:
		v = list(Float32, x, func(raw []byte, f float32) []byte { return le.AppendUint32(raw, math.Float32bits(f)) })
	case []int32:
		v = list(Int32, x, func(raw []byte, n int32) []byte { return le.AppendUint32(raw, uint32(n)) })
	default:
		panic(fmt.Sprintf("gguf: Set of %s: a %T", key, value))
	}
	m.set(key, v)
}

func list[T any](kind Kind, elements []T, encode func([]byte, T) []byte) Value {
	v := Value{Kind: kind, List: true, Len: len(elements)}
	for _, e := range elements {
		v.raw = encode(v.raw, e)
	}
	return v
}

func appendText(raw []byte, s string) []byte {
	return append(le.AppendUint64(raw, uint64(len(s))), s...)
}

// Encode returns the head of a file of version 3 with padding up to the data,
// and gives each tensor its place: one after the other, each at a multiple of
// 32 bytes from the head's end. The file ends, padded too, after so many bytes.
func (h *Header) Encode() (head []byte, size int64) {
	b := append([]byte("GGUF"), 3, 0, 0, 0)
	b = le.AppendUint64(b, uint64(len(h.Tensors)))
	b = le.AppendUint64(b, uint64(len(h.Metadata.keys)))
	for _, key := range h.Metadata.keys {
		v := h.Metadata.values[key]
		b = appendText(b, key)
		if v.List {
			b = le.AppendUint32(b, uint32(Array))
		}
		b = le.AppendUint32(b, uint32(v.Kind))
		if v.List {
			b = le.AppendUint64(b, uint64(v.Len))
		}
		b = append(b, v.raw...)
	}
	var at int64
	for i := range h.Tensors {
		t := &h.Tensors[i]
		t.Offset, t.Size = at, int64(t.Type.RowBytes(t.Cols()))*int64(t.Rows())
		at = align(at+t.Size, defaultAlignment)
		b = appendText(b, t.Name)
		b = le.AppendUint32(b, uint32(len(t.Shape)))
		for _, d := range slices.Backward(t.Shape) {
			b = le.AppendUint64(b, uint64(d))
		}
		b = le.AppendUint32(b, uint32(t.Type))
		b = le.AppendUint64(b, uint64(t.Offset))
	}
	start := align(int64(len(b)), defaultAlignment)
	b = append(b, make([]byte, start-int64(len(b)))...)
	for i := range h.Tensors {
		h.Tensors[i].Offset += start
	}
	return b, start + at
}
