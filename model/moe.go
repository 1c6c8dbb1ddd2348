package model

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
)

// experts are the sizes of a mixture of experts.
type experts struct {
	count, used int   // experts, and how many of them a token passes
	inner       int   // an expert's Intermediate
	renormalise bool  // the weights of the experts used sum to 1
	dense       []int // blocks with an ordinary MLP
	step        int   // every step-th block has experts
}

const maxExperts = 1 << 12

// readUsed reads num_experts_per_tok and holds it against the count.
func (e *experts) readUsed(k *keys, def int) {
	const name = "num_experts_per_tok"
	if e.used = k.sizeOr(name, def, maxExperts); e.used > e.count {
		k.failf(name, "at most the %d experts (the default here is %d)", e.count, def)
	}
}

// moe is a mixture of experts. With p = softmax(Router h) over all experts and
// the k largest chosen (equal ones: the lower index),
//
//	out = Σ_chosen w_e · expert_e(h),  w_e = p_e, or p_e / Σ_chosen p
//
// An Input of an expert gets the tokens routed to it, in order; one that no
// token reaches is not tapped. Sums run over experts in order.
type moe struct {
	router  proj
	experts []*mlp
	conf    experts
	ins     []*Input
}

// newMoE binds a router and its experts; name gives the names of one expert's
// gate, up and down.
func newMoE(c *Config, b *binder, router string, name func(e int) (gate, up, down string)) *moe {
	m := &moe{conf: c.experts}
	m.router = b.linear(router, c.experts.count, c.Width, false).all()
	b.expert = true
	for e := range c.experts.count {
		gate, up, down := name(e)
		f := newGated(c, b, c.experts.inner, gate, up, down)
		m.experts = append(m.experts, f)
		m.ins = append(m.ins, f.ins...)
	}
	b.expert = false
	m.keep(b)
	return m
}

// keep reads the experts that stay in memory: all, or from the first on as
// many as leave room for one of the others. Which they are makes no difference
// where nearly all experts get tokens of every sequence.
func (m *moe) keep(b *binder) {
	all, largest := m.bytes()
	room := b.expertBytes - largest
	if b.expertBytes == 0 || b.expertBytes >= all {
		room = all
	}
	for _, f := range m.experts {
		if room -= f.bytes(); room < 0 {
			return
		}
		for _, l := range f.linears() {
			l.streamed = false
			b.load(l)
		}
	}
}

// bytes returns the size of all experts and of the largest.
func (m *moe) bytes() (all, largest int64) {
	for _, f := range m.experts {
		n := f.bytes()
		all += n
		largest = max(largest, n)
	}
	return all, largest
}

func (m *moe) inputs() []*Input { return m.ins }

// forward adds the output for norm of x to out.
func (m *moe) forward(p *pass, x engine.Mat, norm *engine.Norm, out *residual) error {
	if out != nil && out.post != nil {
		panic("model: moe: a norm after the sum of experts, want none")
	}
	defer p.Release(p.Mark())
	h := p.normed(x, norm)
	routed := p.Route(h, m.router.engine(), m.conf.used, m.conf.renormalise)
	for e, f := range m.experts {
		if len(routed[e]) > 0 {
			if err := m.expert(p, f, h, out, routed[e]); err != nil {
				return err
			}
		}
	}
	return nil
}

// expert adds an expert's weighted outputs for its tokens to out.
func (m *moe) expert(p *pass, f *mlp, h engine.Mat, out *residual, routed []engine.Routed) error {
	defer p.Release(p.Mark())
	defer f.unload()
	if err := f.load(out != nil); err != nil {
		return err
	}
	in := p.Alloc(len(routed), h.Cols)
	p.Gather(in, h, routed)
	if out != nil {
		out = &residual{x: out.x, routed: routed}
	}
	return f.forward(p, in, nil, out)
}

// expertNames returns a function for newMoE: prefix.e.name of each.
func expertNames(prefix, gate, up, down string) func(e int) (string, string, string) {
	return func(e int) (string, string, string) {
		at := fmt.Sprintf("%s.%d.", prefix, e)
		return at + gate, at + up, at + down
	}
}
