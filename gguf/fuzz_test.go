package gguf

import (
	"bytes"
	"os"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
)

// FuzzHead parses anything as a file: no length in it is believed, so that the
// head takes a multiple of the bytes that are there.
func FuzzHead(f *testing.F) {
	blocks, err := os.ReadFile(blocksFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blocks[:4096])
	f.Add(begin(3, 1, 0).tensor("w", F32, 0, 4, 2).pad(32).data)
	f.Add(begin(2, 1<<17, 1<<16).data)
	f.Add(split(0, 2, 2, "a"))
	b := begin(3, 0, 1).key("tokens", Array, String)
	b.u64(2)
	b.text("a")
	b.text("b")
	f.Add(b.data)
	f.Fuzz(func(t *testing.T, data []byte) {
		var h *head
		var err error
		golden.Ceiling(t, uint64(64<<10+100*len(data)), func() { h, err = readHead(bytes.NewReader(data), int64(len(data))) })
		if err != nil {
			return
		}
		for _, x := range h.tensors {
			if x.Offset < 0 || x.Size < 0 || x.Offset+x.Size > int64(len(data)) {
				t.Fatalf("tensor %s: bytes %d to %d of a file of %d", x.Name, x.Offset, x.Offset+x.Size, len(data))
			}
			if x.Size < 1<<16 {
				dst := make([]float32, x.Rows()*x.Cols())
				x.Type.Dequantize(dst, data[x.Offset:x.Offset+x.Size])
			}
		}
		for _, key := range h.metadata.Keys() {
			v, _ := h.metadata.Get(key)
			_ = v.String()
			_, _ = h.metadata.Texts(key)
			_, _ = h.metadata.Floats(key)
			_, _ = h.metadata.Int(key, 0, 1<<30)
		}
	})
}
