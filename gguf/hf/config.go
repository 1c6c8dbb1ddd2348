package hf

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// config is what config.json holds, in the spelling of transformers 4, which 5
// reads too.
type config map[string]any

// real is a number that is written with a point: transformers refuses a whole
// number where it wants a float.
type real float64

func (r real) MarshalJSON() ([]byte, error) {
	text := strconv.AppendFloat(nil, float64(r), 'g', -1, 64)
	if !bytes.ContainsAny(text, ".e") {
		text = append(text, ".0"...)
	}
	return text, nil
}

// int returns a whole number that has been set.
func (c config) int(key string) int {
	n, _ := c[key].(int)
	return n
}

// readConfig makes config.json of the keys. a's own are read last.
func readConfig(k *keys, a *architecture) config {
	c := config{
		"architectures":           []string{a.class},
		"model_type":              a.modelType,
		"torch_dtype":             "bfloat16",
		"hidden_size":             k.size("embedding_length", maxWidth),
		"num_hidden_layers":       k.size("block_count", maxBlocks),
		"intermediate_size":       k.size("feed_forward_length", maxWidth),
		"num_attention_heads":     k.size("attention.head_count", maxHeads),
		"max_position_embeddings": k.size("context_length", maxPositions),
		"rms_norm_eps":            k.number("attention.layer_norm_rms_epsilon"),
		"rope_theta":              k.numberOr("rope.freq_base", 10000),
	}
	heads := c.int("num_attention_heads")
	c["num_key_value_heads"] = k.sizeOr("attention.head_count_kv", heads, maxHeads)
	c["head_dim"] = k.sizeOr("attention.key_length", c.int("hidden_size")/heads, maxHeadDim)
	k.is("attention.value_length", float64(c.int("head_dim")), "the length of a key")
	k.vocabulary(c)
	k.specialIDs(c)
	_, untied := k.file.Tensor("output.weight")
	c["tie_word_embeddings"] = !untied
	a.read(k, c)
	return c
}

// vocabulary sets vocab_size, which is the embedding's, whatever a key says.
func (k *keys) vocabulary(c config) {
	t, ok := k.file.Tensor("token_embd.weight")
	switch {
	case !ok:
		k.fail(fmt.Errorf("tensor token_embd.weight: missing"))
	case len(t.Shape) != 2 || t.Shape[0] > maxVocab:
		k.fail(fmt.Errorf("tensor token_embd.weight: shape %v, want [vocabulary, width]", t.Shape))
	default:
		c["vocab_size"] = t.Shape[0]
		k.is("vocab_size", float64(t.Shape[0]), "the rows of token_embd.weight")
	}
}

// wholeHead refuses rotary embeddings that turn only a part of a head.
func (k *keys) wholeHead(c config) {
	k.is("rope.dimension_count", float64(c.int("head_dim")), "the length of a key, of which all is turned")
}

// scaling reads rope_scaling of the kinds that any architecture may have:
// linear and yarn.
func (k *keys) scaling(c config) {
	kind := k.textOr("rope.scaling.type", "none")
	if k.has("rope.scale_linear") { // before there were kinds
		kind = "linear"
		c["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": k.number("rope.scale_linear")}
	}
	k.boolOr("rope.scaling.finetuned", false) // whether a model was trained with it; it is used either way
	switch kind {
	case "none":
		k.is("rope.scaling.factor", 1, "rope.scaling.type is none")
		k.is("rope.scaling.attn_factor", 1, "rope.scaling.type is none")
	case "linear":
		if k.has("rope.scaling.factor") {
			c["rope_scaling"] = map[string]any{"rope_type": "linear", "factor": k.number("rope.scaling.factor")}
		}
		k.is("rope.scaling.attn_factor", 1, "rope.scaling.type is linear")
	case "yarn":
		k.yarn(c)
	default:
		k.fail(fmt.Errorf("key %s.rope.scaling.type: %q, want none, linear or yarn", k.arch, kind))
	}
}

