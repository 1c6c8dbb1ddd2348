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

func (a *attention) run(st *State, h normed, out *residual, tap Tap) error {
	defer st.release(st.mark())
	tokens := h.x.Rows
	q := st.alloc(tokens, a.kernel.Heads*a.kernel.HeadDim)
	both := q // queries and gates, as q_proj gives them
	if a.gated {
		both = st.alloc(tokens, a.q.n)
	}
	a.runHeads(st, h, q, both, tap)
	if a.gated {
		a.applyGate(q, both)
	}
	if tap != nil {
		tap(a.ins[1], q)
	}
	if out != nil {
		out.project(st, q, a.o)
	}
	return nil
}

// runHeads writes what the heads yield into q.
func (a *attention) runHeads(st *State, h normed, q, both tensor.Matrix, tap Tap) {
	defer st.release(st.mark())
	k, v := st.alloc(q.Rows, a.k.n), st.alloc(q.Rows, a.v.n)
	x := h.enter(st, tap, a.ins[0], a.q, a.k, a.v)
	a.q.apply(both, x)
	a.k.apply(k, x)
	a.v.apply(v, x)
	if a.gated {
		a.splitGate(q, both)
	}
	pieces, starts := st.each(q.Rows)
	parallel.For(len(pieces), 1, func(first, last int) {
		for i := first; i < last; i++ {
			lo, hi := starts[i], starts[i+1]
			a.mix(pieces[i].State, q.Slice(lo, hi), k.Slice(lo, hi), v.Slice(lo, hi))
		}
	})
	clear(q.Slice(starts[len(pieces)], q.Rows).Data)
}

// mix lets the tokens of one sequence attend: to each other and, with a
// decoder's State, to those before them. The results replace the queries.
func (a *attention) mix(st *State, q, k, v tensor.Matrix) {
	kv := st.keyValues(a)
	past := kv.Len()
	if st.memory != nil && past+k.Rows > st.tokens {
		panic(fmt.Sprintf("model: Forward: token %d of a decoder for %d", past+k.Rows, st.tokens))
	}
	a.place(st.rotation(a.rope, past+k.Rows), past, q, k)
	kv.Append(k.Data, v.Data, k.Rows)
	a.kernel.Run(q.Data, q.Data, kv, k.Rows)
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
