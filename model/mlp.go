package model

import (
	"slices"

	"github.com/crepe-llm/crepe/engine"
)

// mlp is the gated feed-forward network:
//
//	out = Down · (act(Gate h) · Up h)
type mlp struct {
	gate, up proj
	down     *Linear
	act      engine.Activation
	ins      []*Input
}

// newMLP binds gate_proj, up_proj and down_proj under mlp.
func newMLP(c *Config, b *binder) *mlp {
	return newGated(c, b, c.Intermediate, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
}

// newGated binds an MLP of that inner width by the names of its Linears.
func newGated(c *Config, b *binder, inner int, gateName, upName, downName string) *mlp {
	gate := b.linear(gateName, inner, c.Width, c.mlpBias)
	up := b.linear(upName, inner, c.Width, c.mlpBias)
	down := b.linear(downName, c.Width, inner, c.mlpBias)
	return &mlp{
		gate: gate.all(), up: up.all(), down: down, act: c.class.act,
		ins: []*Input{newInput(gate, up), outputInput(down)},
	}
}

func (f *mlp) inputs() []*Input { return f.ins }

func (f *mlp) linears() []*Linear { return slices.Concat(f.ins[0].Linears, f.ins[1].Linears) }

// bytes returns the size of the weights.
func (f *mlp) bytes() int64 {
	n := int64(0)
	for _, l := range f.linears() {
		n += l.bytes()
	}
	return n
}

// load and unload frame a forward, with or without its last product, where
// weights do not stay in memory.
func (f *mlp) load(output bool) error {
	needed := f.ins[0].Linears
	if output {
		needed = f.linears()
	}
	for _, l := range needed {
		if err := l.load(); err != nil {
			return err
		}
	}
	return nil
}

func (f *mlp) unload() {
	for _, l := range f.linears() {
		l.Unload()
	}
}

// forward adds the output for norm of x to out.
func (f *mlp) forward(p *pass, x engine.Mat, norm *engine.Norm, out *residual) error {
	if p.mode.Tap == nil {
		f.chunks(p, x, norm, out)
		return nil
	}
	defer p.Release(p.Mark())
	h := p.normed(x, norm)
	p.tap(f.ins[0], h)
	act := p.Alloc(h.Rows, f.gate.n)
	p.eachChunk(h.Rows, func(lo, hi int) { f.activate(p, act.Slice(lo, hi), h.Slice(lo, hi), nil) })
	p.tap(f.ins[1], act)
	p.project(out, act, f.down.all())
	return nil
}

// chunks is forward without a Tap: the wide activations of a chunk of tokens
// exist at a time.
func (f *mlp) chunks(p *pass, x engine.Mat, norm *engine.Norm, out *residual) {
	p.eachChunk(x.Rows, func(lo, hi int) {
		act := p.OperandFor(hi-lo, f.down.all().engine())
		f.activate(p, act, x.Slice(lo, hi), norm)
		p.projectAt(out, lo, act, f.down.all())
	})
}

// activate stores act(Gate h) · Up h into dst, h being norm of x.
func (f *mlp) activate(p *pass, dst, x engine.Mat, norm *engine.Norm) {
	defer p.Release(p.Mark())
	gate, up := f.gate.engine(), f.up.engine()
	p.Gated(dst, p.Operand(x, norm, gate, up), gate, up, f.act)
}
