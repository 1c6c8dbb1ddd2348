package model

import "slices"

// Qwen3-MoE: Qwen3's attention, and mixtures of experts in all blocks but
// those that mlp_only_layers and decoder_sparse_step leave dense.
func init() {
	register(&class{
		name:      "Qwen3MoeForCausalLM",
		modelType: "qwen3_moe",
		defaults:  defaults{headNull: true, kvHeads: 4, maxPositions: 32768, normEps: 1e-6, ropeTheta: 1e4},
		configure: func(k *keys, c *Config) {
			c.qkNorm = true
			c.qkvBias = k.boolOr("attention_bias", false)
			c.outBias = c.qkvBias
			c.setWindows(qwenWindow(k), everyBlock)
			c.readQwenExperts(k)
		},
		block: func(c *Config, b *binder, i int) []*Branch {
			if slices.Contains(c.experts.dense, i) || (i+1)%c.experts.step != 0 {
				return llamaLayer(c, b, i)
			}
			names := expertNames("mlp.experts", "gate_proj", "up_proj", "down_proj")
			return llamaBlock(c, b, newAttention(c, b, i), newMoE(c, b, "mlp.gate", names))
		},
	})
}

func (c *Config) readQwenExperts(k *keys) {
	count := "num_experts"
	if !k.set(count) && k.set("num_local_experts") {
		count = "num_local_experts" // as transformers 5 writes it
	}
	c.experts = experts{
		count:       k.sizeOr(count, 128, maxExperts),
		inner:       k.sizeOr("moe_intermediate_size", 768, maxWidth),
		renormalise: k.boolOr("norm_topk_prob", false),
		dense:       k.wholes("mlp_only_layers"),
		step:        k.sizeOr("decoder_sparse_step", 1, maxBlocks),
	}
	c.experts.readUsed(k, 8)
}
