package hf

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/gguf"
	"github.com/crepe-llm/crepe/tokenizer"
)

func exportTo(t *testing.T, inv *checkpoint.Inventory, kind gguf.Type) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out.gguf")
	if err := Export(context.Background(), inv, path, ExportOptions{Name: "tiny", Type: kind}); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is exported as bf16 is read back as it was: config, tensors bit for bit,
// ids and chat template.
func TestExportIsReadBack(t *testing.T) {
	for name, want := range readGolden(t) {
		t.Run(name, func(t *testing.T) {
			inv := open(t, filepath.Join("testdata", name+Ext))
			again := open(t, exportTo(t, inv, gguf.BF16))
			if got := again.Config(); !bytes.Equal(got, inv.Config()) {
				t.Errorf("config.json is\n%s, want\n%s", got, inv.Config())
			}
			if got, want := len(again.Tensors()), len(inv.Tensors()); got != want {
				t.Errorf("%d tensors, want %d", got, want)
			}
			for _, x := range inv.Tensors() {
				y, ok := again.Tensor(x.Name)
				if !ok || !slices.Equal(x.Shape, y.Shape) {
					t.Fatalf("%s: %v, want %v", x.Name, y.Shape, x.Shape)
				}
				if !bytes.Equal(read(t, again, y), read(t, inv, x)) {
					t.Errorf("%s has changed", x.Name)
				}
			}
			tok, err := tokenizer.LoadWith(again.ReadFile, again.Dir())
			if err != nil {
				t.Fatal(err)
			}
			for i, text := range want.Texts {
				if got, err := tok.Encode(text, false); err != nil || !slices.Equal(got, want.IDs[i]) {
					t.Errorf("%q: %v %v, want %v", text, got, err, want.IDs[i])
				}
			}
			for _, file := range []string{"tokenizer_config.json"} {
				was, err := inv.ReadFile(file, 1<<20)
				if err != nil {
					t.Fatal(err)
				}
				if now, err := again.ReadFile(file, 1<<20); err != nil || !bytes.Equal(now, was) {
					t.Errorf("%s is\n%s %v, want\n%s", file, now, err, was)
				}
			}
		})
	}
}

// Each type has the types of llama.cpp's files, and values as near as it can.
func TestExportTypes(t *testing.T) {
	inv := open(t, "testdata/llama.gguf")
	for _, kind := range ExportTypes {
		f, err := gguf.Open(exportTo(t, inv, kind))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, x := range f.Tensors {
			want := kind
			switch {
			case len(x.Shape) == 1:
				want = gguf.F32
			case kind == gguf.Q4_0 && (x.Name == "token_embd.weight" || x.Name == "output.weight"):
				want = gguf.Q8_0
			}
			if x.Type != want {
				t.Errorf("%v: %s is %v, want %v", kind, x.Name, x.Type, want)
			}
		}
	}
}

// folder is a model's folder with one file changed.
type folder struct {
	checkpoint.Source
	files map[string][]byte
}

func (f folder) Files() map[string][]byte { return f.files }

// changed returns the inventory of a tiny model with some text of a file replaced.
func changed(t *testing.T, name, file, was, becomes string) *checkpoint.Inventory {
	t.Helper()
	f, err := gguf.Open(filepath.Join("testdata", name+Ext))
	if err != nil {
		t.Fatal(err)
	}
	m, err := newModel(f)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(m.files[file]), was) {
		t.Fatalf("%s of %s has no %s: %s", file, name, was, m.files[file])
	}
	m.files[file] = bytes.ReplaceAll(m.files[file], []byte(was), []byte(becomes))
	inv, err := checkpoint.FromSource(folder{m, m.files})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	return inv
}

func TestExportRefuses(t *testing.T) {
	for name, c := range map[string]struct{ model, file, was, becomes, want string }{
		"class":       {"llama", "config.json", "LlamaForCausalLM", "MixtralForCausalLM", `class "MixtralForCausalLM" is not known`},
		"rope":        {"qwen2", "config.json", `"yarn"`, `"dynamic"`, `rope type "dynamic": llama.cpp has`},
		"window":      {"qwen3", "config.json", `"torch_dtype"`, `"sliding_window": 16, "torch_dtype"`, "sliding_window: 16, below max_position_embeddings"},
		"experts":     {"qwen3moe", "config.json", `"norm_topk_prob": true`, `"norm_topk_prob": false`, "norm_topk_prob: want true"},
		"scores":      {"gemma2", "config.json", `"query_pre_attn_scalar": 16`, `"query_pre_attn_scalar": 99`, "query_pre_attn_scalar: 99, want 16"},
		"vocabulary":  {"llama", "config.json", `"vocab_size": 289`, `"vocab_size": 100`, "want one below vocab_size 100"},
		"normalizer":  {"llama", "tokenizer.json", `"normalizer": null`, `"normalizer": {"type": "Lowercase"}`, `normalizer "Lowercase": llama.cpp has none`},
		"pre":         {"llama", "tokenizer.json", `{1,3}`, `{1,2}`, "pre_tokenizer: llama.cpp's that are known here cut otherwise"},
		"post":        {"llama", "tokenizer.json", `"single": [`, `"single": [{"SpecialToken": {"id": "<|begin|>", "type_id": 0}},`, "the post-processor adds the tokens"},
		"pieces":      {"mistral", "tokenizer.json", `"prepend": "▁"`, `"prepend": "x"`, "Prepend in the normalizer or pre_tokenizer"},
		"longrope":    {"phi3", "config.json", `"long_factor"`, `"long_factors"`, "rope type longrope: want architecture phi3 with"},
		"no template": {"llama", "tokenizer_config.json", `"chat_template"`, `"chat_templatX"`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "out.gguf")
			err := Export(context.Background(), changed(t, c.model, c.file, c.was, c.becomes), path, ExportOptions{Type: gguf.BF16})
			if c.want == "" && err == nil {
				return
			}
			if err == nil || c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
				t.Errorf("%s is left behind", left[0].Name())
			}
		})
	}
}

// A file that is there stays, and so does nothing of an export that fails.
func TestExportIsWhole(t *testing.T) {
	inv := open(t, "testdata/llama.gguf")
	dir := t.TempDir()
	path := filepath.Join(dir, "out.gguf")
	if err := os.WriteFile(path, []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	opt := ExportOptions{Type: gguf.Q8_0}
	if err := Export(context.Background(), inv, path, opt); err == nil || !strings.Contains(err.Error(), "exists: name another file") {
		t.Errorf("over a file: %v", err)
	}
	opt.Overwrite = true
	ctx, cancel := context.WithCancel(context.Background())
	opt.Progress = func(int64) { cancel() }
	if err := Export(ctx, inv, path, opt); err == nil {
		t.Error("an export that is interrupted ends well")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("after a failure the file is %q %v", text, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files after a failure, want 1", len(left))
	}
	opt.Progress = nil
	if err := Export(context.Background(), inv, path, opt); err != nil {
		t.Fatal(err)
	}
	open(t, path)
}

// The keys of preTokenizers that are written tell them apart.
func TestCanonicalPreTokenizers(t *testing.T) {
	seen := map[string]string{}
	for _, name := range canonical {
		p := preTokenizers[name]
		text, err := json.Marshal(p.keys())
		if err != nil || slices.Contains(p.keys(), "") {
			t.Fatalf("%s: keys %q", name, p.keys())
		}
		key := string(text)
		if p.ignoreMerges {
			key += " ignore_merges"
		}
		if other, twice := seen[key]; twice {
			t.Errorf("%s and %s cut alike", name, other)
		}
		seen[key] = name
	}
}
