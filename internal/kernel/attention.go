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

// taskElements bounds the elements of the queries of a task, and so of its
// results: with a chunk of keys and values they fit the second-level cache.
const taskElements = 48 << 10

// Run is, for each of the last tokens of kv's, t at position p =
// kv.Len()−tokens+t, and each head h,
//
//	s[j]   = Scale·Σ_i q[t,h,i]·k[j,h′,i],  capped if SoftCap is set
//	dst[t] = Σ_j softmax(s)[j]·v[j,h′]      for max(0, p−Window+1) ≤ j ≤ p
//
// q and dst are tokens × Heads·HeadDim; dst may be q, else it must not overlap it.
//
// If kv holds float32, all arithmetic is, the softmax by a running maximum and
// sum over chunks of keys; each exponential has a relative error of at most
// expError and the cap's tanh an absolute one of 2⁻²². If it holds bfloat16,
// q and the exponentials are rounded to it before they are multiplied, each off
// by 2⁻⁸ of itself, and the exponentials err by another 2⁻¹³; sums are float32.
// The order of additions is unspecified, but it does not depend on GOMAXPROCS.
// Keys that a query does not see have weight 0, so an Inf or NaN in their values
// may still make it NaN.
func (a Attention) Run(dst, q []float32, kv *KeyValues, tokens int) {
	a.check(dst, q, kv, tokens)
	if tokens == 0 {
		return
	}
	group := a.Heads / a.KVHeads
	rows := max(taskElements/a.HeadDim, kv.tile.rows)
	step := max(1, min(rows, rowsBound)/group) // tokens of a task
	tiles := ceil(tokens, step)
	parallel.For(tiles*a.KVHeads, 1, func(lo, hi int) {
		w := attentionWorkers.Get().(*attentionWorker)
		defer attentionWorkers.Put(w)
		for task := lo; task < hi; task++ {
			// The last queries see the most keys: they go first.
			t0 := (tiles - 1 - task/a.KVHeads) * step
			w.run(attentionTask{
				Attention: a, dst: dst, q: q, kv: kv,
				offset: kv.tokens - tokens,
				t0:     t0, t1: min(t0+step, tokens),
				kvHead: task % a.KVHeads, group: group,
			})
		}
	})
}

// rowsBound bounds the rows of a task where heads are narrow, so that there are
// tasks enough.
const rowsBound = 768

func (a Attention) check(dst, q []float32, kv *KeyValues, tokens int) {
	if a.KVHeads < 1 || a.Heads < 1 || a.HeadDim < 1 || a.Heads%a.KVHeads != 0 || a.Window < 0 || !(a.Scale > 0) {
		panic(fmt.Sprintf("kernel: Attention: %+v, want positive sizes and scale, Heads a multiple of KVHeads", a))
	}
	if kv.heads != a.KVHeads || kv.dim != a.HeadDim {
		panic(fmt.Sprintf("kernel: Attention: %d key heads of %d, want %d of %d", kv.heads, kv.dim, a.KVHeads, a.HeadDim))
	}
	if tokens < 0 || kv.tokens < tokens {
		panic(fmt.Sprintf("kernel: Attention: %d tokens, %d keys, want at least as many keys", tokens, kv.tokens))
	}
	if want := tokens * a.Heads * a.HeadDim; len(q) < want || len(dst) < want {
		panic(fmt.Sprintf("kernel: Attention: len(q) = %d, len(dst) = %d, want %d", len(q), len(dst), want))
	}
}

// attentionTask is the attention of tokens t0 to t1-1 in the heads of kvHead.
// Its rows are the heads of a token, token after token.
type attentionTask struct {
	Attention
	dst, q []float32
	kv     *KeyValues
	offset int // position of token 0
	t0, t1 int
	kvHead int
	group  int // heads of kvHead
}

