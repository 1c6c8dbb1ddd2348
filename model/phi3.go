package model

// Phi-3, Phi-4 and Phi-4-mini: Llama with q, k, v in one matrix, gate and up
// in another, and rotary embeddings that may leave part of a head unturned.
func init() {
	register(&class{
		name:      "Phi3ForCausalLM",
		modelType: "phi3",
		defaults:  defaults{maxPositions: 4096, normEps: 1e-5, ropeTheta: 1e4, ropeOriginal: 4096},
		turnsPart: true,
		ropeNames: []string{"su", "yarn"},
		configure: func(k *keys, c *Config) {
			c.setWindows(k.sizeOr("sliding_window", 0, maxPositions), everyBlock)
		},
		block: func(c *Config, b *binder, i int) *decoder {
			return preNorm(c, b, newFusedAttention(c, b, i), newFusedMLP(c, b))
		},
	})
}
