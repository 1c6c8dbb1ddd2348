package kernel

import (
	"fmt"
	"math"
	"sync"

	"github.com/crepe-llm/crepe/internal/parallel"
)

// Attention is causal attention of Heads query heads over KVHeads key and
// value heads; query head h reads key and value head h / (Heads/KVHeads).
type Attention struct {
	Heads, KVHeads, HeadDim int
	Scale                   float32 // of the scores, usually 1/√HeadDim; positive
	Window                  int     // keys a query sees, itself included; 0 for all
	SoftCap                 float32 // scores become SoftCap·tanh(score/SoftCap); 0 for none
}

// A task is the queries of queryTile tokens in the heads that share one key
// head; it goes through their keys keyTile at a time, so that memory does not
// grow with the number of keys. Both are small enough for the second-level
// cache to hold the packed keys and values.
const (
	queryTile = 192
	keyTile   = 256 // at most blockK: the scores of a micro-tile are the next product's x
)

// Run is, for each token t at position p = keys−tokens+t and each head h,
//
//	s[j]   = Scale·Σ_i q[t,h,i]·k[j,h′,i],  capped if SoftCap is set
//	dst[t] = Σ_j softmax(s)[j]·v[j,h′]      for max(0, p−Window+1) ≤ j ≤ p
//
// q and dst are tokens × Heads·HeadDim; k and v are keys × KVHeads·HeadDim,
// keys ≥ tokens. dst must overlap none of them.
//
// All arithmetic is float32, the softmax by a running maximum and sum over
// tiles of keys; each exponential has a relative error of at most expError and
// the cap's tanh an absolute one of 2⁻²². The order of additions is
// unspecified, but it does not depend on GOMAXPROCS. Keys that a query does not
// see have weight 0, so an Inf or NaN in their values may still make it NaN.
func (a Attention) Run(dst, q, k, v []float32, tokens, keys int) {
	a.check(dst, q, k, v, tokens, keys)
	if tokens == 0 {
		return
	}
	tiles := (tokens + queryTile - 1) / queryTile
	parallel.For(tiles*a.KVHeads, 1, func(lo, hi int) {
		w := attentionWorkers.Get().(*attentionWorker)
		defer attentionWorkers.Put(w)
		for task := lo; task < hi; task++ {
			// The last queries see the most keys: they go first.
			t0 := (tiles - 1 - task/a.KVHeads) * queryTile
			w.run(attentionTask{
				Attention: a, dst: dst, q: q, k: k, v: v,
				offset: keys - tokens,
				t0:     t0, t1: min(t0+queryTile, tokens),
				kvHead: task % a.KVHeads,
			})
		}
	})
}

func (a Attention) check(dst, q, k, v []float32, tokens, keys int) {
	if a.KVHeads < 1 || a.Heads < 1 || a.HeadDim < 1 || a.Heads%a.KVHeads != 0 || a.Window < 0 || !(a.Scale > 0) {
		panic(fmt.Sprintf("kernel: Attention: %+v, want positive sizes and scale, Heads a multiple of KVHeads", a))
	}
	if tokens < 0 || keys < tokens {
		panic(fmt.Sprintf("kernel: Attention: %d tokens, %d keys, want at least as many keys", tokens, keys))
	}
	need := func(name string, got, want int) {
		if got < want {
			panic(fmt.Sprintf("kernel: Attention: len(%s) = %d, want %d", name, got, want))
		}
	}
	need("dst", len(dst), tokens*a.Heads*a.HeadDim)
	need("q", len(q), tokens*a.Heads*a.HeadDim)
	need("k", len(k), keys*a.KVHeads*a.HeadDim)
	need("v", len(v), keys*a.KVHeads*a.HeadDim)
}

// attentionTask is the attention of tokens t0 to t1-1 in the heads of kvHead.
type attentionTask struct {
	Attention
	dst, q, k, v []float32
	offset       int // position of token 0
	t0, t1       int
	kvHead       int
}

// sees returns the keys that token t sees, as a range.
func (a *attentionTask) sees(t int) (lo, hi int) {
	hi = a.offset + t + 1
	if a.Window > 0 {
		lo = max(0, hi-a.Window)
	}
	return lo, hi
}

// attentionWorker holds one worker's buffers.
type attentionWorker struct {
	tile     *tile
	keys     []float32 // packed, HeadDim × keyTile, one blockK of HeadDim after another
	values   []float32 // packed, keyTile × HeadDim
	max, sum []float32 // running, [heads of the group][queryTile]
	x        [maxTileRows * blockK]float32
	score    [maxTileRows * blockK]float32
	tmp      [maxTileRows * maxTileCols]float32
}

var attentionWorkers = sync.Pool{New: func() any { return new(attentionWorker) }}

