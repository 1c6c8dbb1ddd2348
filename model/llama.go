package model

// LLaMA 1, 2, 3, 3.1 and 3.2, DeepSeek-LLM and DeepSeek-Coder, and whatever
// else is published as a Llama.
func init() {
	register(&class{
		name:      "LlamaForCausalLM",
		modelType: "llama",
		defaults:  defaults{headNull: true, maxPositions: 2048, normEps: 1e-6, ropeTheta: 1e4},
		configure: func(k *keys, c *Config) {
			c.qkvBias = k.boolOr("attention_bias", false)
			c.outBias = c.qkvBias
			c.mlpBias = k.boolOr("mlp_bias", false)
		},
		block: llamaLayer,
	})
}

// llamaBlock returns the block of Llama, which most classes share:
//
//	x += attention(norm(x))
//	x += mlp(norm(x))
func llamaBlock(c *Config, b *binder, attention, mlp sublayer) []*Branch {
	return []*Branch{
		b.branch("input_layernorm.weight", c.Width, attention),
		b.branch("post_attention_layernorm.weight", c.Width, mlp),
	}
}

// llamaLayer binds a llamaBlock of attention and an MLP.
func llamaLayer(c *Config, b *binder, i int) []*Branch {
	return llamaBlock(c, b, newAttention(c, b, i), newMLP(c, b))
}
