package hf

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// architecture is one of llama.cpp's, by its name in general.architecture, and
// the class of transformers that it is read as.
type architecture struct {
	name, class string
	modelType   string            // model_type in config.json
	block       map[string]string // tensors of a block, GGUF to Hugging Face, without .weight or .bias
	experts     map[string]string // of a block; the latter with %d for the expert
	permuted    bool              // rows of q and k
	shifted     bool              // norms are stored plus 1

	// read turns the keys that only some architectures have into those of config.json.
	read func(k *keys, c config)
}

// The tensors outside the blocks, in all architectures.
var outside = map[string]string{"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}

// llamaBlock are the tensors of a block with one norm before each branch.
var llamaBlock = map[string]string{
	"attn_norm":   "input_layernorm",
	"attn_q":      "self_attn.q_proj",
	"attn_k":      "self_attn.k_proj",
	"attn_v":      "self_attn.v_proj",
	"attn_output": "self_attn.o_proj",
	"ffn_norm":    "post_attention_layernorm",
	"ffn_gate":    "mlp.gate_proj",
	"ffn_up":      "mlp.up_proj",
	"ffn_down":    "mlp.down_proj",
}

// normedHeads adds the norms of q and k.
var normedHeads = map[string]string{"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}

// gemmaNorms are where Gemma's blocks differ: a norm after each branch too.
var gemmaNorms = map[string]string{
	"post_attention_norm": "post_attention_layernorm",
	"ffn_norm":            "pre_feedforward_layernorm",
	"post_ffw_norm":       "post_feedforward_layernorm",
}

var architectures = []*architecture{
	{name: "llama", class: "LlamaForCausalLM", modelType: "llama", block: llamaBlock, permuted: true, read: readLlama},
	{name: "qwen2", class: "Qwen2ForCausalLM", modelType: "qwen2", block: llamaBlock, read: readQwen2},
	{name: "qwen3", class: "Qwen3ForCausalLM", modelType: "qwen3", block: join(llamaBlock, normedHeads), read: readQwen3},
	{
		name: "qwen3moe", class: "Qwen3MoeForCausalLM", modelType: "qwen3_moe",
		block: join(without(llamaBlock, "ffn_gate", "ffn_up", "ffn_down"), normedHeads, map[string]string{"ffn_gate_inp": "mlp.gate"}),
		experts: map[string]string{
			"ffn_gate_exps": "mlp.experts.%d.gate_proj",
			"ffn_up_exps":   "mlp.experts.%d.up_proj",
			"ffn_down_exps": "mlp.experts.%d.down_proj",
		},
		read: readQwen3MoE,
	},
	{name: "gemma2", class: "Gemma2ForCausalLM", modelType: "gemma2", block: join(llamaBlock, gemmaNorms), shifted: true, read: readGemma2},
	{name: "gemma3", class: "Gemma3ForCausalLM", modelType: "gemma3_text", block: join(llamaBlock, normedHeads, gemmaNorms), shifted: true, read: readGemma3},
	{
		name: "phi3", class: "Phi3ForCausalLM", modelType: "phi3",
		block: join(without(llamaBlock, "attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"),
			map[string]string{"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}),
		read: readPhi3,
	},
}

// join returns the union of maps, of which later ones win.
func join(all ...map[string]string) map[string]string {
	sum := map[string]string{}
	for _, m := range all {
		maps.Copy(sum, m)
	}
	return sum
}

func without(m map[string]string, keys ...string) map[string]string {
	m = maps.Clone(m)
	for _, k := range keys {
		delete(m, k)
	}
	return m
}

// findArchitecture returns the architecture for which is true, that name says
// nothing of but in errors.
func findArchitecture(what, name string, is func(a *architecture) string) (*architecture, error) {
	i := slices.IndexFunc(architectures, func(a *architecture) bool { return is(a) == name })
	if i >= 0 {
		return architectures[i], nil
	}
	var known []string
	for _, a := range architectures {
		known = append(known, is(a))
	}
	return nil, fmt.Errorf("%s %q is not known; known: %s", what, name, strings.Join(known, ", "))
}
