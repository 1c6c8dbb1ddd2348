package model

import "github.com/crepe-llm/crepe/engine"

// Gemma 2 and 3, text: zero-centred norms before and after attention and MLP, gelu,
// scaled embeddings, blocks with and without a window in turn.

func init() {
	register(&class{
		name:      "Gemma2ForCausalLM",
		modelType: "gemma2",
		typed:     true,
		defaults:  defaults{kvHeads: 4, headDim: 256, maxPositions: 8192, normEps: 1e-6, ropeTheta: 1e4, tied: true},
		act:       engine.GELU, zeroCentred: true, scaledEmbed: true,
		configure: func(k *keys, c *Config) {
			c.readGemma(k, 30)
			c.scoreCap = softCap(k, "attn_logit_softcapping", 50)
			c.setWindowsByType(k, k.sizeOr("sliding_window", 4096, maxPositions), func(i int) bool { return i%2 == 0 })
		},
		block: newGemmaBlock,
	})
	register(&class{
		name:      "Gemma3ForCausalLM",
		modelType: "gemma3_text",
		defaults:  defaults{kvHeads: 4, headDim: 256, maxPositions: 131072, normEps: 1e-6, ropeTheta: 1e6, tied: true},
		act:       engine.GELU, zeroCentred: true, scaledEmbed: true,
		configure: func(k *keys, c *Config) {
			c.readGemma(k, 0)
			c.qkNorm = true
			if k.boolOr("use_bidirectional_attention", false) {
				k.failf("use_bidirectional_attention", "false: attention here is causal")
			}
			pattern := k.sizeOr("sliding_window_pattern", 6, maxBlocks)
			c.setWindowsByType(k, k.sizeOr("sliding_window", 4096, maxPositions), func(i int) bool { return (i+1)%pattern != 0 })
		},
		rotary: gemma3Rotary,
		block:  newGemmaBlock,
	})
}

// readGemma reads what Gemma 2 and 3 share.
func (c *Config) readGemma(k *keys, logitCap float64) {
	c.qkvBias = k.boolOr("attention_bias", false)
	c.outBias = c.qkvBias
	c.logitCap = softCap(k, "final_logit_softcapping", logitCap)
	c.scoreDim = k.positiveOr("query_pre_attn_scalar", 256)
}

// softCap reads a cap: one that is absent has the class's default, one that is
// null is none. (Gemma 3 has a key for scores too, which transformers does not use.)
func softCap(k *keys, name string, def float64) float32 {
	if k.present(name) && !k.set(name) || !k.present(name) && def == 0 {
		return 0
	}
	return float32(k.positiveOr(name, def))
}

// gemma3Rotary reads rotary settings for full and sliding blocks: by layer
// type in transformers 5, before that rope_theta and rope_scaling for full and
// rope_local_base_freq for sliding ones.
func gemma3Rotary(k *keys, c *Config) {
	c.rope = newRope(k.positiveOr("rope_theta", c.class.defaults.ropeTheta), c.HeadDim)
	c.localRope = newRope(k.positiveOr("rope_local_base_freq", 1e4), c.HeadDim)
	if in := k.object("rope_parameters"); in != nil {
		if in.set("rope_type") || in.set("rope_theta") {
			k.failf("rope_parameters", "an object for %s and one for %s", fullAttention, slidingAttention)
		}
		for _, of := range []struct {
			name string
			rope *rope
		}{{fullAttention, c.rope}, {slidingAttention, c.localRope}} {
			if in := in.object(of.name); in != nil {
				of.rope.read(in, in, c)
			}
		}
	}
	if in := k.object("rope_scaling"); in != nil {
		if in.set("type") && !in.set("rope_type") {
			in.failf("type", "rope_type: transformers does not read the older name here")
		}
		c.rope.read(in, in, c)
	}
}

// newGemmaBlock binds a block with a norm before and one after attention and MLP:
//
//	x += norm(attention(norm(x)))
//	x += norm(mlp(norm(x)))
func newGemmaBlock(c *Config, b *binder, i int) []*Branch {
	branch := func(norm, post string, layer sublayer) *Branch {
		br := b.branch(norm+"_layernorm.weight", c.Width, layer)
		br.post = b.norm(post+"_layernorm.weight", c.Width)
		return br
	}
	return []*Branch{
		branch("input", "post_attention", newAttention(c, b, i)),
		branch("pre_feedforward", "post_feedforward", newMLP(c, b)),
	}
}
