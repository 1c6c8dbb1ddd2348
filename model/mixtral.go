package model

// Mixtral: Mistral's attention and a mixture of experts in every block, whose
// chosen weights always sum to 1.
func init() {
	register(&class{
		name:      "MixtralForCausalLM",
		modelType: "mixtral",
		defaults:  defaults{headNull: true, kvHeads: 8, maxPositions: 4096 * 32, normEps: 1e-5, ropeTheta: 1e6},
		configure: func(k *keys, c *Config) {
			c.setWindows(k.window(), everyBlock)
			c.experts = experts{count: k.sizeOr("num_local_experts", 8, maxExperts), inner: c.Intermediate, renormalise: true}
			c.experts.readUsed(k, 2)
		},
		block: func(c *Config, b *binder, i int) []*Branch {
			names := expertNames("block_sparse_moe.experts", "w1", "w3", "w2")
			return llamaBlock(c, b, newAttention(c, b, i), newMoE(c, b, "block_sparse_moe.gate", names))
		},
	})
}
