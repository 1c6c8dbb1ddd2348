package model

import (
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// rawTensor is a tensor as it lies in a file.
type rawTensor struct {
	DType string `json:"dtype"`
	Shape []int  `json:"shape"`
	data  []byte
}

// variant writes a copy of a one-file fixture, changed by edit, and returns its folder.
func variant(t testing.TB, fixture string, edit func(config map[string]any, tensors map[string]*rawTensor)) string {
	t.Helper()
	from := filepath.Join(fixturesDir, fixture)
	config := map[string]any{}
	text, err := os.ReadFile(filepath.Join(from, "config.json"))
	if err == nil {
		err = json.Unmarshal(text, &config)
	}
	if err != nil {
		t.Fatal(err)
	}
	tensors := readRaw(t, filepath.Join(from, "model.safetensors"))
	edit(config, tensors)
	dir := t.TempDir()
	text, err = json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"config.json": text, "model.safetensors": encode(t, tensors)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readRaw(t testing.TB, path string) map[string]*rawTensor {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(file)
	var header map[string]struct {
		rawTensor
		Offsets [2]uint64 `json:"data_offsets"`
	}
	meta := map[string]json.RawMessage{}
	if err := json.Unmarshal(file[8:8+n], &meta); err != nil {
		t.Fatal(err)
	}
	delete(meta, "__metadata__")
	text, _ := json.Marshal(meta)
	if err := json.Unmarshal(text, &header); err != nil {
		t.Fatal(err)
	}
	out := map[string]*rawTensor{}
	for name, h := range header {
		r := h.rawTensor
		r.data = file[8+n+h.Offsets[0] : 8+n+h.Offsets[1]]
		out[name] = &r
	}
	return out
}

func encode(t testing.TB, tensors map[string]*rawTensor) []byte {
	t.Helper()
	header := map[string]any{}
	var data []byte
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		r := tensors[name]
		header[name] = map[string]any{
			"dtype": r.DType, "shape": r.Shape, "data_offsets": []int{len(data), len(data) + len(r.data)},
		}
		data = append(data, r.data...)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...), data...)
}

func tryOpen(t testing.TB, dir string) (*Model, error) {
	t.Helper()
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	return Open(inv, Options{Engine: cpu.New(engine.F32)})
}

