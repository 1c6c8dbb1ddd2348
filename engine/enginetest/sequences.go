package enginetest

import (
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// attentions are the kinds of heads: grouped or not, of odd widths, with norms,
// windows and soft caps.
var attentions = []engine.Attention{
	{Heads: 1, KVHeads: 1, HeadDim: 2, Scale: 1},
	{Heads: 4, KVHeads: 4, HeadDim: 16, Scale: 0.25},
	{Heads: 6, KVHeads: 2, HeadDim: 24, Scale: 0.2, Window: 7},
	{Heads: 8, KVHeads: 1, HeadDim: 64, Scale: 0.125, SoftCap: 5},
	{Heads: 3, KVHeads: 3, HeadDim: 40, Scale: 0.15, Window: 300, SoftCap: 30},
}

func (r *run) attend() {
	for i, a := range attentions {
		for _, turned := range []int{a.HeadDim, max(2, a.HeadDim/2)} {
			ra, rb := a, a
			if i%2 == 1 {
				ra.QNorm, rb.QNorm = r.norms(a.HeadDim)
				ra.KNorm, rb.KNorm = r.norms(a.HeadDim)
			}
			for _, lengths := range [][]int{{1}, {5}, {130}, {300}, {4, 1, 37}, {2, 0, 3}} {
				r.attendTo(fmt.Sprintf("%+v, %d turned, sequences of %v", a, turned, lengths), &ra, &rb, turned, lengths)
			}
		}
	}
}

// attendTo runs sequences in two pieces, with three rows that are nobody's, then
// others that go on from somewhere in these, and then these again.
func (r *run) attendTo(what string, a, b *engine.Attention, turned int, lengths []int) {
	inv := make([]float32, turned/2)
	for i := range inv {
		inv[i] = float32(math.Pow(100, -float64(i)/float64(len(inv))))
	}
	out := r.proj(tensor.BF16, 3, a.Heads*a.HeadDim, 0, 3, false)
	sa, sb := make([]engine.Sequence, len(lengths)), make([]engine.Sequence, len(lengths))
	for i := range lengths {
		sa[i] = engine.Sequence{Cache: r.a.AttentionCache(a, out.a, nil), Rotary: &engine.Rotary{Inv: inv, Scale: 1}}
		sb[i] = engine.Sequence{Cache: r.b.AttentionCache(b, out.b, nil), Rotary: &engine.Rotary{Inv: inv, Scale: 1}}
	}
	run := func(what string, sa, sb []engine.Sequence, part func(n int) int) {
		rows := 3
		for i, n := range lengths {
			sa[i].Tokens, sb[i].Tokens = part(n), part(n)
			rows += part(n)
		}
		q, k, v := r.matrix(rows, a.Heads*a.HeadDim), r.matrix(rows, a.KVHeads*a.HeadDim), r.matrix(rows, a.KVHeads*a.HeadDim)
		qa, qb := r.both(q)
		ka, kb := r.both(k)
		va, vb := r.both(v)
		r.a.Attend(qa, ka, va, sa, a)
		r.b.Attend(qb, kb, vb, sb, b)
		bound := r.attentionBound(a, max(310, rows))
		r.compare(what, qa, qb, func(_, _ int, _ float64) float64 { return bound })
	}
	for piece := range 2 {
		run(what, sa, sb, func(n int) int { return (n + piece) / 2 }) // the halves of n
	}
	for i, n := range lengths {
		if got, want := sa[i].Cache.Bytes(), r.Engine.AttentionBytes(a, tensor.BF16, n); got != want {
			r.Errorf("%s: a Cache of %d tokens takes %d bytes, AttentionBytes says %d", what, n, got, want)
		}
	}
	fa, fb := slices.Clone(sa), slices.Clone(sb)
	for i, n := range lengths {
		fa[i].Cache, fb[i].Cache = sa[i].Cache.Fork(n*3/4, nil), sb[i].Cache.Fork(n*3/4, nil)
	}
	few := func(n int) int { return 1 + n%4 }
	run(what+", forked", fa, fb, few)
	run(what+", after the fork", sa, sb, few)
	for i, n := range lengths {
		if got, fork := sa[i].Cache.Len(), fa[i].Cache.Len(); got != n+few(n) || fork != n*3/4+few(n) {
			r.Fatalf("%s: Caches of %d and %d tokens have %d and %d", what, n+few(n), n*3/4+few(n), got, fork)
		}
	}
}

// attentionBound: a score of width d is off by d+4 roundings of Σ|q·k|, which a
// normal distribution keeps below 5·√d·d^½ = 5d for norms of 1 (the norm's weights
// may be 4 each), and by what its operands are rounded by; so is its exponential,
// relatively, and the sums over the keys; the values, below 6, are rounded too.
func (r *run) attentionBound(a *engine.Attention, keys int) float64 {
	size := 5 * float64(a.HeadDim) * float64(a.Scale)
	if a.QNorm != nil {
		size *= 16
	}
	score := size * (float64(a.HeadDim+8)*eps + 2*r.Attention)
	weight := 2*score + float64(keys)*eps + 0x1p-20 + 2*r.Attention
	return 6 * weight
}

func (r *run) delta() {
	sa, ok := r.a.(engine.Delta)
	sb := r.b.(engine.Delta)
	if !ok {
		r.Skip("the engine has no Gated DeltaNet")
	}
	d := engine.DeltaNet{KeyHeads: 2, ValueHeads: 4, KeyDim: 8, ValueDim: 6, Taps: 4}
	conv := make([][]float32, d.Taps)
	for i := range conv {
		conv[i] = r.matrix(1, d.Channels()).Data
	}
	rate, bias := make([]float32, d.ValueHeads), r.matrix(1, d.ValueHeads).Data
	for i := range rate {
		rate[i] = float32(0.5 + r.uniform())
	}
	of := func(e engine.Engine, n *engine.Norm) *engine.DeltaNet {
		own := d
		for _, w := range conv {
			own.Conv = append(own.Conv, e.NewVec(w))
		}
		own.Rate, own.Bias, own.Norm = e.NewVec(rate), e.NewVec(bias), n
		return &own
	}
	na, nb := r.norms(d.ValueDim)
	da, db := of(r.Engine, na), of(r.Reference, nb)
	for _, lengths := range [][]int{{1}, {9}, {200}, {5, 2, 70}} {
		qa, qb := make([]engine.Sequence, len(lengths)), make([]engine.Sequence, len(lengths))
		for i := range lengths {
			qa[i].Cache, qb[i].Cache = sa.DeltaCache(da, nil), sb.DeltaCache(db, nil)
		}
		for piece := range 2 {
			rows := 2
			for i, n := range lengths {
				part := (n + piece) / 2
				qa[i].Tokens, qb[i].Tokens = part, part
				rows += part
			}
			za, zb := r.both(r.matrix(rows, d.ValueWidth()))
			xa, xb := r.both(r.matrix(rows, d.Channels()))
			ba, bb := r.both(r.matrix(rows, d.ValueHeads))
			ga, gb := r.both(r.matrix(rows, d.ValueHeads))
			sa.Delta(za, xa, ba, ga, qa, da)
			sb.Delta(zb, xb, bb, gb, qb, db)
			// The norm of a head makes its size 1; a chunk of the recurrence is some
			// hundreds of roundings, and a head that nearly cancels is scaled up.
			r.compare(fmt.Sprintf("sequences of %v", lengths), za, zb, func(_, _ int, want float64) float64 { return 2e-4 * (1 + math.Abs(want)) })
		}
	}
}