func (k *keys) yarn(c config) {
	s := map[string]any{
		"rope_type":                        "yarn",
		"factor":                           k.number("rope.scaling.factor"),
		"original_max_position_embeddings": k.sizeOr("rope.scaling.original_context_length", c.int("max_position_embeddings"), maxPositions),
	}
	if k.has("rope.scaling.yarn_beta_fast") {
		s["beta_fast"] = k.number("rope.scaling.yarn_beta_fast")
	}
	if k.has("rope.scaling.yarn_beta_slow") {
		s["beta_slow"] = k.number("rope.scaling.yarn_beta_slow")
	}
	for _, name := range []string{"rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor"} {
		k.is(name, 1, "transformers' yarn has no other")
	}
	c["rope_scaling"] = s
}

// bias reports whether the tensor of that name in block 0 has a bias.
func (k *keys) bias(tensor string) bool {
	_, ok := k.file.Tensor("blk.0." + tensor + ".bias")
	return ok
}

func readLlama(k *keys, c config) {
	c["hidden_act"] = "silu"
	c["attention_bias"] = k.bias("attn_q")
	c["mlp_bias"] = k.bias("ffn_up")
	k.wholeHead(c)
	k.scaling(c)
	k.ropeFreqs(c)
}

func readQwen2(k *keys, c config) {
	c["hidden_act"] = "silu"
	k.wholeHead(c)
	k.scaling(c)
}

func readQwen3(k *keys, c config) {
	c["hidden_act"] = "silu"
	c["attention_bias"] = k.bias("attn_q")
	k.wholeHead(c)
	k.scaling(c)
}

func readQwen3MoE(k *keys, c config) {
	readQwen3(k, c)
	c["num_experts"] = k.size("expert_count", maxExperts)
	c["num_experts_per_tok"] = k.size("expert_used_count", maxExperts)
	c["moe_intermediate_size"] = k.size("expert_feed_forward_length", maxWidth)
	c["norm_topk_prob"] = true // llama.cpp always does
	c["decoder_sparse_step"] = 1
	c["mlp_only_layers"] = []int{}
	k.is("expert_gating_func", 1, "softmax")
}

// readGemma reads what Gemma 2 and 3 share. Neither file says by what scores
// are divided: llama.cpp knows the largest of each family by its blocks.
func readGemma(k *keys, c config, largest int) {
	c["hidden_activation"] = "gelu_pytorch_tanh"
	c["query_pre_attn_scalar"] = c.int("head_dim")
	if c.int("num_hidden_layers") == largest {
		c["query_pre_attn_scalar"] = c.int("hidden_size") / c.int("num_attention_heads")
	}
	k.wholeHead(c)
	k.scaling(c)
}

// The blocks of Gemma 2 27B and Gemma 3 27B.
const (
	gemma2Largest = 46
	gemma3Largest = 62
)

func readGemma2(k *keys, c config) {
	readGemma(k, c, gemma2Largest)
	c["sliding_window"] = k.sizeOr("attention.sliding_window", 4096, maxPositions)
	c["attn_logit_softcapping"] = k.numberOr("attn_logit_softcapping", 50)
	c["final_logit_softcapping"] = k.numberOr("final_logit_softcapping", 30)
}

func readGemma3(k *keys, c config) {
	readGemma(k, c, gemma3Largest)
	c["sliding_window"] = k.size("attention.sliding_window", maxPositions)
	c["sliding_window_pattern"] = 6
	k.slidingBlocks(c)
	c["rope_local_base_freq"] = k.numberOr("rope.freq_base_swa", 10000)
	c["rope_theta"] = k.numberOr("rope.freq_base", 1e6)
	c["final_logit_softcapping"] = nil
	if k.has("final_logit_softcapping") {
		c["final_logit_softcapping"] = k.number("final_logit_softcapping")
	}
}

// longScale is what longrope multiplies cosines and sines with.
func longScale(positions, original int) float64 {
	if positions <= original {
		return 1
	}
	return math.Sqrt(1 + math.Log(float64(positions)/float64(original))/math.Log(float64(original)))
}

// slidingBlocks reads which blocks have a window, where a key says: every one
// but each n-th, or one by one.
func (k *keys) slidingBlocks(c config) {
	const name = "attention.sliding_window_pattern"
	if !k.has(name) {
		return
	}
	v, _ := k.m.Get(k.full(name))
	if !v.List {
		c["sliding_window_pattern"] = k.size(name, maxBlocks)
		return
	}
	slides, err := k.m.Bools(k.full(name))
	if err == nil && len(slides) != c.int("num_hidden_layers") {
		err = fmt.Errorf("key %s: %v, want one for each of %d blocks", k.full(name), v, c.int("num_hidden_layers"))
	}
	if err != nil {
		k.fail(err)
		return
	}
	types := make([]string, len(slides))
	for i, s := range slides {
		types[i] = "full_attention"
		if s {
			types[i] = "sliding_attention"
		}
	}
	delete(c, "sliding_window_pattern")
	c["layer_types"] = types
}

