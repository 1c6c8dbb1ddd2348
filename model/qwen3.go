package model

// Qwen3: Llama with norms over the heads of q and k, whose width is not tied
// to that of the hidden states.
func init() {
	register(&class{
		name:      "Qwen3ForCausalLM",
		modelType: "qwen3",
		typed:     true,
		defaults:  defaults{kvHeads: 32, kvNull: true, headDim: 128, maxPositions: 32768, normEps: 1e-6, ropeTheta: 1e4},
		configure: func(k *keys, c *Config) {
			c.qkNorm = true
			c.qkvBias = k.boolOr("attention_bias", false)
			c.outBias = c.qkvBias
			c.setWindowsByType(k, qwenWindow(k), qwenSlides(k))
		},
		block: llamaLayer,
	})
}