func TestOpenRefuses(t *testing.T) {
	const q = "model.layers.1.self_attn.q_proj.weight"
	type tensors = map[string]*rawTensor
	for _, c := range []struct {
		name string
		edit func(config map[string]any, ts tensors)
		want []string // parts of the error
	}{
		{"missing tensor", func(_ map[string]any, ts tensors) { delete(ts, q) },
			[]string{q, "missing", "[64 64]"}},
		{"missing norm", func(_ map[string]any, ts tensors) { delete(ts, "model.norm.weight") },
			[]string{"model.norm.weight", "missing", "[64]"}},
		{"missing head", func(_ map[string]any, ts tensors) { delete(ts, "lm_head.weight") },
			[]string{"lm_head.weight", "missing", "[320 64]"}},
		{"missing embedding", func(_ map[string]any, ts tensors) { delete(ts, "model.embed_tokens.weight") },
			[]string{"model.embed_tokens.weight", "missing"}},
		{"quantized", func(_ map[string]any, ts tensors) {
			delete(ts, q)
			ts["model.layers.1.self_attn.q_proj.qweight"] = ts["model.norm.weight"]
		}, []string{q, "missing", "q_proj.qweight: the weights are quantized"}},
		{"wrong shape", func(_ map[string]any, ts tensors) { ts[q].Shape = []int{32, 128} },
			[]string{"model.safetensors", q, "[32 128]", "[64 64]"}},
		{"wrong rank", func(_ map[string]any, ts tensors) { ts[q].Shape = []int{64 * 64} },
			[]string{q, "[4096]", "[64 64]"}},
		{"wrong dtype", func(_ map[string]any, ts tensors) { ts[q].DType = "I16" },
			[]string{"model.safetensors", q, "I16", "BF16"}},
		{"unknown tensor", func(_ map[string]any, ts tensors) {
			ts["model.layers.2.self_attn.q_proj.bias"] = ts["model.norm.weight"]
		}, []string{"model.layers.2.self_attn.q_proj.bias", "LlamaForCausalLM", "3 blocks"}},
		{"bias of the head", func(_ map[string]any, ts tensors) { ts["lm_head.bias"] = ts["model.norm.weight"] },
			[]string{"lm_head.bias", "not known"}},
		{"more blocks than stored", func(c map[string]any, _ tensors) { c["num_hidden_layers"] = 4 },
			[]string{"model.layers.3.self_attn.q_proj.weight", "missing", "and 1 more"}},
		{"fewer blocks than stored", func(c map[string]any, _ tensors) { c["num_hidden_layers"] = 2 },
			[]string{"model.layers.2.", "2 blocks"}},
		{"biases asked for", func(c map[string]any, _ tensors) { c["attention_bias"] = true },
			[]string{"model.layers.0.self_attn.q_proj.bias", "missing", "[64]"}},
		{"config", func(c map[string]any, _ tensors) { c["hidden_size"] = "64" },
			[]string{"config.json", "hidden_size", `"64"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := tryOpen(t, variant(t, "llama-mha", c.edit))
			if err == nil {
				t.Fatal("no error")
			}
			for _, part := range c.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not hold %q", err, part)
				}
			}
		})
	}
}

// TestErrorsAreOneLine: several missing tensors, and a tied embedding that is
// missing once.
func TestErrorsAreOneLine(t *testing.T) {
	_, err := tryOpen(t, variant(t, "qwen2", func(_ map[string]any, ts map[string]*rawTensor) {
		for name := range ts {
			delete(ts, name)
		}
		ts["x"] = &rawTensor{"F32", []int{1}, make([]byte, 4)}
	}))
	if err == nil || strings.Contains(err.Error(), "\n") || strings.Count(err.Error(), "embed_tokens.weight: missing") != 1 {
		t.Errorf("error %v, want one line that names the embedding once", err)
	}
}

// TestAnotherClass: transformers goes by model_type, and leaves Qwen2's biases
// unread; here they are not known, and the error says why.
func TestAnotherClass(t *testing.T) {
	_, err := tryOpen(t, variant(t, "qwen2", func(config map[string]any, _ map[string]*rawTensor) { config["model_type"] = "llama" }))
	if err == nil || !strings.Contains(err.Error(), "architectures says Qwen2ForCausalLM, but model_type llama, by which transformers goes") {
		t.Errorf("error %v, want one that names both", err)
	}
}

// TestNamesWithoutPrefix: transformers finds them too (Qwen3-Embedding).
func TestNamesWithoutPrefix(t *testing.T) {
	dir := variant(t, "qwen2", func(_ map[string]any, ts map[string]*rawTensor) {
		for name, r := range maps.Clone(ts) {
			delete(ts, name)
			ts[strings.TrimPrefix(name, "model.")] = r
		}
	})
	m, err := tryOpen(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	if l := m.Linears(1)[0]; l.Name != "layers.1.self_attn.q_proj" {
		t.Errorf("the first Linear of block 1 is %s", l.Name)
	}
	whole, err := tryOpen(t, filepath.Join(fixturesDir, "qwen2"))
	if err != nil {
		t.Fatal(err)
	}
	ids := sequences(golden.Read(t, filepath.Join(fixturesDir, "qwen2", "golden.safetensors"))["input_ids"])[0]
	got := logits(t, m, []tensor.Matrix{run(t, m, atOnce(m), ids, []int{len(ids)})})
	want := logits(t, whole, []tensor.Matrix{run(t, whole, atOnce(whole), ids, []int{len(ids)})})
	if !slices.Equal(got, want) {
		t.Error("other logits than with the prefix")
	}
}

func TestOldRotaryFrequenciesAreIgnored(t *testing.T) {
	dir := variant(t, "llama-mha", func(_ map[string]any, ts map[string]*rawTensor) {
		ts["model.layers.0.self_attn.rotary_emb.inv_freq"] = &rawTensor{"F32", []int{8}, make([]byte, 32)}
	})
	if _, err := tryOpen(t, dir); err != nil {
		t.Error(err)
	}
}

// openNonFinite opens a fixture with a NaN as element at of a tensor.
func openNonFinite(t *testing.T, tensor string, at int) *Model {
	t.Helper()
	const nan = 0x7fc0
	m, err := tryOpen(t, variant(t, "llama-mha", func(_ map[string]any, ts map[string]*rawTensor) {
		data := slices.Clone(ts[tensor].data)
		binary.LittleEndian.PutUint16(data[2*at:], nan)
		ts[tensor].data = data
	}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNonFiniteWeightsAreRefused(t *testing.T) {
	for _, c := range []struct {
		tensor string
		at     int
		want   string
		use    func(m *Model) error
	}{
		{"model.layers.0.mlp.up_proj.weight", 64*3 + 5, "[3 5] is NaN", func(m *Model) error {
			_, err := m.LoadBlock(0)
			return err
		}},
		{"model.layers.0.input_layernorm.weight", 7, "[0 7] is NaN", func(m *Model) error {
			_, err := m.LoadBlock(0)
			return err
		}},
		{"model.embed_tokens.weight", 64*9 + 1, "[9 1] is NaN", func(m *Model) error {
			return m.Embed(m.NewMat(1), []int32{9})
		}},
		{"lm_head.weight", 64*319 + 63, "[319 63] is NaN", func(m *Model) error {
			h, err := m.loadHead(100)
			if err != nil {
				return err
			}
			return h.Logits(m.Engine().NewMat(1, 320), m.NewMat(1))
		}},
	} {
		err := c.use(openNonFinite(t, c.tensor, c.at))
		if err == nil || !strings.Contains(err.Error(), c.tensor) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one that holds %q", c.tensor, err, c.want)
		}
	}
}

// TestStoredTypes runs a fixture whose weights are stored as F32 and as F16,
// which hold the bfloat16 values of a random model exactly (F16: but for
// values below 2⁻²⁴, which are lost).
func TestStoredTypes(t *testing.T) {
	for dtype, convert := range map[string]func(v float32) []byte{
		"F32": func(v float32) []byte { return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v)) },
		"F16": func(v float32) []byte { return binary.LittleEndian.AppendUint16(nil, toF16(v)) },
	} {
		t.Run(dtype, func(t *testing.T) {
			dir := variant(t, "llama-mha", func(_ map[string]any, ts map[string]*rawTensor) {
				for _, r := range ts {
					var data []byte
					for i := 0; i < len(r.data); i += 2 {
						bits := uint32(binary.LittleEndian.Uint16(r.data[i:])) << 16
						data = append(data, convert(math.Float32frombits(bits))...)
					}
					r.DType, r.data = dtype, data
				}
			})
			m, err := tryOpen(t, dir)
			if err != nil {
				t.Fatal(err)
			}
			m = m.With(Options{Engine: cpu.New(engine.BF16)}) // rounds for bfloat16 weights only
			want := golden.Read(t, filepath.Join(fixturesDir, "llama-mha", "golden.safetensors"))
			ids := sequences(want["input_ids"])[0]
			x := run(t, m, atOnce(m), ids, []int{len(ids)})
			got := logits(t, m, []tensor.Matrix{x})
			golden.Compare(t, "logits", got, want["logits"].F32[:len(got)], logitsTol)
		})
	}
}

// toF16 rounds to the nearest half-precision number of multiples of 2⁻²⁴.
func toF16(v float32) uint16 {
	sign := uint16(math.Float32bits(v)>>16) & 0x8000
	frac, exp := math.Frexp(math.Abs(float64(v)))
	if exp < -13 { // subnormal
		return sign | uint16(math.RoundToEven(math.Abs(float64(v))*(1<<24)))
	}
	return sign | uint16(int(math.RoundToEven(frac*2048))-1024+(exp+14)<<10)
}

// TestHeadAndEmbedding covers what may be stored of a tied or untied pair.
func TestHeadAndEmbedding(t *testing.T) {
	const head, embedding = "lm_head.weight", "model.embed_tokens.weight"
	for _, c := range []struct {
		name        string
		tied        bool
		drop        string
		embed, head string // tensors used; "" for an error
	}{
		{"untied", false, "", embedding, head},
		{"tied, both stored", true, "", embedding, head},
		{"tied, no head", true, head, embedding, embedding},
		{"tied, head only", true, embedding, head, head},
		{"untied, head only", false, embedding, "", ""},
	} {
		m, err := tryOpen(t, variant(t, "llama-mha", func(config map[string]any, ts map[string]*rawTensor) {
			config["tie_word_embeddings"] = c.tied
			delete(ts, c.drop)
		}))
		switch {
		case c.embed == "" && err == nil:
			t.Errorf("%s: no error", c.name)
		case c.embed == "":
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case m.embed.Name != c.embed || m.head.Name != c.head:
			t.Errorf("%s: embedding %s and head %s, want %s and %s", c.name, m.embed.Name, m.head.Name, c.embed, c.head)
		}
	}
}