// sees returns the keys that row r sees, as a range.
func (a *attentionTask) sees(r int) (lo, hi int) {
	hi = a.offset + a.t0 + r/a.group + 1
	if a.Window > 0 {
		lo = max(0, hi-a.Window)
	}
	return lo, hi
}

// row returns the place of row r in x, which is dst or q.
func (a *attentionTask) row(x []float32, r int) []float32 {
	h := a.kvHead*a.group + r%a.group
	return x[((a.t0+r/a.group)*a.Heads+h)*a.HeadDim:][:a.HeadDim]
}

// attentionWorker holds one worker's buffers. Its rows are a task's, filled up
// to whole micro-tiles.
type attentionWorker struct {
	tile     *tile
	q        []float32 // as the micro-kernel reads them, see queryAt
	out      []float32 // rows × width: sums of weighted values so far
	width    int       // HeadDim, up to whole panels
	max, sum []float32 // [rows] running, of scaled scores and their exponentials
	score    [maxTileRows * blockK]float32
	weight   [maxTileRows * blockK]float32 // where they are narrower than scores
}

var attentionWorkers = sync.Pool{New: func() any { return new(attentionWorker) }}

func (w *attentionWorker) run(a attentionTask) {
	rows := (a.t1 - a.t0) * a.group
	w.start(&a, rows)
	first, _ := a.sees(0)
	_, end := a.sees(rows - 1)
	for chunk := first / keyTile; chunk*keyTile < end; chunk++ {
		keys, values := a.kv.head(chunk, a.kvHead)
		for r := 0; r < rows; r += w.tile.rows {
			w.advance(&a, keys, values, r, min(r+w.tile.rows, rows), chunk*keyTile, min((chunk+1)*keyTile, end))
		}
	}
	for r := range rows {
		scaleTo(a.row(a.dst, r), w.out[r*w.width:][:a.HeadDim], 1/w.sum[r])
	}
}

// start makes room for a task and packs its queries.
func (w *attentionWorker) start(a *attentionTask, rows int) {
	w.tile = a.kv.tile
	t := w.tile
	padded := roundUp(rows, t.rows)
	w.width = roundUp(a.HeadDim, t.cols)
	w.out = grow(w.out, padded*w.width)
	w.max, w.sum = grow(w.max, padded), grow(w.sum, padded)
	for r := range rows {
		w.max[r], w.sum[r] = float32(math.Inf(-1)), 0
	}
	units := t.units(a.HeadDim)
	w.q = grow(w.q, w.queryAt(padded-t.rows, units-1, units)+t.rows*blockK)
	for r := range rows {
		row := a.row(a.q, r)
		for u := 0; u < units; u += blockK {
			n := min(blockK, units-u)
			to := w.q[w.queryAt(r, u, units):][:n]
			if t.perUnit == 1 {
				copy(to, row[u:])
				continue
			}
			part := row[2*u : min(2*(u+n), len(row))]
			to[n-1] = 0 // of an odd width, half a unit stays
			NarrowBF16(halves(to)[:len(part)], part)
		}
	}
}

// queryAt returns the place of unit u, of units, of row r. The micro-kernel
// wants the rows of a micro-tile blockK units apart: narrow tiles lie side by
// side there, of wide ones each blockK units by themselves.
func (w *attentionWorker) queryAt(r, u, units int) int {
	tile, in := r/w.tile.rows, r%w.tile.rows
	block := w.tile.rows * blockK
	if units > blockK {
		parts := ceil(units, blockK)
		return (tile*parts+u/blockK)*block + in*blockK + u%blockK
	}
	beside := blockK / units
	return tile/beside*block + in*blockK + tile%beside*units + u
}

