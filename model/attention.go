package model

import (
	"math"

	"github.com/crepe-llm/crepe/engine"
)

// attention is causal self-attention with rotary positions:
//
//	out = O · attend(rope(norm(Q h)), rope(norm(K h)), V h)
//
// norm being the identity where there is no query and key norm. Where the
// output is gated, it is multiplied with sigmoid of the gate before O.
type attention struct {
	block   int
	q, k, v proj
	o       *Linear
	rope    *rope
	conf    engine.Attention
	gated   bool // q also yields a gate on the output
	ins     []*Input
}

// newAttention binds q_proj, k_proj, v_proj and o_proj under self_attn.
func newAttention(c *Config, b *binder, block int) *attention {
	qWidth, kvWidth := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	q := b.linear("self_attn.q_proj", qWidth, c.Width, c.qkvBias)
	k := b.linear("self_attn.k_proj", kvWidth, c.Width, c.qkvBias)
	v := b.linear("self_attn.v_proj", kvWidth, c.Width, c.qkvBias)
	a := attend(c, b, block, newInput(q, k, v))
	a.q, a.k, a.v = q.all(), k.all(), v.all()
	return a
}

// attend binds what follows the projections of in.
func attend(c *Config, b *binder, block int, in *Input) *attention {
	a := &attention{
		block: block, rope: c.rope,
		conf: engine.Attention{
			Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim,
			Scale: float32(1 / math.Sqrt(c.scoreDim)), Window: c.windows[block], SoftCap: c.scoreCap,
		},
	}
	if c.localRope != nil && c.windows[block] > 0 {
		a.rope = c.localRope
	}
	if c.qkNorm {
		a.conf.QNorm = b.norm("self_attn.q_norm.weight", c.HeadDim)
		a.conf.KNorm = b.norm("self_attn.k_norm.weight", c.HeadDim)
	}
	a.o = b.linear("self_attn.o_proj", c.Width, c.Heads*c.HeadDim, c.outBias)
	a.ins = attentionInputs(in, outputInput(a.o))
	return a
}

func (a *attention) inputs() []*Input { return a.ins }

// forward adds the output for norm of x to out.
func (a *attention) forward(p *pass, x engine.Mat, norm *engine.Norm, out *residual) error {
	defer p.Release(p.Mark())
	q := p.Alloc(x.Rows, a.conf.Heads*a.conf.HeadDim)
	both := q // queries and gates, as q_proj gives them
	if a.gated {
		both = p.Alloc(x.Rows, a.q.n)
	}
	a.heads(p, x, norm, q, both)
	if a.gated {
		p.GateHalves(q, both, a.conf.HeadDim)
	}
	p.tap(a.ins[1], q)
	p.project(out, q, a.o.all())
	return nil
}

// heads writes what the heads yield into q.
func (a *attention) heads(p *pass, x engine.Mat, norm *engine.Norm, q, both engine.Mat) {
	defer p.Release(p.Mark())
	k, v := p.Alloc(x.Rows, a.k.n), p.Alloc(x.Rows, a.v.n)
	h := p.enter(a.ins[0], x, norm, a.q, a.k, a.v)
	p.Linear(both, h, a.q.engine())
	p.Linear(k, h, a.k.engine())
	p.Linear(v, h, a.v.engine())
	if a.gated {
		p.FirstHalves(q, both, a.conf.HeadDim)
	}
	seqs := p.sequences(a.block, a.rope, func(old engine.Cache) engine.Cache {
		return p.AttentionCache(&a.conf, a.o.all().engine(), old)
	})
	p.Attend(q, k, v, seqs, &a.conf)
}
