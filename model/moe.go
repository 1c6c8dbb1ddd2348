package model

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
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
	router  rows
	experts []*mlp
	conf    experts
	ins     []*Input
}

// newMoE binds a router and its experts; name gives the names of one expert's
// gate, up and down.
func newMoE(c *Config, b *binder, router string, name func(e int) (gate, up, down string)) *moe {
	m := &moe{conf: c.experts}
	m.router = rows{b.linear(router, c.experts.count, c.Width, false), 0, c.experts.count}
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

func (m *moe) run(st *State, in normed, out *residual, tap Tap) error {
	defer st.release(st.mark())
	h := in.matrix(st)
	routed := m.route(st, h)
	sum := tensor.Matrix{} // what the experts' outputs are added to
	if out != nil {
		sum = out.x
		if out.post != nil {
			sum = st.alloc(h.Rows, h.Cols)
			clear(sum.Data)
		}
	}
	for e, f := range m.experts {
		if len(routed[e]) > 0 {
			if err := m.runExpert(st, f, h, sum, routed[e], out != nil, tap); err != nil {
				return err
			}
		}
	}
	if out != nil && out.post != nil {
		out.add(0, sum)
	}
	return nil
}

// routing is one token of an expert and the expert's weight for it.
type routing struct {
	token  int
	weight float32
}

// route returns the tokens of each expert.
func (m *moe) route(st *State, h tensor.Matrix) [][]routing {
	defer st.release(st.mark())
	p := st.alloc(h.Rows, m.conf.count)
	m.router.apply(p, operand{Matrix: h})
	chosen := make([]choice, h.Rows*m.conf.used)
	eachToken(h.Rows, func(t int) {
		row := p.Row(t)
		top, sum := kernel.MaxSumExp(row)
		for e, v := range row {
			row[e] = float32(math.Exp(float64(v-top)) / sum)
		}
		m.choose(chosen[t*m.conf.used:][:m.conf.used], row)
	})
	counts := make([]int, m.conf.count)
	for _, c := range chosen {
		if c.weight >= 0 {
			counts[c.expert]++
		}
	}
	routed := make([][]routing, m.conf.count)
	for e, n := range counts {
		routed[e] = make([]routing, 0, n)
	}
	for i, c := range chosen {
		if c.weight >= 0 {
			routed[c.expert] = append(routed[c.expert], routing{i / m.conf.used, c.weight})
		}
	}
	return routed
}

type choice struct {
	expert int
	weight float32 // below 0: none
}

// choose writes the experts of one token, from the largest probability down.
// If its hidden state is not finite it has none.
func (m *moe) choose(chosen []choice, p []float32) {
	total := float32(0)
	for i := range chosen {
		best := -1
		for e, v := range p {
			if v >= 0 && (best < 0 || v > p[best]) {
				best = e
			}
		}
		if best < 0 {
			for i := range chosen {
				chosen[i] = choice{weight: -1}
			}
			return
		}
		chosen[i] = choice{best, p[best]}
		total += p[best]
		p[best] = -1
	}
	if m.conf.renormalise {
		for i := range chosen {
			chosen[i].weight /= total
		}
	}
}

// runExpert adds an expert's weighted outputs for its tokens to sum.
func (m *moe) runExpert(st *State, f *mlp, h, sum tensor.Matrix, routed []routing, output bool, tap Tap) error {
	defer st.release(st.mark())
	defer f.unload()
	if err := f.load(output); err != nil {
		return err
	}
	in := st.alloc(len(routed), h.Cols)
	eachToken(len(routed), func(i int) { copy(in.Row(i), h.Row(routed[i].token)) })
	if !output {
		return f.run(st, normed{x: in}, nil, tap)
	}
	return f.run(st, normed{x: in}, &residual{x: sum, routed: routed}, tap)
}

// expertNames returns a function for newMoE: prefix.e.name of each.
func expertNames(prefix, gate, up, down string) func(e int) (string, string, string) {
	return func(e int) (string, string, string) {
		at := fmt.Sprintf("%s.%d.", prefix, e)
		return at + gate, at + up, at + down
	}
}