// readPhi3 reads rotary embeddings that turn a part of a head, with long and
// short factors as tensors.
func readPhi3(k *keys, c config) {
	c["hidden_act"] = "silu"
	turned := k.sizeOr("rope.dimension_count", c.int("head_dim"), c.int("head_dim"))
	c["partial_rotary_factor"] = real(turned) / real(c.int("head_dim"))
	c["sliding_window"] = nil // 0 is none
	if k.has("attention.sliding_window") {
		if window := k.whole("attention.sliding_window", 0, maxPositions); window > 0 {
			c["sliding_window"] = window
		}
	}
	positions := c.int("max_position_embeddings")
	original := k.sizeOr("rope.scaling.original_context_length", positions, maxPositions)
	c["original_max_position_embeddings"] = original
	long, short := k.floats("rope_factors_long.weight", turned/2), k.floats("rope_factors_short.weight", turned/2)
	if kind := k.textOr("rope.scaling.type", "none"); kind != "none" && kind != "longrope" {
		k.fail(fmt.Errorf("key %s.rope.scaling.type: %q, want none or longrope", k.arch, kind))
	}
	if (long == nil) != (short == nil) {
		k.fail(fmt.Errorf("tensors rope_factors_long.weight and rope_factors_short.weight: one is missing"))
	}
	if long == nil {
		k.is("rope.scaling.attn_factor", 1, "there are no rope_factors")
		return
	}
	k.is("rope.scaling.attn_factor", longScale(positions, original), "sqrt(1 + ln(context/original)/ln original)")
	c["rope_scaling"] = map[string]any{"type": "longrope", "long_factor": long, "short_factor": short}
}

// ropeFreqs reads the factors by which rope_freqs.weight divides frequencies,
// which are those of Llama 3, back into the settings that they come from. Low
// and high factors are 1 and 4 in every published model.
func (k *keys) ropeFreqs(c config) {
	stored := k.floats("rope_freqs.weight", c.int("head_dim")/2)
	if stored == nil {
		return
	}
	factor := stored[len(stored)-1] // the slowest frequency is divided whole
	theta, _ := c["rope_theta"].(real)
	for original := 1 << 10; original <= 1<<20; original *= 2 {
		if closeTo(llama3Factors(float64(theta), len(stored), float64(factor), original), stored) {
			c["rope_scaling"] = map[string]any{
				"rope_type": "llama3", "factor": factor,
				"low_freq_factor": real(llama3Low), "high_freq_factor": real(llama3High),
				"original_max_position_embeddings": original,
			}
			return
		}
	}
	k.fail(fmt.Errorf("tensor rope_freqs.weight: not the factors of Llama 3 with low_freq_factor %g and high_freq_factor %g", llama3Low, llama3High))
}

const (
	llama3Low  = 1.0
	llama3High = 4.0
)

// llama3Factors returns by what the n frequencies of rope type llama3 are
// divided, as llama.cpp's converter computes them.
func llama3Factors(theta float64, n int, factor float64, original int) []float64 {
	factors := make([]float64, n)
	for i := range factors {
		wave := 2 * math.Pi * math.Pow(theta, float64(i)/float64(n))
		turns := float64(original) / wave
		switch {
		case turns > llama3High:
			factors[i] = 1
		case turns < llama3Low:
			factors[i] = factor
		default:
			s := (turns - llama3Low) / (llama3High - llama3Low)
			factors[i] = 1 / ((1-s)/factor + s)
		}
	}
	return factors
}

func closeTo(a []float64, b []real) bool {
	for i := range a {
		if want := float64(b[i]); !(math.Abs(a[i]-want) <= 1e-5*want) { // float32, through wavelengths
			return false
		}
	}
	return true
}

// encodeJSON writes v as transformers does: keys sorted, indented by two.
func encodeJSON(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		panic("hf: " + err.Error()) // maps, strings and finite numbers only
	}
	return b.Bytes()
}
