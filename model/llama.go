package model

import "github.com/crepe-llm/crepe/engine"

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
		block: llamaLayer,
	})
}

// llamaBlock is the block of Llama, which most classes share:
//
//	x += attention(norm(x))
//	x += mlp(norm(x))
type llamaBlock struct {
	inputNorm *engine.Norm
	attention sublayer
	postNorm  *engine.Norm // before the MLP
	mlp       sublayer
}

// llamaLayer binds a llamaBlock of attention and an MLP.
func llamaLayer(c *Config, b *binder, i int) layer {
	return newLlamaBlock(c, b, newAttention(c, b, i), newMLP(c, b))
}

// sublayer is attention or a feed-forward network, or what replaces it.
type sublayer interface {
	inputs() []*Input

	// forward adds the output for norm of x to out, which may be x; norm may be nil.
	// It calls the pass's Tap with the input of every Linear. With out nil it stops
	// before its last product.
	forward(p *pass, x engine.Mat, norm *engine.Norm, out *residual) error
}

func newLlamaBlock(c *Config, b *binder, attention, mlp sublayer) *llamaBlock {
	return &llamaBlock{
		inputNorm: b.norm("input_layernorm.weight", c.Width), attention: attention,
		postNorm: b.norm("post_attention_layernorm.weight", c.Width), mlp: mlp,
	}
}

func (l *llamaBlock) inputs() []*Input    { return append(l.attention.inputs(), l.mlp.inputs()...) }
func (l *llamaBlock) entry() *engine.Norm { return l.inputNorm }

func (l *llamaBlock) forward(p *pass, x engine.Mat) error {
	if err := l.attention.forward(p, x, l.inputNorm, p.into(x)); err != nil {
		return err
	}
	return l.mlp.forward(p, x, l.postNorm, p.last(x))
}
