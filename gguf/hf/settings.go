package hf

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/gguf"
	"github.com/crepe-llm/crepe/internal/pyjson"
)

// settings are the keys of a config.json, in either spelling. It keeps the
// first error and returns zero values after it. Package model has read the
// config before, with every check: here only what GGUF has to say is looked at.
type settings struct {
	keys map[string]json.RawMessage
	err  error
}

func readSettings(config []byte) (*settings, error) {
	c := &settings{}
	if err := pyjson.Unmarshal(config, &c.keys); err != nil {
		return nil, fmt.Errorf("config.json: %w", err)
	}
	return c, nil
}

func (c *settings) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("config.json: "+format, args...)
	}
}

// get decodes a key into v and reports whether it is there with a value.
func (c *settings) get(name string, v any) bool {
	raw, ok := c.keys[name]
	if !ok || string(raw) == "null" {
		return false
	}
	if err := json.Unmarshal(raw, v); err != nil {
		c.fail("%s: %.60s, want a %T", name, raw, v)
		return false
	}
	return true
}

func (c *settings) class() string {
	var names []string
	c.get("architectures", &names)
	if len(names) != 1 {
		return ""
	}
	return names[0]
}

// size returns a whole number above 0 that must be there.
func (c *settings) size(name string) int {
	n := 0
	if !c.get(name, &n) || n < 1 || n > math.MaxInt32 {
		c.fail("%s: want a whole number above 0", name)
		return 1
	}
	return n
}

func (c *settings) sizeOr(name string, def int) int {
	if n := 0; !c.get(name, &n) {
		return def
	}
	return c.size(name)
}

func (c *settings) number(name string, def float64) float64 {
	v := def
	c.get(name, &v)
	return v
}

func (c *settings) headDim() int {
	return c.sizeOr("head_dim", c.size("hidden_size")/c.size("num_attention_heads"))
}

// rope returns the settings of rotary embeddings: rope_scaling, which wins, or
// rope_parameters, of the full-attention blocks where they have their own.
func (c *settings) rope() *settings {
	for _, name := range []string{"rope_scaling", "rope_parameters"} {
		in := &settings{}
		if !c.get(name, &in.keys) {
			continue
		}
		full := &settings{}
		if in.get("full_attention", &full.keys) {
			return full
		}
		return in
	}
	return &settings{}
}

// writer turns settings into metadata.
type writer struct {
	m       *gguf.Metadata
	arch    string
	factors map[string][]float32 // tensors, by name
}

func (w *writer) set(name string, value any) { w.m.Set(w.arch+"."+name, value) }

func (w *writer) size(name string, n int) { w.set(name, uint32(n)) }

// factorNames are the tensors that hold factors of rotary embeddings.
var factorNames = []string{"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"}

// config writes the architecture's keys.
func (w *writer) config(a *architecture, c *settings) {
	w.factors = map[string][]float32{}
	w.size("context_length", c.size("max_position_embeddings"))
	w.size("embedding_length", c.size("hidden_size"))
	w.size("block_count", c.size("num_hidden_layers"))
	w.size("feed_forward_length", c.size("intermediate_size"))
	heads := c.size("num_attention_heads")
	w.size("attention.head_count", heads)
	w.size("attention.head_count_kv", c.sizeOr("num_key_value_heads", heads))
	w.size("attention.key_length", c.headDim())
	w.size("attention.value_length", c.headDim())
	w.set("attention.layer_norm_rms_epsilon", float32(c.number("rms_norm_eps", 1e-6)))
	w.size("vocab_size", c.size("vocab_size"))
	w.rotary(a, c)
	switch a.name {
	case "llama", "qwen2", "qwen3":
		w.noWindow(c)
	case "qwen3moe":
		w.noWindow(c)
		w.experts(c)
	case "gemma2":
		w.gemma(c, gemma2Largest)
		w.set("attn_logit_softcapping", float32(c.number("attn_logit_softcapping", 50)))
		w.set("final_logit_softcapping", float32(c.number("final_logit_softcapping", 30)))
	case "gemma3":
		w.gemma(c, gemma3Largest)
		w.local(c)
	case "phi3":
		w.size("attention.sliding_window", c.sizeOr("sliding_window", 0))
	}
}

// noWindow refuses a window that the architecture has no key for and that cuts
// a sequence which the model was made for.
func (w *writer) noWindow(c *settings) {
	use, window := true, 0
	c.get("use_sliding_window", &use)
	if use && c.get("sliding_window", &window) && window < c.size("max_position_embeddings") {
		c.fail("sliding_window: %d, below max_position_embeddings: architecture %s of llama.cpp has no window", window, w.arch)
	}
}

func (w *writer) experts(c *settings) {
	w.size("expert_count", c.size("num_experts"))
	w.size("expert_used_count", c.size("num_experts_per_tok"))
	w.size("expert_feed_forward_length", c.size("moe_intermediate_size"))
	renormalise := false
	c.get("norm_topk_prob", &renormalise)
	if !renormalise {
		c.fail("norm_topk_prob: want true, as llama.cpp always computes")
	}
	var dense []int
	c.get("mlp_only_layers", &dense)
	if step := c.sizeOr("decoder_sparse_step", 1); step != 1 || len(dense) > 0 {
		c.fail("mlp_only_layers, decoder_sparse_step: want experts in all blocks, as llama.cpp has them")
	}
}

