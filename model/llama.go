package model

// LLaMA 1, 2, 3, 3.1 and 3.2, DeepSeek-LLM and DeepSeek-Coder, and whatever
// else is published as a Llama.
func init() {
	register(&class{
		name:      "LlamaForCausalLM",
		modelType: "llama",
		defaults:  defaults{maxPositions: 2048, normEps: 1e-6, ropeTheta: 1e4},
		configure: func(k *keys, c *Config) {
			c.qkvBias = k.boolOr("attention_bias", false)
			c.outBias = c.qkvBias
			c.mlpBias = k.boolOr("mlp_bias", false)
		},
		block: preNormBlock,
	})
}

// preNormBlock is the block of Llama, which most classes share.
func preNormBlock(c *Config, b *binder, i int) *decoder {
	return preNorm(c, b, newAttention(c, b, i), newMLP(c, b))
}

// preNorm is a block with one norm before attention and one before what follows.
func preNorm(c *Config, b *binder, attention, second mixer) *decoder {
	return &decoder{eps: c.NormEps, branches: []branch{
		{norm: b.norm("input_layernorm.weight", c.Width), mixer: attention},
		{norm: b.norm("post_attention_layernorm.weight", c.Width), mixer: second},
	}}
}
