package cpu

import (
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// keyValues is the Cache of attention.
type keyValues struct{ *kernel.KeyValues }

func (k keyValues) Bytes() int64 { return int64(k.KeyValues.Bytes()) }

func (k keyValues) Fork(n int, old engine.Cache) engine.Cache {
	to, ok := old.(keyValues)
	if !ok {
		to = keyValues{new(kernel.KeyValues)}
	}
	to.CopyFrom(k.KeyValues, n)
	return to
}

// AttentionCache implements engine.Stream. Keys and values are bfloat16 where
// the output's product rounds.
func (s *stream) AttentionCache(a *engine.Attention, out engine.Proj, old engine.Cache) engine.Cache {
	round := s.rounds(out)
	if kv, ok := old.(keyValues); ok && kv.Holds(a.KVHeads, a.HeadDim, round) {
		kv.Reset()
		return kv
	}
	return keyValues{kernel.NewKeyValues(a.KVHeads, a.HeadDim, round)}
}

// AttentionBytes implements engine.Engine.
func (e *Engine) AttentionBytes(a *engine.Attention, out tensor.DType, tokens int) int64 {
	return int64(kernel.NewKeyValues(a.KVHeads, a.HeadDim, e.Rounds(out)).BytesOf(tokens))
}

// Attend implements engine.Stream.
func (s *stream) Attend(q, k, v engine.Mat, seqs []engine.Sequence, a *engine.Attention) {
	heads := &attention{Attention: a, kernel: kernel.Attention{
		Heads: a.Heads, KVHeads: a.KVHeads, HeadDim: a.HeadDim,
		Scale: a.Scale, Window: a.Window, SoftCap: a.SoftCap,
	}}
	queries, keys, vals := host(q), host(k), host(v)
	starts := startsOf(seqs)
	for _, seq := range seqs {
		seq.Rotary.Grow(seq.Cache.Len() + seq.Tokens)
	}
	parallel.For(len(seqs), 1, func(first, last int) {
		for i := first; i < last; i++ {
			lo, hi := starts[i], starts[i+1]
			heads.attend(&seqs[i], queries.Slice(lo, hi), keys.Slice(lo, hi), vals.Slice(lo, hi))
		}
	})
	clear(queries.Slice(starts[len(seqs)], queries.Rows).Data)
}

// startsOf returns the first row of each sequence, and that after the last.
func startsOf(seqs []engine.Sequence) []int {
	starts := make([]int, len(seqs)+1)
	for i, seq := range seqs {
		starts[i+1] = starts[i] + seq.Tokens
	}
	return starts
}

type attention struct {
	*engine.Attention
	kernel kernel.Attention
}

// attend lets the tokens of one sequence attend to each other and to those before
// them. The results replace the queries.
func (a *attention) attend(seq *engine.Sequence, q, k, v tensor.Matrix) {
	kv := seq.Cache.(keyValues)
	past := kv.Len()
	eachToken(q.Rows, func(t int) {
		cos, sin := seq.Rotary.At(past + t)
		a.place(q.Row(t), a.Heads, a.QNorm, cos, sin)
		a.place(k.Row(t), a.KVHeads, a.KNorm, cos, sin)
	})
	kv.Append(k.Data, v.Data, k.Rows)
	a.kernel.Run(q.Data, q.Data, kv.KeyValues, k.Rows)
}

// place norms the heads of a row and turns them to their position.
func (a *attention) place(x []float32, heads int, norm *engine.Norm, cos, sin []float32) {
	dim := a.HeadDim
	if norm != nil {
		for i := range heads {
			head := x[i*dim : (i+1)*dim]
			kernel.RMSNorm(head, head, values(norm.W), norm.Eps)
		}
	}
	kernel.Rope(x, cos, sin, heads, dim, 2*len(cos))
}

// FirstHalves implements engine.Stream.
func (s *stream) FirstHalves(dst, x engine.Mat, dim int) {
	to, from := host(dst), host(x)
	eachToken(to.Rows, func(t int) {
		to, from := to.Row(t), from.Row(t)
		for at := 0; at < len(to); at += dim {
			copy(to[at:at+dim], from[2*at:])
		}
	})
}

// GateHalves implements engine.Stream.
func (s *stream) GateHalves(x, gates engine.Mat, dim int) {
	to, by := host(x), host(gates)
	eachToken(to.Rows, func(t int) {
		row, gates := to.Row(t), by.Row(t)
		for at := 0; at < len(row); at += dim {
			kernel.SigmoidMul(row[at:at+dim], gates[2*at+dim:2*at+2*dim])
		}
	})
}
