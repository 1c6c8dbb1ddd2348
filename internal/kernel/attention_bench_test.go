package kernel

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// BenchmarkAttention has LLaMA-2-7B's heads, grouped ones, and Gemma's with a
// cap, for 2048 tokens; the keys are packed in each round. The operations
// counted are those of the visible half.
func BenchmarkAttention(b *testing.B) {
	for _, a := range []Attention{
		{Heads: 32, KVHeads: 32, HeadDim: 128, Scale: 0.088},
		{Heads: 32, KVHeads: 8, HeadDim: 128, Scale: 0.088},
		{Heads: 32, KVHeads: 4, HeadDim: 128, Scale: 0.088},
		{Heads: 32, KVHeads: 8, HeadDim: 64, Scale: 0.125},
		{Heads: 16, KVHeads: 8, HeadDim: 256, Scale: 0.0625, SoftCap: 50},
	} {
		const tokens = 2048
		rng := rand.New(rand.NewPCG(6, 0))
		q, _ := testSource(rng, "f32", tokens*a.Heads*a.HeadDim)
		keys, _ := testSource(rng, "f32", tokens*a.KVHeads*a.HeadDim)
		dst := make([]float32, tokens*a.Heads*a.HeadDim)
		for _, bfloat := range []bool{false, true} {
			name := fmt.Sprintf("%dx%dx%d/%d/bf16=%v", tokens, a.Heads, a.HeadDim, a.KVHeads, bfloat)
			b.Run(name, func(b *testing.B) {
				eachBenchLevel(b, func(b *testing.B) {
					kv := NewKeyValues(a.KVHeads, a.HeadDim, bfloat)
					for b.Loop() {
						kv.Reset()
						kv.Append(keys.F32, keys.F32, tokens)
						a.Run(dst, q.F32, kv, tokens)
					}
					reportFlops(b, 4*float64(a.Heads*a.HeadDim)*tokens*(tokens+1)/2)
				})
			})
		}
	}
}

// BenchmarkDecode is the attention of one token to those before it. Bytes are
// those of keys and values.
func BenchmarkDecode(b *testing.B) {
	for _, a := range []Attention{
		{Heads: 32, KVHeads: 32, HeadDim: 128, Scale: 0.088},
		{Heads: 32, KVHeads: 8, HeadDim: 64, Scale: 0.125},
	} {
		const tokens = 2048
		rng := rand.New(rand.NewPCG(6, 0))
		q, _ := testSource(rng, "f32", a.Heads*a.HeadDim)
		keys, _ := testSource(rng, "f32", tokens*a.KVHeads*a.HeadDim)
		dst := make([]float32, a.Heads*a.HeadDim)
		for _, bfloat := range []bool{false, true} {
			b.Run(fmt.Sprintf("%dx%dx%d/%d/bf16=%v", tokens, a.Heads, a.HeadDim, a.KVHeads, bfloat), func(b *testing.B) {
				kv := NewKeyValues(a.KVHeads, a.HeadDim, bfloat)
				kv.Append(keys.F32, keys.F32, tokens)
				b.SetBytes(int64(kv.Bytes()))
				for b.Loop() {
					a.Run(dst, q.F32, kv, 1)
				}
			})
		}
	}
}
