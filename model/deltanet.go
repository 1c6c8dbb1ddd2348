package model

import (
	"math"

	"github.com/crepe-llm/crepe/engine"
)

// deltaNet is linear attention by the gated delta rule (engine.DeltaNet), with
// A_log, Rate being exp of it, and
//
//	out = O · delta(QKV h, Z h, B h, A h)
type deltaNet struct {
	block        int
	qkv, z, b, a proj
	out          *Linear
	conf         engine.DeltaNet
	ins          []*Input
}

// newDeltaNet binds the tensors under linear_attn.
func newDeltaNet(c *Config, b *binder, block int) *deltaNet {
	const at = "linear_attn."
	s := c.delta
	keys := s.KeyHeads * s.KeyDim
	qkv := b.fused(at+"in_proj_qkv", c.Width, false,
		partSize{"q", keys}, partSize{"k", keys}, partSize{"v", s.ValueWidth()})
	z := b.linear(at+"in_proj_z", s.ValueWidth(), c.Width, false)
	beta := b.linear(at+"in_proj_b", s.ValueHeads, c.Width, false)
	decay := b.linear(at+"in_proj_a", s.ValueHeads, c.Width, false)
	beta.Gate, decay.Gate = true, true
	rate := b.vector(at+"A_log", s.ValueHeads)
	for i, v := range rate {
		rate[i] = float32(math.Exp(float64(v)))
	}
	s.Rate = b.engine.NewVec(rate)
	s.Bias = b.engine.NewVec(b.vector(at+"dt_bias", s.ValueHeads))
	s.Norm = &engine.Norm{W: b.engine.NewVec(b.vector(at+"norm.weight", s.ValueDim)), Eps: c.NormEps}
	s.Conv = convolution(b, b.vector(at+"conv1d.weight", s.Channels(), 1, s.Taps), s.Taps)
	d := &deltaNet{
		block: block, conf: s,
		qkv: qkv.all(), z: z.all(), b: beta.all(), a: decay.all(),
		out: b.linear(at+"out_proj", c.Width, s.ValueWidth(), false),
	}
	d.ins = attentionInputs(newInput(qkv, z, beta, decay), outputInput(d.out))
	return d
}

// convolution returns the weights w, which are channel by channel, tap by tap;
// nil while only headers are read.
func convolution(b *binder, w []float32, taps int) []engine.Vec {
	if w == nil {
		return nil
	}
	conv := make([]engine.Vec, taps)
	for j := range conv {
		tap := make([]float32, len(w)/taps)
		for c := range tap {
			tap[c] = w[c*taps+j]
		}
		conv[j] = b.engine.NewVec(tap)
	}
	return conv
}

func (d *deltaNet) inputs() []*Input { return d.ins }

// forward adds the output for norm of x to out.
func (d *deltaNet) forward(p *pass, x engine.Mat, norm *engine.Norm, out *residual) error {
	defer p.Release(p.Mark())
	z := p.Alloc(x.Rows, d.z.n)
	d.heads(p, x, norm, z)
	p.tap(d.ins[1], z)
	p.project(out, z, d.out.all())
	return nil
}

// heads writes what the heads yield into z.
func (d *deltaNet) heads(p *pass, x engine.Mat, norm *engine.Norm, z engine.Mat) {
	defer p.Release(p.Mark())
	qkv := p.Alloc(x.Rows, d.qkv.n)
	beta, decay := p.Alloc(x.Rows, d.b.n), p.Alloc(x.Rows, d.a.n)
	d.project(p, x, norm, qkv, z, beta, decay)
	op := p.Stream.(engine.Delta)
	seqs := p.sequences(d.block, nil, func(old engine.Cache) engine.Cache { return op.DeltaCache(&d.conf, old) })
	op.Delta(z, qkv, beta, decay, seqs, &d.conf)
}

// project writes the four projections of norm of x.
func (d *deltaNet) project(p *pass, x engine.Mat, norm *engine.Norm, qkv, z, beta, decay engine.Mat) {
	defer p.Release(p.Mark())
	h := p.enter(d.ins[0], x, norm, d.qkv, d.z, d.b, d.a)
	p.Linear(qkv, h, d.qkv.engine())
	p.Linear(z, h, d.z.engine())
	p.Linear(beta, h, d.b.engine())
	p.Linear(decay, h, d.a.engine())
}
