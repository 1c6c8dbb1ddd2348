package hf

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/gguf"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tokenizer"
)

// headOf returns a file up to the data of its tensors.
func headOf(f *testing.F, path string) []byte {
	file, err := gguf.Open(path)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	end := int64(math.MaxInt64)
	for _, t := range file.Tensors {
		end = min(end, t.Offset)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	return data[:end]
}

// FuzzOpen opens anything, with zeros after it that may be tensors, as a model, and
// reads what it then says it has. The tokenizer.json that is made spells every token
// and merge once more.
func FuzzOpen(f *testing.F) {
	paths, err := filepath.Glob(filepath.Join("testdata", "*"+Ext))
	if err != nil || len(paths) < 8 {
		f.Fatalf("%v, %v", paths, err)
	}
	var zeros [128 << 10]byte
	for _, path := range paths {
		head := headOf(f, path)
		f.Add(head)
		if strings.Contains(path, "llama") {
			f.Add(head[:len(head)/3])
		}
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := os.WriteFile(path, append(head, zeros[:]...), 0o666); err != nil {
			t.Fatal(err)
		}
		var inv *checkpoint.Inventory
		var err error
		golden.Ceiling(t, uint64(1<<20+400*len(head)), func() {
			if inv, err = Open(path); err == nil {
				_, _ = tokenizer.LoadWith(inv.ReadFile, path)
			}
		})
		if err != nil {
			return
		}
		defer inv.Close()
		for _, x := range inv.Tensors() {
			if x.Size < 1<<14 {
				_ = inv.Read(x, make([]byte, x.Size))
			}
		}
	})
}
