package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/prune"
)

// sparseModel makes a Llama of one block whose weights take terabytes, of which no
// byte is on disk.
func sparseModel(t *testing.T) string {
	t.Helper()
	return oneBlock(t, 1<<17, 1<<18, 1024)
}

// oneBlock makes a Llama of one block and 320 tokens, of bfloat16 weights that are 0:
// the last bytes of model.safetensors, which are not on disk.
func oneBlock(t *testing.T, width, inner, heads int) string {
	t.Helper()
	const vocab = 320
	shapes := map[string][]int{
		"model.embed_tokens.weight": {vocab, width}, "lm_head.weight": {vocab, width}, "model.norm.weight": {width},
	}
	for name, shape := range map[string][]int{
		"input_layernorm": {width}, "post_attention_layernorm": {width},
		"self_attn.q_proj": {width, width}, "self_attn.k_proj": {width, width}, "self_attn.v_proj": {width, width}, "self_attn.o_proj": {width, width},
		"mlp.gate_proj": {inner, width}, "mlp.up_proj": {inner, width}, "mlp.down_proj": {width, inner},
	} {
		shapes["model.layers.0."+name+".weight"] = shape
	}
	header, at := map[string]any{}, int64(0)
	for _, name := range slices.Sorted(maps.Keys(shapes)) {
		n := int64(2)
		for _, d := range shapes[name] {
			n *= int64(d)
		}
		header[name] = map[string]any{"dtype": "BF16", "shape": shapes[name], "data_offsets": []int64{at, at + n}}
		at += n
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	config := fmt.Sprintf(`{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": %d, "intermediate_size": %d, "vocab_size": %d, "num_attention_heads": %d}`, width, inner, vocab, heads)
	for name, data := range map[string][]byte{"model.safetensors": file, "config.json": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, "model.safetensors"), int64(len(file))+at); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	return dir
}

// TestModelLargerThanMemory: every command that computes refuses it before it reads
// a weight.
func TestModelLargerThanMemory(t *testing.T) {
	dir := sparseModel(t)
	ids := filepath.Join(fixturesDir, "llama-mha", "golden.safetensors")
	for _, args := range [][]string{
		{"eval", dir, "--data", ids, "--memory", "4GiB"},
		{"prune", dir, "--calibration", ids, "--eval", "none", "--memory", "4GiB", "-o", filepath.Join(t.TempDir(), "out")},
	} {
		var stdout, stderr bytes.Buffer
		code := 0
		golden.Ceiling(t, 64<<20, func() { code = run(args, &stdout, &stderr) })
		if code != exitError || !strings.Contains(stderr.String(), prune.ErrMemory.Error()) {
			t.Errorf("crepe %q: exit code %d, %s, want %q", args, code, &stderr, prune.ErrMemory)
		}
	}
}

// TestInfinitePerplexity: a run ends although the model finds its text all but
// impossible. A head that is 1024 times as large makes logits that are; nats per
// token follow from transformers'.
func TestInfinitePerplexity(t *testing.T) {
	from := filepath.Join(fixturesDir, "llama-mha")
	ids := filepath.Join(from, "golden.safetensors")
	g := golden.Read(t, ids)
	for i := range g["logits"].F32 {
		g["logits"].F32[i] *= 1024
	}
	want := golden.NLL(g["input_ids"], g["logits"])
	dir := copyWeights(t, "llama-mha")
	text, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "config.json"), text, 0o666)
	}
	weights := filepath.Join(dir, "model.safetensors")
	file, rerr := os.ReadFile(weights)
	if err := errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		Offsets [2]int `json:"data_offsets"`
	}
	if err := json.Unmarshal(file[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	data := file[8+n:]
	for at := header["lm_head.weight"].Offsets[0]; at < header["lm_head.weight"].Offsets[1]; at += 2 {
		if bits := binary.LittleEndian.Uint16(data[at:]); bits<<1 != 0 {
			binary.LittleEndian.PutUint16(data[at:], bits+10<<7) // the exponent of a bfloat16
		}
	}
	if err := os.WriteFile(weights, file, 0o666); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	var rep prune.Report
	command(t, &rep, "prune", dir, "-o", out, "--eval", ids, "--method", "magnitude", "--sparsity", "90%", "--compute", "f32", "--json")
	if got := float64(rep.Dense.NLL); !rep.Dense.Perplexity.Infinite() || !(math.Abs(got-want) <= 1024*4e-4) {
		t.Errorf("dense %+v, want infinite, %v nats per token", rep.Dense, want)
	}
	var again evalReport
	command(t, &again, "eval", out, "--data", ids, "--compute", "f32", "--json")
	if !again.Perplexity.Infinite() || again.Result != *rep.Pruned {
		t.Errorf("eval says %+v, want %+v", again.Result, *rep.Pruned)
	}
}
