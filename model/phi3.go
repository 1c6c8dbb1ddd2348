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
			c.setWindows(k.window(), everyBlock)
		},
		block: func(c *Config, b *binder, i int) []*Branch {
			return llamaBlock(c, b, newFusedAttention(c, b, i), newFusedMLP(c, b))
		},
	})
}

// newFusedAttention binds qkv_proj, whose rows are those of q, k and v in
// turn, and o_proj.
func newFusedAttention(c *Config, b *binder, block int) *attention {
	qWidth, kvWidth := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	qkv := b.fused("self_attn.qkv_proj", c.Width, c.qkvBias,
		partSize{"q", qWidth}, partSize{"k", kvWidth}, partSize{"v", kvWidth})
	a := attend(c, b, block, newInput(qkv))
	a.q, a.k, a.v = qkv.part(0), qkv.part(1), qkv.part(2)
	return a
}

// newFusedMLP binds gate_up_proj, whose rows are those of gate, then up, and
// down_proj.
func newFusedMLP(c *Config, b *binder) *mlp {
	inner := c.Intermediate
	both := b.fused("mlp.gate_up_proj", c.Width, c.mlpBias, partSize{"gate", inner}, partSize{"up", inner})
	down := b.linear("mlp.down_proj", c.Width, inner, c.mlpBias)
	return &mlp{
		gate: both.part(0), up: both.part(1), down: down, act: c.class.act,
		ins: []*Input{newInput(both), outputInput(down)},
	}
}