func (w *attentionWorker) run(a attentionTask) {
	w.tile = floatTile()
	group := a.Heads / a.KVHeads
	w.keys = grow(w.keys, a.HeadDim*roundUp(keyTile, w.tile.cols))
	w.values = grow(w.values, keyTile*roundUp(a.HeadDim, w.tile.cols))
	w.max = grow(w.max, group*queryTile)
	w.sum = grow(w.sum, group*queryTile)
	for i := range w.max {
		w.max[i], w.sum[i] = float32(math.Inf(-1)), 0
	}
	for t := a.t0; t < a.t1; t++ {
		clear(a.dst[(t*a.Heads+a.kvHead*group)*a.HeadDim:][:group*a.HeadDim])
	}
	first, _ := a.sees(a.t0)
	_, end := a.sees(a.t1 - 1)
	for j0 := first; j0 < end; j0 += keyTile {
		j1 := min(j0+keyTile, end)
		w.pack(&a, j0, j1)
		for g := range group {
			for t := a.t0; t < a.t1; t += w.tile.rows {
				w.advance(&a, g, t, min(t+w.tile.rows, a.t1), j0, j1)
			}
		}
	}
	for t := a.t0; t < a.t1; t++ {
		for g := range group {
			h := a.kvHead*group + g
			scaleRow(a.dst[(t*a.Heads+h)*a.HeadDim:][:a.HeadDim], 1/w.sum[g*queryTile+t-a.t0])
		}
	}
}

// grow returns a slice of n elements, s if it is large enough.
func grow(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}

// pack packs keys and values j0 to j1-1.
func (w *attentionWorker) pack(a *attentionTask, j0, j1 int) {
	ld := a.KVHeads * a.HeadDim
	off := j0*ld + a.kvHead*a.HeadDim
	width := roundUp(j1-j0, w.tile.cols)
	for k0 := 0; k0 < a.HeadDim; k0 += blockK {
		depth := min(blockK, a.HeadDim-k0)
		w.tile.packT(w.keys[k0*width:], Source{F32: a.k}, off+k0, ld, j1-j0, depth)
	}
	w.tile.packN(w.values, a.v[off:], ld, j1-j0, a.HeadDim)
}

// advance adds what keys j0 to j1-1 contribute to tokens t0 to t1-1, at most a
// micro-tile of them, of the group's head g.
func (w *attentionWorker) advance(a *attentionTask, g, t0, t1, j0, j1 int) {
	first, _ := a.sees(t0)
	_, end := a.sees(t1 - 1)
	if first >= j1 || end <= j0 {
		return
	}
	h := a.kvHead*(a.Heads/a.KVHeads) + g
	ld := a.Heads * a.HeadDim
	out := a.dst[t0*ld+h*a.HeadDim:]
	visible := min(end, j1) - j0
	width := roundUp(j1-j0, w.tile.cols)
	for k0 := 0; k0 < a.HeadDim; k0 += blockK {
		depth := min(blockK, a.HeadDim-k0)
		w.tile.loadRows(w.x[:], a.q[t0*ld+h*a.HeadDim+k0:], ld, t1-t0, depth, false)
		w.tile.sweep(w.score[:], blockK, sweepInput{
			a: w.x[:], b: w.keys[k0*width:], stride: depth, tmp: w.tmp[:],
			rows: t1 - t0, n: visible, depth: depth, accumulate: k0 > 0,
		})
	}
	for t := t0; t < t1; t++ {
		lo, hi := a.sees(t)
		lo, hi = min(max(lo-j0, 0), visible), min(hi-j0, visible)
		i := g*queryTile + t - a.t0
		w.softmax(a, w.score[(t-t0)*blockK:][:visible], lo, hi, i, out[(t-t0)*ld:][:a.HeadDim])
	}
	w.tile.sweep(out, ld, sweepInput{
		a: w.score[:], b: w.values, stride: j1 - j0, tmp: w.tmp[:],
		rows: t1 - t0, n: a.HeadDim, depth: visible, accumulate: true,
	})
}

// softmax turns the scores s[lo:hi] into exponentials relative to the running
// maximum i, the rest of s into zeros, and scales what out has so far to match.
func (w *attentionWorker) softmax(a *attentionTask, s []float32, lo, hi, i int, out []float32) {
	if hi <= lo {
		clear(s)
		return
	}
	clear(s[:lo])
	clear(s[hi:])
	s = s[lo:hi]
	scale := a.Scale
	if a.SoftCap > 0 {
		capRow(s, a.Scale, a.SoftCap)
		scale = 1
	}
	was := w.max[i]
	top := max(was, scale*maxRow(s))
	sum := expRow(s, scale, top)
	if top != was {
		shrink := float32(math.Exp(float64(was) - float64(top)))
		scaleRow(out, shrink)
		w.sum[i] *= shrink
		w.max[i] = top
	}
	w.sum[i] += sum
}

// capRow is
//
//	s[i] = limit·tanh(scale·s[i]/limit)
//
// by tanh y = 1 − 2/(exp(2y)+1), whose absolute error is at most 2⁻²².
func capRow(s []float32, scale, limit float32) {
	// Beyond ±20 tanh is ±1 in float32; the clamp keeps exp within its domain.
	for i, v := range s {
		s[i] = max(min(v, 20*limit/scale), -20*limit/scale)
	}
	expRow(s, 2*scale/limit, 0)
	for i, e := range s {
		s[i] = limit * (1 - 2/(e+1))
	}
}

func scaleRow(s []float32, f float32) {
	for i := range s {
		s[i] *= f
	}
}
