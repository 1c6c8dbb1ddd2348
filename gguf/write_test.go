package gguf

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
)

func TestEncodeIsReadBack(t *testing.T) {
	var h Header
	values := map[string]any{
		"a.text": "é\n", "a.bool": true, "a.float": float32(-0.5), "a.uint": uint32(1 << 31), "a.int": int32(-3),
		"a.texts": []string{"", "x", "yz"}, "a.floats": []float32{1, 2.5}, "a.ints": []int32{-1, 7}, "a.none": []string(nil),
	}
	for key, v := range values {
		h.Metadata.Set(key, v)
	}
	h.Tensors = []Tensor{
		{Name: "matrix", Type: Q8_0, Shape: []int{3, 64}},
		{Name: "vector", Type: F32, Shape: []int{5}},
		{Name: "experts", Type: BF16, Shape: []int{2, 3, 4}},
	}
	head, size := h.Encode()
	data := append(slices.Clone(head), make([]byte, size-int64(len(head)))...)
	got, err := readHead(bytes.NewReader(data), size)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.tensors, h.Tensors) {
		t.Errorf("tensors %+v, want %+v", got.tensors, h.Tensors)
	}
	for key := range values {
		want, _ := h.Metadata.Get(key)
		v, ok := got.metadata.Get(key)
		if !ok || v.Kind != want.Kind || v.List != want.List || v.Len != want.Len || !bytes.Equal(v.raw, want.raw) {
			t.Errorf("%s: %v, want %v", key, v, want)
		}
	}
	if texts, err := got.metadata.Texts("a.texts"); err != nil || !slices.Equal(texts, []string{"", "x", "yz"}) {
		t.Errorf("a.texts: %q %v", texts, err)
	}
}
