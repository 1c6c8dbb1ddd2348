package model

import "github.com/crepe-llm/crepe/engine"

// Qwen3.5, text: three blocks of Gated DeltaNet, then one of attention with a
// gate on its output, zero-centred norms. The published form keeps the text
// model's keys in text_config and its tensors under model.language_model.
func init() {
	text := class{
		name:      "Qwen3_5ForCausalLM",
		modelType: "qwen3_5_text",
		typed:     true,
		defaults:  defaults{kvHeads: 4, headDim: 256, maxPositions: 32768, normEps: 1e-6, ropeTheta: 1e4, ropePart: 0.25},
		turnsPart: true,

		zeroCentred: true,
		configure: func(k *keys, c *Config) {
			c.qkNorm = true
			c.qkvBias = k.boolOr("attention_bias", false)
			c.outBias = c.qkvBias
			c.readDelta(k)
		},
		block: func(c *Config, b *binder, i int) []*Branch {
			if c.linear[i] {
				return llamaBlock(c, b, newDeltaNet(c, b, i), newMLP(c, b))
			}
			return llamaBlock(c, b, newGatedAttention(c, b, i), newMLP(c, b))
		},
	}
	register(&text)
	published := text
	published.name = "Qwen3_5ForConditionalGeneration"
	published.modelType = "qwen3_5"
	published.nested = "text_config"
	published.prefix = "model.language_model."
	register(&published)
}

const linearAttention = "linear_attention"

// readDelta reads which blocks are linear, and their shapes.
func (c *Config) readDelta(k *keys) {
	c.linear = make([]bool, c.Blocks)
	types := k.texts("layer_types")
	interval := k.sizeOr("full_attention_interval", 4, maxBlocks)
	if types != nil && len(types) != c.Blocks {
		k.failf("layer_types", "%d names, one a block", c.Blocks)
		return
	}
	for i := range c.linear {
		c.linear[i] = (i+1)%interval != 0
		if types == nil {
			continue
		}
		if c.linear[i] = types[i] == linearAttention; !c.linear[i] && types[i] != fullAttention {
			k.failf("layer_types", "%s or %s, not %q", fullAttention, linearAttention, types[i])
		}
	}
	s := engine.DeltaNet{
		KeyHeads:   k.sizeOr("linear_num_key_heads", 16, maxHeads),
		ValueHeads: k.sizeOr("linear_num_value_heads", 32, maxHeads),
		KeyDim:     k.sizeOr("linear_key_head_dim", 128, maxHeadDim),
		ValueDim:   k.sizeOr("linear_value_head_dim", 128, maxHeadDim),
		Taps:       k.sizeOr("linear_conv_kernel_dim", 4, 16),
	}
	if s.ValueHeads%s.KeyHeads != 0 {
		k.failf("linear_num_value_heads", "a multiple of linear_num_key_heads %d", s.KeyHeads)
	}
	if s.Channels() > maxWidth {
		k.failf("linear_num_value_heads", "at most %d channels over all heads, not %d", maxWidth, s.Channels())
	}
	c.delta = s
}

// newGatedAttention is newAttention with a q_proj whose rows are, head by
// head, those of the query and those of the gate.
func newGatedAttention(c *Config, b *binder, block int) *attention {
	qWidth, kvWidth := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	q := b.linear("self_attn.q_proj", 2*qWidth, c.Width, c.qkvBias)
	q.Parts = []Part{
		{Name: "query", Hi: 2*qWidth - c.HeadDim, Run: c.HeadDim, Step: 2 * c.HeadDim},
		{Name: "gate", Lo: c.HeadDim, Hi: 2 * qWidth, Run: c.HeadDim, Step: 2 * c.HeadDim},
	}
	k := b.linear("self_attn.k_proj", kvWidth, c.Width, c.qkvBias)
	v := b.linear("self_attn.v_proj", kvWidth, c.Width, c.qkvBias)
	a := attend(c, b, block, newInput(q, k, v))
	a.q, a.k, a.v = q.all(), k.all(), v.all()
	a.gated = true
	return a
}
