package hf

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// patched writes a copy of a file with the n-th of some bytes replaced by as many.
func patched(t *testing.T, name string, n int, was, becomes string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+Ext))
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for range n {
		i := bytes.Index(data[at:], []byte(was))
		if i < 0 || len(was) != len(becomes) {
			t.Fatalf("%s has no %q to be replaced by %q", name, was, becomes)
		}
		at += i + 1
	}
	copy(data[at-1:], becomes)
	path := filepath.Join(t.TempDir(), name+Ext)
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func number(v uint32) string { return string(binary.LittleEndian.AppendUint32(nil, v)) }

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		model        string
		n            int
		was, becomes string
		want         string
	}{
		"architecture":    {"llama", 1, "llama", "mamba", `architecture "mamba" is not known; known: llama, qwen2`},
		"key":             {"llama", 1, "llama.vocab_size", "llama.vocab_sizX", "key llama.vocab_sizX"},
		"missing":         {"llama", 1, "llama.embedding_length", "mamba.embedding_length", "key llama.embedding_length: missing"},
		"tokenizer key":   {"llama", 1, "tokenizer.ggml.merges", "tokenizer.ggml.mergeX", "key tokenizer.ggml.merges: missing"},
		"tensor":          {"llama", 1, "blk.0.attn_q.", "blk.0.attn_z.", "tensor blk.0.attn_z.weight is not known in a model of architecture llama"},
		"block":           {"llama", 1, "blk.1.attn_q.", "blk.7.attn_q.", "tensor blk.7.attn_q.weight is not known"},
		"quantisation":    {"llama", 1, "blk.0.attn_q.weight" + number(2) + "\x20\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00\x00\x00\x00\x00", "blk.0.attn_q.weight" + number(2) + "\x20\x00\x00\x00\x00\x00\x00\x00\x21\x00\x00\x00\x00\x00\x00\x00", "tensor blk.0."},
		"pre":             {"llama", 1, "llama-bpe", "llama-bpX", `key tokenizer.ggml.pre: "llama-bpX" is not known; known: `},
		"tokenizer model": {"llama", 1, "gpt2", "gptX", `key tokenizer.ggml.model: "gptX", want gpt2 or llama`},
		"vocabulary":      {"llama", 1, "token_embd.weight" + number(2) + "\x20\x00\x00\x00\x00\x00\x00\x00\x21", "token_embd.weight" + number(2) + "\x20\x00\x00\x00\x00\x00\x00\x00\x20", "the rows of token_embd.weight"},
		"rope_freqs":      {"llama", 1, "rope_freqs.weight", "rope_freqs.weighX", "tensor rope_freqs.weighX is not known"},
		"rope kind":       {"qwen2", 1, "\x04\x00\x00\x00\x00\x00\x00\x00yarn", "\x04\x00\x00\x00\x00\x00\x00\x00yurn", `key qwen2.rope.scaling.type: "yurn", want none, linear or yarn`},
		"experts":         {"qwen3moe", 1, "qwen3moe.expert_count" + number(4) + number(4), "qwen3moe.expert_count" + number(4) + number(5), "want three dimensions for 5 experts"},
		"long factors":    {"phi3", 1, "rope_factors_long.weight", "rope_factors_lonX.weight", "one is missing"},
		"twice":           {"llama", 1, "<think>", "<|end|>", `token 3, "<|end|>", is there twice, first as 2`},
	} {
		t.Run(name, func(t *testing.T) {
			path := patched(t, c.model, c.n, c.was, c.becomes)
			inv, err := Open(path)
			if err == nil {
				inv.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, want the file and %q", err, c.want)
			}
		})
	}
}

func TestOpenRefusesEveryTruncation(t *testing.T) {
	data, err := os.ReadFile("testdata/llama.gguf")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.gguf")
	for n := 0; n < len(data); n += 997 {
		if err := os.WriteFile(path, data[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		if inv, err := Open(path); err == nil {
			inv.Close()
			t.Fatalf("the first %d of %d bytes are read as a model", n, len(data))
		}
	}
}
