package hf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/tokenizer"
)

// reference is what transformers reads of a file, tools/golden_gguf_models.py.
type reference struct {
	Tensors map[string]string // SHA-256 in bfloat16
	NLL     float64
	Texts   []string
	IDs     [][]int32
}

func readGolden(t *testing.T) map[string]reference {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]reference{}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 8 {
		t.Fatalf("golden.json has %d models, want 8 and more", len(all))
	}
	return all
}

func open(t *testing.T, path string) *checkpoint.Inventory {
	t.Helper()
	inv, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	return inv
}

func read(t *testing.T, inv *checkpoint.Inventory, x checkpoint.Tensor) []byte {
	t.Helper()
	data := make([]byte, x.Size)
	if err := inv.Read(x, data); err != nil {
		t.Fatal(err)
	}
	return data
}

// Every tensor has the bits that transformers gives it in bfloat16, whole and
// in pieces.
func TestTensorsEqualTransformers(t *testing.T) {
	for name, want := range readGolden(t) {
		t.Run(name, func(t *testing.T) {
			inv := open(t, filepath.Join("testdata", name+Ext))
			for _, x := range inv.Tensors() {
				whole := read(t, inv, x)
				sum := sha256.Sum256(whole)
				if got := hex.EncodeToString(sum[:]); got != want.Tensors[x.Name] {
					t.Errorf("%s: SHA-256 %.8s, want %.8s", x.Name, got, want.Tensors[x.Name])
				}
				for lo := int64(0); lo < x.Size; lo += 38 {
					part := make([]byte, min(38, x.Size-lo))
					if err := inv.ReadAt(x, part, lo); err != nil {
						t.Fatal(err)
					}
					if string(part) != string(whole[lo:lo+int64(len(part))]) {
						t.Fatalf("%s: bytes from %d on differ from those of the whole", x.Name, lo)
					}
				}
				delete(want.Tensors, x.Name)
			}
			if left := slices.Sorted(maps.Keys(want.Tensors)); len(left) > 0 {
				t.Errorf("not read: %s", strings.Join(left, ", "))
			}
		})
	}
}

func TestIDsEqualTransformers(t *testing.T) {
	for name, want := range readGolden(t) {
		t.Run(name, func(t *testing.T) {
			inv := open(t, filepath.Join("testdata", name+Ext))
			tok, err := tokenizer.LoadWith(inv.ReadFile, inv.Dir())
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range want.Texts {
				if got, err := tok.Encode(text, false); err != nil || !slices.Equal(got, want.IDs[i]) {
					t.Errorf("%q: %v %v, want %v", text, got, err, want.IDs[i])
				}
			}
		})
	}
}

// A file's folder has its chat template and says which tokens begin and end a text.
func TestTokenizerConfig(t *testing.T) {
	for name := range readGolden(t) {
		inv := open(t, filepath.Join("testdata", name+Ext))
		text, err := inv.ReadFile("tokenizer_config.json", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			Template string `json:"chat_template"`
			BOS      string `json:"bos_token"`
			EOS      string `json:"eos_token"`
		}
		if err := json.Unmarshal(text, &c); err != nil {
			t.Fatal(err)
		}
		if c.Template != "{% for m in messages %}{{ m.content }}{% endfor %}" || c.BOS == "" || c.EOS == "" {
			t.Errorf("%s: %s", name, text)
		}
	}
}
