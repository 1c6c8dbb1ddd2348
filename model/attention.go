package model

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// attention is causal self-attention with rotary positions:
//
//	out = O · attend(rope(norm(Q h)), rope(norm(K h)), V h)
//
// norm being the identity where there is no query and key norm. Where the
// output is gated, it is multiplied with sigmoid of the gate before O.
type attention struct {
	block        int
	q, k, v      rows
	o            *Linear
	qNorm, kNorm []float32 // [HeadDim], shared by the heads; nil for none
	eps          float32   // of the norms
	rope         *rope
	kernel       kernel.Attention
	gated        bool // q also yields a gate on the output
	ins          []*Input
}

// newAttention binds q_proj, k_proj, v_proj and o_proj under self_attn.
func newAttention(c *Config, b *binder, block int) *attention {
	qWidth, kvWidth := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	q := b.linear("self_attn.q_proj", qWidth, c.Width, c.qkvBias)
	k := b.linear("self_attn.k_proj", kvWidth, c.Width, c.qkvBias)
	v := b.linear("self_attn.v_proj", kvWidth, c.Width, c.qkvBias)
	a := attend(c, b, block, newInput(q, k, v))
	a.q, a.k, a.v = rows{q, 0, qWidth}, rows{k, 0, kvWidth}, rows{v, 0, kvWidth}
	return a
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

// attend binds what follows the projections of in.
func attend(c *Config, b *binder, block int, in *Input) *attention {
	a := &attention{
		block: block, eps: c.NormEps, rope: c.rope,
		kernel: kernel.Attention{
			Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim,
			Scale: float32(1 / math.Sqrt(c.scoreDim)), Window: c.windows[block], SoftCap: c.scoreCap,
		},
	}
	if c.localRope != nil && c.windows[block] > 0 {
		a.rope = c.localRope
	}
	if c.qkNorm {
		a.qNorm = b.norm("self_attn.q_norm.weight", c.HeadDim)
		a.kNorm = b.norm("self_attn.k_norm.weight", c.HeadDim)
	}
	a.o = b.linear("self_attn.o_proj", c.Width, c.Heads*c.HeadDim, c.outBias)
	a.ins = attentionInputs(in, newInput(a.o))
	return a
}

func (a *attention) inputs() []*Input { return a.ins }

func (a *attention) run(st *State, h tensor.Matrix, out *residual, tap Tap) error {
	defer st.release(st.mark())
	if tap != nil {
		tap(a.ins[0], h)
	}
	x := a.q.share(h)
	q, both := a.queries(st, x)
	k, v := st.alloc(h.Rows, a.k.n), st.alloc(h.Rows, a.v.n)
	a.k.applyTo(k, x)
	a.v.applyTo(v, x)
	x.release()
	mixed := h // no longer needed, and mostly as wide as the heads together
	if h.Cols != q.Cols {
		mixed = st.alloc(h.Rows, q.Cols)
	}
	pieces, starts := st.each(h.Rows)
	parallel.For(len(pieces), 1, func(first, last int) {
		for i := first; i < last; i++ {
			lo, hi := starts[i], starts[i+1]
			a.mix(pieces[i].State, mixed.Slice(lo, hi), q.Slice(lo, hi), k.Slice(lo, hi), v.Slice(lo, hi))
		}
	})
	clear(mixed.Slice(starts[len(pieces)], h.Rows).Data)
	if a.gated {
		a.applyGate(mixed, both)
	}
	if tap != nil {
		tap(a.ins[1], mixed)
	}
	if out != nil {
		out.project(st, mixed, a.o)
	}
	return nil
}

// mix lets the tokens of one sequence attend: to each other and, with a
// decoder's State, to those before them.
func (a *attention) mix(st *State, dst, q, k, v tensor.Matrix) {
	kv := st.keyValues(a)
	past := kv.Len()
	if st.memory != nil && past+k.Rows > st.tokens {
		panic(fmt.Sprintf("model: Forward: token %d of a decoder for %d", past+k.Rows, st.tokens))
	}
	a.place(st.rotation(a.rope, past+k.Rows), past, q, k)
	kv.Append(k.Data, v.Data, k.Rows)
	a.kernel.Run(dst.Data, q.Data, kv, k.Rows)
}

// queries returns the queries and, where the output is gated, these and the
// gates as q_proj gives them.
func (a *attention) queries(st *State, h operand) (q, both tensor.Matrix) {
	q = st.alloc(h.Rows, a.kernel.Heads*a.kernel.HeadDim)
	if !a.gated {
		a.q.applyTo(q, h)
		return q, both
	}
	both = st.alloc(h.Rows, a.q.n)
	a.q.applyTo(both, h)
	a.splitGate(q, both)
	return q, both
}

// place norms the heads of q and k, where the class does, and turns them to
// their positions, the first being past.
func (a *attention) place(table *ropeTable, past int, q, k tensor.Matrix) {
	eachToken(q.Rows, func(t int) {
		cos, sin := table.at(past + t)
		a.placeRow(q.Row(t), a.kernel.Heads, a.qNorm, cos, sin)
		a.placeRow(k.Row(t), a.kernel.KVHeads, a.kNorm, cos, sin)
	})
}

func (a *attention) placeRow(x []float32, heads int, norm, cos, sin []float32) {
	dim := a.kernel.HeadDim
	if norm != nil {
		for i := range heads {
			head := x[i*dim : (i+1)*dim]
			kernel.RMSNorm(head, head, norm, a.eps)
		}
	}
	kernel.Rope(x, cos, sin, heads, dim, a.rope.dim)
}
