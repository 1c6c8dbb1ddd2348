package hf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tokenizer"
)

// FuzzOpen opens anything as a model, and reads what it then says it has. The
// tokenizer.json that is made spells every token and merge once more.
func FuzzOpen(f *testing.F) {
	for _, name := range []string{"llama", "mistral", "qwen3moe"} {
		data, err := os.ReadFile(filepath.Join("testdata", name+Ext))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		f.Add(data[:len(data)/3])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "m.gguf")
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		golden.Ceiling(t, uint64(1<<20+400*len(data)), func() {
			inv, err := Open(path)
			if err != nil {
				return
			}
			defer inv.Close()
			for _, x := range inv.Tensors() {
				if x.Size < 1<<14 {
					_ = inv.Read(x, make([]byte, x.Size))
				}
			}
			_, _ = tokenizer.LoadWith(inv.ReadFile, path)
		})
	})
}
