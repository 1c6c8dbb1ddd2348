package model

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
)

// small is a config that is complete but for what each test adds.
const small = `{"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 3,
	"num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 320}`

// with returns small with keys changed; the JSON value "-" removes one.
func with(t testing.TB, class string, changes map[string]string) []byte {
	t.Helper()
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(small), &m); err != nil {
		t.Fatal(err)
	}
	m["architectures"] = json.RawMessage(`["` + class + `"]`)
	for k, v := range changes {
		if m[k] = json.RawMessage(v); v == "-" {
			delete(m, k)
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

type changes = map[string]string

const (
	llama   = "LlamaForCausalLM"
	mistral = "MistralForCausalLM"
	qwen2   = "Qwen2ForCausalLM"
	phi3    = "Phi3ForCausalLM"
	gemma2  = "Gemma2ForCausalLM"
	gemma3  = "Gemma3ForCausalLM"

	qwen35   = "Qwen3_5ForCausalLM"
	qwen35vl = "Qwen3_5ForConditionalGeneration"
)

func TestConfigDefaults(t *testing.T) {
	c, err := ParseConfig([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if c.KVHeads != 4 || c.HeadDim != 16 || c.NormEps != 1e-6 || c.Tied || c.MaxPositions != 2048 || c.qkvBias || c.mlpBias {
		t.Errorf("Llama: %+v", c)
	}
	if !reflect.DeepEqual(*c.rope, rope{kind: "default", theta: 1e4, dim: 16, scale: 1}) {
		t.Errorf("Llama: rope %+v", *c.rope)
	}
	if !slices.Equal(c.windows, []int{0, 0, 0}) {
		t.Errorf("Llama: windows %v, want none", c.windows)
	}
}

func TestConfigHeads(t *testing.T) {
	for _, c := range []struct {
		class   string
		changes changes
		kv, dim int
	}{
		{llama, changes{}, 4, 16},
		{llama, changes{"num_key_value_heads": "null", "head_dim": "null"}, 4, 16},
		{llama, changes{"num_key_value_heads": "2", "head_dim": "24"}, 2, 24},
		{mistral, changes{"num_attention_heads": "16"}, 8, 4},
		{qwen2, changes{"num_attention_heads": "16", "num_key_value_heads": "null"}, 16, 4},
		{qwen2, changes{"num_attention_heads": "32"}, 32, 2},
		{"Qwen3ForCausalLM", changes{"num_key_value_heads": "2"}, 2, 128},
		{"Qwen3MoeForCausalLM", changes{}, 4, 16},
		{phi3, changes{}, 4, 16},
		{gemma2, changes{}, 4, 256},
	} {
		got, err := ParseConfig(with(t, c.class, c.changes))
		if err != nil {
			t.Errorf("%s %v: %v", c.class, c.changes, err)
		} else if got.KVHeads != c.kv || got.HeadDim != c.dim {
			t.Errorf("%s %v: %d key heads of %d, want %d of %d", c.class, c.changes, got.KVHeads, got.HeadDim, c.kv, c.dim)
		}
	}
}

func TestConfigWindows(t *testing.T) {
	const kv = "num_key_value_heads"
	for _, c := range []struct {
		class   string
		changes changes
		want    []int
	}{
		{mistral, changes{kv: "2"}, []int{4096, 4096, 4096}},
		{mistral, changes{kv: "2", "sliding_window": "null"}, []int{0, 0, 0}},
		{mistral, changes{kv: "2", "sliding_window": "8"}, []int{8, 8, 8}},
		{qwen2, changes{kv: "2", "sliding_window": "8"}, []int{0, 0, 0}},
		{qwen2, changes{kv: "2", "sliding_window": "8", "use_sliding_window": "true"}, []int{0, 0, 0}},
		{qwen2, changes{kv: "2", "sliding_window": "8", "use_sliding_window": "true", "max_window_layers": "1"}, []int{0, 8, 8}},
		{qwen2, changes{kv: "2", "use_sliding_window": "true", "max_window_layers": "0"}, []int{4096, 4096, 4096}},
		{qwen2, changes{kv: "2", "sliding_window": "null", "use_sliding_window": "true", "max_window_layers": "0"}, []int{0, 0, 0}},
		{qwen2, changes{kv: "2", "sliding_window": "8", "use_sliding_window": "true",
			"layer_types": `["sliding_attention", "full_attention", "sliding_attention"]`}, []int{8, 0, 8}},
		{phi3, changes{"sliding_window": "9"}, []int{9, 9, 9}},
		{"MixtralForCausalLM", changes{kv: "2"}, []int{0, 0, 0}},
		{"Qwen3MoeForCausalLM", changes{"sliding_window": "9", "use_sliding_window": "true"}, []int{9, 9, 9}},
		{gemma2, changes{"sliding_window": "9"}, []int{9, 0, 9}},
		{gemma3, changes{"sliding_window": "9", "sliding_window_pattern": "2"}, []int{9, 0, 9}},
		{llama, changes{"layer_types": `["full_attention", "full_attention", "full_attention"]`}, []int{0, 0, 0}},
	} {
		got, err := ParseConfig(with(t, c.class, c.changes))
		if err != nil {
			t.Errorf("%s %v: %v", c.class, c.changes, err)
		} else if !slices.Equal(got.windows, c.want) {
			t.Errorf("%s %v: windows %v, want %v", c.class, c.changes, got.windows, c.want)
		}
	}
}

// TestConfigSpellings reads rotary settings as transformers 4 and 5 write them.
func TestConfigSpellings(t *testing.T) {
	llama3 := `"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192`
	for _, c := range []struct {
		changes changes
		want    rope
	}{
		{changes{"rope_theta": "5e5"}, rope{kind: "default", theta: 5e5}},
		{changes{"rope_theta": "500000", "rope_scaling": "null"}, rope{kind: "default", theta: 5e5}},
		{changes{"rope_parameters": `{"rope_type": "default", "rope_theta": 5e5}`}, rope{kind: "default", theta: 5e5}},
		{changes{"rope_theta": "1e5", "rope_scaling": `{"type": "linear", "factor": 4}`}, rope{kind: "linear", theta: 1e5, factor: 4}},
		{changes{"rope_parameters": `{"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}`}, rope{kind: "linear", theta: 1e5, factor: 4}},
		{changes{"rope_theta": "5e5", "rope_scaling": `{"rope_type": "llama3", ` + llama3 + `}`},
			rope{kind: "llama3", theta: 5e5, factor: 8, low: 1, high: 4, original: 8192}},
		{changes{"rope_parameters": `{"rope_type": "llama3", "rope_theta": 5e5, ` + llama3 + `}`},
			rope{kind: "llama3", theta: 5e5, factor: 8, low: 1, high: 4, original: 8192}},
		{changes{"rope_theta": "3", "rope_scaling": `{"type": "linear", "factor": 2, "rope_theta": 7}`,
			"rope_parameters": `{"rope_type": "default", "rope_theta": 9}`}, rope{kind: "linear", theta: 7, factor: 2}},
	} {
		got, err := ParseConfig(with(t, llama, c.changes))
		if err != nil {
			t.Errorf("%v: %v", c.changes, err)
			continue
		}
		if c.want.dim, c.want.scale = 16, 1; !reflect.DeepEqual(*got.rope, c.want) {
			t.Errorf("%v: got %+v, want %+v", c.changes, *got.rope, c.want)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, c := range []struct {
		class   string
		changes changes
		want    string // part of the error
	}{
		{"GPT2LMHeadModel", nil, `architecture "GPT2LMHeadModel" is not known; known: Gemma2ForCausalLM, `},
		{llama, changes{"architectures": "null"}, "architectures: null, want one name"},
		{llama, changes{"architectures": "-"}, "architectures: missing"},
		{llama, changes{"architectures": `"x"`}, "want a list of strings"},
		{llama, changes{"is_causal": "false"}, "is_causal: false, want true"},
		{llama, changes{"is_causal": "null"}, "is_causal: null, want true or false"},
		{llama, changes{"hidden_size": "-"}, "hidden_size: missing, want a whole number in"},
		{llama, changes{"hidden_size": "null"}, "hidden_size: null"},
		{llama, changes{"hidden_size": "64.5"}, "hidden_size: 64.5"},
		{llama, changes{"hidden_size": "-64"}, "hidden_size: -64"},
		{llama, changes{"hidden_size": "66"}, "num_attention_heads: 4, want a divisor of hidden_size 66"},
		{llama, changes{"vocab_size": "99999999999"}, "vocab_size: 99999999999"},
		{llama, changes{"num_hidden_layers": "1000000"}, "num_hidden_layers: 1000000"},
		{llama, changes{"num_hidden_layers": "0"}, "num_hidden_layers: 0"},
		{llama, changes{"head_dim": "15"}, "head_dim: 15, want an even number"},
		{llama, changes{"num_key_value_heads": "3"}, "num_key_value_heads: 3, want a divisor of num_attention_heads 4"},
		{llama, changes{"rms_norm_eps": "0"}, "rms_norm_eps: 0"},
		{llama, changes{"rms_norm_eps": "null"}, "rms_norm_eps: null, want a finite number"},
		{llama, changes{"hidden_act": "null"}, "hidden_act: null, want"},
		{llama, changes{"tie_word_embeddings": "null"}, "tie_word_embeddings: null, want true or false"},
		{llama, changes{"rope_theta": "null"}, "rope_theta: null"},
		{mistral, changes{"num_key_value_heads": "null"}, "num_key_value_heads: null"},
		{gemma2, changes{"head_dim": "null"}, "head_dim: null"},
		{qwen2, changes{"use_sliding_window": "null", "num_key_value_heads": "2"}, "use_sliding_window: null"},
		{llama, changes{"rms_norm_eps": "1e99"}, "rms_norm_eps: 1e99"},
		{llama, changes{"rope_theta": `"big"`}, `rope_theta: "big"`},
		{llama, changes{"tie_word_embeddings": "1"}, "tie_word_embeddings: 1, want true or false"},
		{llama, changes{"hidden_act": `"gelu"`}, `hidden_act: "gelu", want "silu"`},
		{llama, changes{"model_type": `"gpt2"`}, `model_type: "gpt2", want one of: gemma2, gemma3_text, llama, `},
		{llama, changes{"model_type": `"gemma3"`}, `model_type: "gemma3", want one of`},
		{llama, changes{"model_type": "1"}, "model_type: 1, want a string"},
		{llama, changes{"quantization_config": `{"quant_method": "gptq"}`}, `quantization_config.quant_method: "gptq", want none: weights quantized by gptq`},
		{llama, changes{"quantization": `{"bits": 4, "group_size": 64}`}, "quantization.bits: 4, want none: weights quantized by MLX"},
		{llama, changes{"quantization_config": `{"bits": 4, "group_size": 64}`}, "quantization_config.bits: 4, want none: weights quantized by MLX"},
		{llama, changes{"quantization_config": `{"quant_method": "compressed-tensors", "format": "pack-quantized"}`}, `quantization_config.format: "pack-quantized", want dense: load it with`},
		{llama, changes{"quantization_config": `{"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}}`}, "quantization_config.config_groups: {"},
		{llama, changes{"compression_config": `{"sparsity_config": {"format": "sparse-24-bitmask"}}`}, `compression_config.sparsity_config.format: "sparse-24-bitmask", want dense: load it with transformers and compressed-tensors`},
		{llama, changes{"compression_config": `{"format": "marlin-24"}`}, `compression_config.format: "marlin-24", want dense`},
		{llama, changes{"transformers_weights": `"other.safetensors"`}, `transformers_weights: "other.safetensors"`},
		{llama, changes{"partial_rotary_factor": "0.5", "rope_scaling": `{"rope_type": "linear", "factor": 4}`}, "partial_rotary_factor: 0.5, want 1 in LlamaForCausalLM with rope type linear"},
		{gemma3, changes{"rope_scaling": `{"type": "linear", "factor": 4}`}, "rope_scaling.type: \"linear\", want rope_type"},
		{llama, changes{"rope_scaling": `{"type": "ntk", "factor": 4}`}, `rope_scaling.type: "ntk", want one of default, linear, llama3, longrope, yarn, dynamic`},
		{llama, changes{"rope_scaling": `{"rope_type": "dynamic"}`}, "rope_scaling.factor: missing"},
		{llama, changes{"rope_scaling": `{"rope_type": "dynamic", "factor": 0.5}`}, "rope_scaling.factor: 0.5, want at least 1"},
		{llama, changes{"rope_scaling": `{"rope_type": "yarn"}`}, "rope_scaling.factor: missing"},
		{llama, changes{"rope_scaling": `{"rope_type": "yarn", "factor": 4, "beta_fast": 0}`}, "rope_scaling.beta_fast: 0"},
		{llama, changes{"rope_scaling": `{"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 0}`},
			"rope_scaling.original_max_position_embeddings: 0"},
		{llama, changes{"rope_scaling": `{"rope_type": "yarn", "factor": 4, "truncate": 1}`}, "rope_scaling.truncate: 1"},
		{llama, changes{"rope_theta": "0.5", "rope_scaling": `{"rope_type": "yarn", "factor": 4}`}, "want more than 1 for yarn"},
		{llama, changes{"rope_scaling": `{"factor": 4}`}, "rope_scaling.rope_type: missing"},
		{llama, changes{"rope_scaling": `{"type": "linear"}`}, "rope_scaling.factor: missing"},
		{llama, changes{"rope_scaling": `{"type": "linear", "factor": 0}`}, "rope_scaling.factor: 0"},
		{llama, changes{"rope_scaling": `"linear"`}, "rope_scaling: \"linear\", want an object"},
		{llama, changes{"rope_scaling": `{"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4, "original_max_position_embeddings": 8192}`},
			"rope_scaling.high_freq_factor: 4, want more than low_freq_factor 4"},
		{qwen2, changes{"num_key_value_heads": "2", "rope_parameters": `{"full_attention": {"rope_type": "default", "rope_theta": 1e6}}`},
			"rope_parameters.full_attention: {"},
		{qwen2, changes{"num_key_value_heads": "2", "rope_parameters": `{"full_attention": null, "rope_type": "default"}`},
			"rope_parameters.full_attention: null, want rope_type and rope_theta for all blocks: Qwen2ForCausalLM has one rope"},
		{mistral, changes{"num_key_value_heads": "2", "sliding_window": "0"}, "sliding_window: 0"},
		{mistral, nil, "num_key_value_heads: missing, want a divisor of num_attention_heads 4 (the default here is 8)"},
		{qwen2, changes{"num_key_value_heads": "2", "layer_types": `["sliding_attention", "full_attention", "full_attention"]`},
			"no sliding_window is in use"},
		{qwen2, changes{"num_key_value_heads": "2", "layer_types": `["full_attention"]`}, "want 3 names"},
		{qwen2, changes{"num_key_value_heads": "2", "layer_types": `["a", "b", "c"]`}, `not "a"`},
	} {
		_, err := ParseConfig(with(t, c.class, c.changes))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: error %v, want one that holds %q", c.class, c.changes, err, c.want)
		}
	}
	long := func(keys string) changes {
		return changes{"rope_scaling": `{"type": "longrope", "short_factor": [1, 1, 1, 1, 1, 1, 1, 1], ` + keys + `}`}
	}
	for _, c := range []struct {
		class   string
		changes changes
		want    string
	}{
		{phi3, long(`"long_factor": [1, 2]`), "rope_scaling.long_factor: [1,2], want 8 numbers above 0"},
		{phi3, long(`"long_factor": [1, 1, 1, 1, 1, 1, 1, 0]`), "rope_scaling.long_factor"},
		{phi3, long(`"long_factor": null`), "rope_scaling.long_factor: null"},
		{phi3, changes{"partial_rotary_factor": "1.5"}, "partial_rotary_factor: 1.5"},
		{phi3, changes{"partial_rotary_factor": "0.2"}, "partial_rotary_factor: 0.2, want a share of head_dim 16"},
		{gemma2, changes{"hidden_activation": `"gelu"`, "num_key_value_heads": "4"}, `hidden_activation: "gelu", want "gelu_pytorch_tanh"`},
		{gemma2, changes{"attn_logit_softcapping": "-1"}, "attn_logit_softcapping: -1"},
		{gemma3, changes{"rope_parameters": `{"rope_type": "default"}`}, "want an object for full_attention and one for sliding_attention"},
		{gemma3, changes{"rope_parameters": `{"full_attention": {"rope_type": "su"}}`}, `rope_parameters.full_attention.rope_type: "su"`},
		{gemma3, changes{"use_bidirectional_attention": "true"}, "use_bidirectional_attention: true"},
		{"MixtralForCausalLM", changes{"num_key_value_heads": "4", "num_local_experts": "1"}, "num_experts_per_tok: missing, want at most the 1 experts"},
		{"MixtralForCausalLM", changes{"num_key_value_heads": "4", "num_local_experts": "100000"}, "num_local_experts: 100000"},
		{"Qwen3MoeForCausalLM", changes{"mlp_only_layers": `"0"`}, "mlp_only_layers"},
		{qwen35, changes{"layer_types": `["sliding_attention", "full_attention", "full_attention"]`}, `not "sliding_attention"`},
		{qwen35, changes{"linear_num_value_heads": "17"}, "linear_num_value_heads: 17, want a multiple of linear_num_key_heads 16"},
		{qwen35, changes{"linear_num_value_heads": "4096", "linear_value_head_dim": "4096"}, "at most 262144 channels"},
		{qwen35vl, nil, "text_config: missing, want an object"},
		{qwen35vl, changes{"text_config": "[]"}, "text_config: [], want an object"},
		{qwen35vl, changes{"text_config": "{}"}, "text_config.num_hidden_layers: missing"},
		{qwen35vl, changes{"quantization_config": "{}", "text_config": "{}"}, "quantization_config.quant_method: missing"},
	} {
		_, err := ParseConfig(with(t, c.class, c.changes))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %v: error %v, want one that holds %q", c.class, c.changes, err, c.want)
		}
	}
	for _, text := range []string{"", "null", "[]", "{", strings.Replace(small, "{", `{"rope_theta": NaN, `, 1), strings.Replace(small, "{", `{"tie_word_embeddings": NaN, `, 1)} {
		if _, err := ParseConfig([]byte(text)); err == nil || strings.Contains(err.Error(), "Go value") {
			t.Errorf("%q: error %v, want one without the names of Go's types", text, err)
		}
	}
}

// TestConfigWhatNothingReads: as Python's json module writes it.
func TestConfigWhatNothingReads(t *testing.T) {
	text := strings.Replace(small, "{", `{"unheard_of": [NaN, -Infinity], "moe_jitter": Infinity, `, 1)
	if _, err := ParseConfig([]byte(text)); err != nil {
		t.Error(err)
	}
}

// Settings by layer type beside those of all blocks, or for a type that no block has,
// are nothing that transformers reads.
func TestRopeByTypeThatNothingReads(t *testing.T) {
	for _, text := range []string{
		`{"full_attention": {"rope_type": "linear", "factor": 2}, "rope_type": "default", "rope_theta": 1e5}`,
		`{"sliding_attention": {"rope_type": "linear", "factor": 2}, "rope_theta": 1e5}`,
	} {
		c, err := ParseConfig(with(t, "Qwen2ForCausalLM", map[string]string{"num_key_value_heads": "2", "rope_parameters": text}))
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if c.rope.kind != "default" || c.rope.theta != 1e5 {
			t.Errorf("%s: %s with theta %v", text, c.rope.kind, c.rope.theta)
		}
	}
}

// TestNestedConfig reads a text model inside another; the outer
// tie_word_embeddings counts.
func TestNestedConfig(t *testing.T) {
	for outer, want := range map[string]bool{"-": true, "false": false, "true": true} {
		inner := strings.TrimSuffix(small, "}") + `, "num_key_value_heads": 4, "tie_word_embeddings": true}`
		c, err := ParseConfig(with(t, qwen35vl, changes{"text_config": inner, "tie_word_embeddings": outer}))
		if err != nil {
			t.Fatal(err)
		}
		if c.Tied != want || c.Width != 64 || c.rope.dim != 64 || !slices.Equal(c.linear, []bool{true, true, true}) {
			t.Errorf("outer %s: %+v", outer, c)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, name := range golden.Folders(f, fixturesDir) {
		text, err := os.ReadFile(filepath.Join(fixturesDir, name, "config.json"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(small))
	f.Add([]byte("null"))
	f.Add([]byte(`{"model_type": "llama", "architectures": ["Qwen2ForCausalLM"], "x": [NaN, -Infinity], "compression_config": {"format": "dense"}}`))
	f.Add([]byte(`{"model_type": "gemma3_text", "num_hidden_layers": 4096, "rope_scaling": {"type": "linear"}, "sliding_window_pattern": 1}`))
	inv, err := checkpoint.Open(filepath.Join(fixturesDir, "llama-mha"))
	if err != nil {
		f.Fatal(err)
	}
	defer inv.Close()
	f.Fuzz(func(t *testing.T, data []byte) {
		var c *Config
		var err error
		golden.Ceiling(t, uint64(4<<20+100*len(data)), func() { c, err = ParseConfig(data) })
		if err != nil {
			return
		}
		if c.Blocks < 1 || c.Width < 1 || c.Vocab < 1 || c.Intermediate < 1 || c.HeadDim < 2 || c.HeadDim%2 != 0 ||
			c.KVHeads < 1 || c.Heads%c.KVHeads != 0 || len(c.windows) != c.Blocks || !(c.NormEps > 0) || c.rope.dim > c.HeadDim {
			t.Errorf("accepted %+v", c)
		}
		m := &Model{Config: c, inv: inv, opt: Options{Engine: cpu.New(engine.F32)}}
		_ = m.check() // any answer, but no panic and no memory for tensors that are not there
	})
}

func TestArchitecturesAreListed(t *testing.T) {
	if got := Architectures(); !slices.IsSorted(got) || len(got) != len(classes) || !slices.Contains(got, llama) {
		t.Errorf("got %v, want the %v", got, slices.Sorted(maps.Keys(classes)))
	}
}