// gemma writes what Gemma 2 and 3 share, and refuses a divisor of the scores
// that llama.cpp would not guess.
func (w *writer) gemma(c *settings, largest int) {
	want := c.headDim()
	if c.size("num_hidden_layers") == largest {
		want = c.size("hidden_size") / c.size("num_attention_heads")
	}
	if got := c.number("query_pre_attn_scalar", 256); got != float64(want) {
		c.fail("query_pre_attn_scalar: %g, want %d, which llama.cpp takes for a model of this size", got, want)
	}
	w.size("attention.sliding_window", c.sizeOr("sliding_window", 4096))
	period := 2
	if w.arch == "gemma3" {
		period = c.sizeOr("sliding_window_pattern", 6)
		w.size("attention.sliding_window_pattern", period)
	}
	var types []string
	c.get("layer_types", &types)
	for i, t := range types {
		if slides := (i+1)%period != 0; (t == "sliding_attention") != slides {
			c.fail("layer_types: block %d is %s: llama.cpp has every block slide but each %d-th", i, t, period)
		}
	}
}

// local writes the rotary embeddings of Gemma 3's sliding blocks.
func (w *writer) local(c *settings) {
	theta := c.number("rope_local_base_freq", 10000)
	in, of := &settings{}, &settings{}
	if c.get("rope_parameters", &in.keys) && in.get("sliding_attention", &of.keys) {
		theta = of.number("rope_theta", theta)
	}
	w.set("rope.freq_base_swa", float32(theta))
	if limit := 0.0; c.get("final_logit_softcapping", &limit) {
		w.set("final_logit_softcapping", float32(limit))
	}
}

// defaultTheta is rope_theta's default where a class has another than 10000.
var defaultTheta = map[string]float64{"gemma3": 1e6}

// rotary writes the rotary embeddings: what they turn, the base, the scaling.
func (w *writer) rotary(a *architecture, c *settings) {
	in := c.rope()
	theta := 10000.0
	if t, ok := defaultTheta[a.name]; ok {
		theta = t
	}
	theta = in.number("rope_theta", c.number("rope_theta", theta))
	w.set("rope.freq_base", float32(theta))
	turned := int(float64(c.headDim()) * in.number("partial_rotary_factor", c.number("partial_rotary_factor", 1)))
	w.size("rope.dimension_count", turned)
	kind := "default"
	if !in.get("rope_type", &kind) {
		in.get("type", &kind)
	}
	switch kind {
	case "default":
	case "linear":
		w.set("rope.scaling.type", "linear")
		w.set("rope.scaling.factor", float32(in.number("factor", 1)))
	case "yarn":
		w.yarn(c, in)
	case "llama3":
		w.llama3(a, c, in, theta, turned)
	case "longrope", "su":
		w.long(a, c, in, turned)
	default:
		c.fail("rope type %q: llama.cpp has default, linear, yarn, llama3 and longrope", kind)
	}
	if in.err != nil {
		c.fail("%w", in.err)
	}
}

func (w *writer) yarn(c, in *settings) {
	for _, name := range []string{"attention_factor", "mscale", "mscale_all_dim", "truncate"} {
		if raw, ok := in.keys[name]; ok && string(raw) != "null" {
			c.fail("%s of yarn: a GGUF file has no key for it", name)
		}
	}
	w.set("rope.scaling.type", "yarn")
	w.set("rope.scaling.factor", float32(in.number("factor", 1)))
	w.size("rope.scaling.original_context_length", in.sizeOr("original_max_position_embeddings", c.size("max_position_embeddings")))
	for _, name := range []string{"beta_fast", "beta_slow"} {
		if v := 0.0; in.get(name, &v) {
			w.set("rope.scaling.yarn_"+name, float32(v))
		}
	}
}

func (w *writer) llama3(a *architecture, c, in *settings, theta float64, turned int) {
	if a.name != "llama" {
		c.fail("rope type llama3: only architecture llama of llama.cpp has it, not %s", a.name)
		return
	}
	low, high := in.number("low_freq_factor", llama3Low), in.number("high_freq_factor", llama3High)
	if low != llama3Low || high != llama3High {
		c.fail("low_freq_factor, high_freq_factor: %g, %g, want %g, %g", low, high, llama3Low, llama3High)
	}
	f := llama3Factors(theta, turned/2, in.number("factor", 8), in.size("original_max_position_embeddings"))
	w.factors["rope_freqs.weight"] = narrow32(f)
}

func (w *writer) long(a *architecture, c, in *settings, turned int) {
	positions := c.size("max_position_embeddings")
	original := c.sizeOr("original_max_position_embeddings", in.sizeOr("original_max_position_embeddings", positions))
	var long, short []float64
	in.get("long_factor", &long)
	in.get("short_factor", &short)
	if a.name != "phi3" || len(long) != turned/2 || len(short) != turned/2 {
		c.fail("rope type longrope: want architecture phi3 with long_factor and short_factor of %d numbers", turned/2)
		return
	}
	w.set("rope.scaling.type", "longrope")
	w.size("rope.scaling.original_context_length", original)
	w.set("rope.scaling.attn_factor", float32(in.number("attention_factor", longScale(positions, original))))
	w.factors["rope_factors_long.weight"], w.factors["rope_factors_short.weight"] = narrow32(long), narrow32(short)
}

func narrow32(v []float64) []float32 {
	out := make([]float32, len(v))
	for i, x := range v {
		out[i] = float32(x)
	}
	return out
}

// special returns the id that config.json names for a role, of several the first.
func (c *settings) special(role string) (int, bool) {
	id, ids := 0, []int{}
	raw := c.keys[role+"_id"]
	if json.Unmarshal(raw, &ids) == nil && len(ids) > 0 {
		return ids[0], true
	}
	if json.Unmarshal(raw, &id) == nil && !slices.Contains([]string{"", "null"}, string(raw)) {
		return id, true
	}
	return 0, false
}