// grow returns a slice of n elements, s if it is large enough.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// advance adds what keys j0 to j1-1, of one chunk, contribute to rows r0 to
// r1-1, at most a micro-tile of them.
func (w *attentionWorker) advance(a *attentionTask, keys, values []float32, r0, r1, j0, j1 int) {
	first, _ := a.sees(r0)
	_, end := a.sees(r1 - 1)
	if first >= j1 || end <= j0 {
		return
	}
	t, units := w.tile, w.tile.units(a.HeadDim)
	visible := min(end, j1) - j0
	from := max(first-j0, 0) / t.cols * t.cols
	mul := t.mul
	if r1-r0 <= t.fewRows {
		mul = t.few
	}
	for j := from; j < visible; j += t.cols {
		for u := 0; u < units; u += blockK {
			x, to := &w.q[w.queryAt(r0, u, units)], &w.score[j]
			mul(to, blockK, begunAt(to, u > 0), blockK, x, &keys[j*units+u*t.cols], min(blockK, units-u), x)
		}
	}
	weight := &w.score
	if t.perUnit == 2 {
		weight = &w.weight
	}
	for r := r0; r < r1; r++ {
		lo, hi := a.sees(r)
		w.softmax(a, r, (r-r0)*blockK, softmaxRange{
			from: from, lo: max(lo-j0, from), hi: min(hi-j0, visible), end: visible,
		})
	}
	// Before their first chunk no row has a result to add to.
	begun, u := first < j0, from/t.perUnit
	for c := 0; c < a.HeadDim; c += t.cols {
		x, to := &weight[u], &w.out[r0*w.width+c]
		mul(to, w.width, begunAt(to, begun), w.width, x, &values[c*t.units(keyTile)+u*t.cols], t.units(visible)-u, x)
	}
}

// begunAt returns what tile.mul takes as from to add to what is at to, if begun.
func begunAt(to *float32, begun bool) *float32 {
	if begun {
		return to
	}
	return nil
}

// softmaxRange says what of a row's scores counts: lo to hi-1 of from to end-1.
type softmaxRange struct{ from, lo, hi, end int }

// softmax turns the scores of row r, from at on, into weights: exponentials
// relative to the running maximum, 0 for what the row does not see. It scales
// what the row has so far to match.
func (w *attentionWorker) softmax(a *attentionTask, r, at int, in softmaxRange) {
	s := w.score[at:][:keyTile]
	lo, hi := in.lo, max(in.hi, in.lo)
	scale := a.Scale
	if a.SoftCap > 0 && lo < hi {
		capRow(s[lo:hi], a.Scale, a.SoftCap)
		scale = 1
	}
	// Whole vectors: a score of −Inf has the exponential 0.
	if lanes := w.tile.lanes; lanes > 0 && lo < hi {
		lo, hi = lo/lanes*lanes, roundUp(hi, lanes)
		fill(s[lo:in.lo], float32(math.Inf(-1)))
		fill(s[in.hi:hi], float32(math.Inf(-1)))
	}
	s = s[lo:hi]
	weights := w.score[at:]
	if w.tile.perUnit == 2 {
		weights = w.weight[at:]
	}
	w.hide(weights, in.from, min(lo, in.end))
	w.hide(weights, hi, in.end)
	if len(s) == 0 {
		return
	}
	was := w.max[r]
	top := max(was, scale*maxRow(s))
	var sum float32
	if w.tile.perUnit == 2 {
		sum = expBF16(halves(weights)[lo:hi], s, scale, top)
	} else {
		sum = expRow(s, scale, top)
	}
	if top != was && w.sum[r] != 0 {
		shrink := float32(math.Exp(float64(was) - float64(top)))
		out := w.out[r*w.width:][:a.HeadDim]
		scaleTo(out, out, shrink)
		w.sum[r] *= shrink
	}
	w.max[r] = top
	w.sum[r] += sum
}

// hide sets the weights lo to hi-1 to 0, and what fills up their last unit.
func (w *attentionWorker) hide(weights []float32, lo, hi int) {
	if lo >= hi {
		return
	}
	if w.tile.perUnit == 2 {
		clear(halves(weights)[lo:roundUp(hi, 2)])
		return
	}
	clear(weights[lo:hi])
}

func fill(s []float32, v float32) {
	for i := range s {
		s[i] = v
	}
}
