package cuda

import (
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
	"github.com/crepe-llm/crepe/tensor"
)

// keyValues is the Cache of attention: a row of keys, and one of values, per token.
type keyValues struct {
	device  *Device
	width   int // of a row
	rounded bool
	tokens  int
	room    int     // tokens that the buffers have room for
	k, v    *buffer // nil without room
}

func (c *keyValues) Len() int { return c.tokens }
func (c *keyValues) Reset()   { c.tokens = 0 }

func (c *keyValues) Bytes() int64 { return 2 * int64(c.room) * c.rowBytes() }

func (c *keyValues) rowBytes() int64 {
	if c.rounded {
		return 2 * int64(c.width)
	}
	return 4 * int64(c.width)
}

// grow makes room for n tokens.
func (c *keyValues) grow(n int) {
	if n <= c.room {
		return
	}
	room := roomForTokens(n)
	k, v := c.device.buffer(int64(room)*c.rowBytes()), c.device.buffer(int64(room)*c.rowBytes())
	if c.tokens > 0 {
		c.device.Move(k.at, c.k.at, int64(c.tokens)*c.rowBytes())
		c.device.Move(v.at, c.v.at, int64(c.tokens)*c.rowBytes())
	}
	c.k, c.v, c.room = k, v, room
}

// roomForTokens returns what a cache that holds n tokens has room for: 256, or 2 or 3 times
// a power of 2, so that what is moved as it grows is in proportion to what it holds.
func roomForTokens(n int) int {
	if n == 0 {
		return 0
	}
	room := 256
	for ; room < n; room *= 2 {
		if more := room + room/2; more >= n {
			return more
		}
	}
	return room
}

// AttentionBytes implements engine.Engine.
func (e *Engine) AttentionBytes(a *engine.Attention, out tensor.DType, tokens int) int64 {
	c := keyValues{width: a.KVHeads * a.HeadDim, rounded: e.Rounds(out), room: roomForTokens(tokens)}
	return c.Bytes()
}

func (c *keyValues) Fork(n int, old engine.Cache) engine.Cache {
	if n > c.tokens {
		panic(fmt.Sprintf("cuda: Fork: %d tokens of %d", n, c.tokens))
	}
	to, ok := old.(*keyValues)
	if !ok || to.width != c.width || to.rounded != c.rounded {
		to = &keyValues{device: c.device, width: c.width, rounded: c.rounded}
	}
	to.tokens = 0
	if n > 0 {
		to.grow(n)
		c.device.Move(to.k.at, c.k.at, int64(n)*c.rowBytes())
		c.device.Move(to.v.at, c.v.at, int64(n)*c.rowBytes())
	}
	to.tokens = n
	return to
}

// AttentionCache implements engine.Stream. Keys and values are bfloat16 where the
// output's product rounds.
func (s *stream) AttentionCache(a *engine.Attention, out engine.Proj, old engine.Cache) engine.Cache {
	width, rounded := a.KVHeads*a.HeadDim, s.rounds(out)
	if c, ok := old.(*keyValues); ok && c.width == width && c.rounded == rounded {
		c.Reset()
		return c
	}
	return &keyValues{device: s.engine.Device, width: width, rounded: rounded}
}

// table is a Rotary's cosines and sines in the device's memory.
type table struct {
	cos, sin  *buffer
	positions int
}

// rotary returns the table of r for n positions.
func (s *stream) rotary(r *engine.Rotary, n int) *table {
	t := s.tables[r]
	if t != nil && t.positions >= n {
		return t
	}
	const chunk, most = 512, 64
	n = (n + chunk - 1) / chunk * chunk
	r.Grow(n)
	half := len(r.Inv)
	cos, sin := make([]float32, 0, n*half), make([]float32, 0, n*half)
	for pos := range n {
		c, s := r.At(pos)
		cos, sin = append(cos, c...), append(sin, s...)
	}
	t = &table{s.engine.buffer(4 * int64(len(cos))), s.engine.buffer(4 * int64(len(sin))), n}
	s.engine.Device.Upload(s.engine.Main, t.cos.at, bytesOf(cos))
	s.engine.Device.Upload(s.engine.Main, t.sin.at, bytesOf(sin))
	if len(s.tables) >= most {
		clear(s.tables) // of sequences that have passed
	}
	s.tables[r] = t
	return t
}

// tileKeys are the keys that a tile of attend_W holds, by the width of a head.
var tileKeys = map[int]int{16: 64, 64: 64, 80: 64, 96: 64, 128: 64, 256: 32}

// tileMemory returns the shared memory of attend_W: two tiles of keys and of values, and
// of wide heads the queries.
func tileMemory(dim int) int {
	rows := 4 * tileKeys[dim]
	if dim > 128 {
		rows += 128
	}
	return 2 * rows * (dim + 8)
}

// fewQueries is how many queries of a sequence tiles are not worth.
const fewQueries = 16

// Attend implements engine.Stream.
func (s *stream) Attend(q, k, v engine.Mat, seqs []engine.Sequence, a *engine.Attention) {
	row := 0
	for i := range seqs {
		n := seqs[i].Tokens
		if n > 0 {
			s.attend(q.Slice(row, row+n), k.Slice(row, row+n), v.Slice(row, row+n), &seqs[i], a)
		}
		row += n
	}
	rest := q.Slice(row, q.Rows)
	s.engine.Zero(at(rest), 4*size(rest))
}

func (s *stream) attend(q, k, v engine.Mat, seq *engine.Sequence, a *engine.Attention) {
	defer s.Release(s.Mark())
	c := seq.Cache.(*keyValues)
	past, n := c.tokens, seq.Tokens
	c.grow(past + n)
	t := s.rotary(seq.Rotary, past+n)
	half := len(seq.Rotary.Inv)
	next := driver.Pointer(int64(past) * c.rowBytes())
	s.place(c.k.at+next, k, a.KVHeads, a, a.KNorm, t, half, past, c.rounded)
	s.place(c.v.at+next, v, a.KVHeads, a, nil, t, 0, past, c.rounded)
	c.tokens += n
	if keys := tileKeys[a.HeadDim]; c.rounded && keys > 0 && n >= fewQueries {
		queries := s.take(2 * size(q))
		s.place(queries, q, a.Heads, a, a.QNorm, t, half, past, true)
		s.engine.Launch(fmt.Sprintf("attend_%d", a.HeadDim), [3]int{(n + 127) / 128, a.Heads, 1}, [3]int{256, 1, 1}, tileMemory(a.HeadDim),
			at(q), queries, c.k.at, c.v.at, past, n, a.Heads, a.KVHeads, a.Scale, a.Window, a.SoftCap)
		return
	}
	s.place(at(q), q, a.Heads, a, a.QNorm, t, half, past, false)
	s.engine.Launch("attend_any", [3]int{n, a.Heads, 1}, [3]int{128, 1, 1}, 4*a.HeadDim,
		at(q), c.k.at, c.v.at, past, a.Heads, a.KVHeads, a.HeadDim, a.Scale, a.Window, a.SoftCap, c.rounded)
}

// maxHeadDim is the widest head that attend_any takes.
const maxHeadDim = 512

// place norms heads of x, turns them and writes them to dst.
func (s *stream) place(dst driver.Pointer, x engine.Mat, heads int, a *engine.Attention, norm *engine.Norm, t *table, half, pos int, rounded bool) {
	if a.HeadDim > maxHeadDim {
		panic(&engine.Failure{Err: fmt.Errorf("engine %s: heads of %d elements, want at most %d", s.engine.ID(), a.HeadDim, maxHeadDim)})
	}
	var w driver.Pointer
	eps := float32(0)
	if norm != nil {
		w, eps = vecAt(norm.W, 0), norm.Eps
	}
	const warps = 8
	s.engine.Launch("place", [3]int{x.Rows, (heads + warps - 1) / warps, 1}, [3]int{32 * warps, 1, 1}, 0,
		dst, int64(heads*a.HeadDim), at(x), heads, a.HeadDim, w, eps, t.cos.at, t.sin.at, half, pos, rounded)
}

// recurrence is the Cache of a Gated DeltaNet: the last inputs of the convolution and the
// state, value heads × key dim × value dim.
type recurrence struct {
	device        *Device
	inputs, state *buffer
	tokens        int
}

func (c *recurrence) Len() int     { return c.tokens }
func (c *recurrence) Bytes() int64 { return c.inputs.n + c.state.n }

func (c *recurrence) Reset() {
	c.tokens = 0
	c.device.Zero(c.inputs.at, c.inputs.n)
	c.device.Zero(c.state.at, c.state.n)
}

func (c *recurrence) Fork(n int, old engine.Cache) engine.Cache {
	if n != c.tokens {
		panic(fmt.Sprintf("cuda: Fork: %d tokens of a recurrence's %d, want all", n, c.tokens))
	}
	to, ok := old.(*recurrence)
	if !ok || to.inputs.n != c.inputs.n || to.state.n != c.state.n {
		to = &recurrence{device: c.device, inputs: c.device.buffer(c.inputs.n), state: c.device.buffer(c.state.n)}
	}
	c.device.Move(to.inputs.at, c.inputs.at, c.inputs.n)
	c.device.Move(to.state.at, c.state.at, c.state.n)
	to.tokens = c.tokens
	return to
}

// DeltaCache implements engine.Delta.
func (s *stream) DeltaCache(d *engine.DeltaNet, old engine.Cache) engine.Cache {
	inputs, state := 4*int64((d.Taps-1)*d.Channels()), 4*int64(d.ValueHeads*d.KeyDim*d.ValueDim)
	c, ok := old.(*recurrence)
	if !ok || c.inputs.n != inputs || c.state.n != state {
		c = &recurrence{device: s.engine.Device, inputs: s.engine.buffer(inputs), state: s.engine.buffer(state)}
	}
	c.Reset()
	return c
}

// scanDims are the widths of keys that delta_scan_W is made for.
var scanDims = []int{64, 128, 256}

const maxTaps = 8

// Delta implements engine.Delta.
func (s *stream) Delta(z, qkv, beta, decay engine.Mat, seqs []engine.Sequence, d *engine.DeltaNet) {
	i := slices.IndexFunc(scanDims, func(w int) bool { return w >= d.KeyDim })
	if i < 0 || d.Taps > maxTaps {
		panic(&engine.Failure{Err: fmt.Errorf("engine %s: Gated DeltaNet with keys of %d elements and %d taps, want at most %d and %d",
			s.engine.ID(), d.KeyDim, d.Taps, scanDims[len(scanDims)-1], maxTaps)})
	}
	row := 0
	for _, seq := range seqs {
		n := seq.Tokens
		if n > 0 {
			s.delta(z.Slice(row, row+n), qkv.Slice(row, row+n), beta.Slice(row, row+n), decay.Slice(row, row+n), seq.Cache.(*recurrence), d, scanDims[i])
		}
		row += n
	}
	rest := z.Slice(row, z.Rows)
	s.engine.Zero(at(rest), 4*size(rest))
}

func (s *stream) delta(z, qkv, beta, decay engine.Mat, c *recurrence, d *engine.DeltaNet, width int) {
	defer s.Release(s.Mark())
	const warps = 8
	n, channels := qkv.Rows, d.Channels()
	x, out := s.Alloc(n, channels), s.Alloc(n, d.ValueWidth())
	args := []any{at(x), at(qkv), c.inputs.at}
	for i := range maxTaps {
		w := driver.Pointer(0)
		if i < d.Taps {
			w = vecAt(d.Conv[i], 0)
		}
		args = append(args, w)
	}
	s.each("delta_convolve", size(x), 1, append(args, d.Taps, channels, size(x))...)
	if keep := d.Taps - 1; keep > 0 {
		inputs := s.take(c.inputs.n)
		s.each("delta_keep", int64(keep*channels), 1, inputs, at(qkv), c.inputs.at, keep, n, channels)
		s.engine.Move(c.inputs.at, inputs, c.inputs.n)
	}
	s.engine.Launch("delta_unit", [3]int{n, (2*d.KeyHeads + warps - 1) / warps, 1}, [3]int{32 * warps, 1, 1}, 0, at(x), d.KeyHeads, d.KeyDim, channels)
	s.engine.Launch(fmt.Sprintf("delta_scan_%d", width), [3]int{(d.ValueDim + 31) / 32, d.ValueHeads, 1}, [3]int{128, 1, 1}, 0,
		at(out), c.state.at, at(x), at(beta), at(decay), vecAt(d.Rate, 0), vecAt(d.Bias, 0), n, d.KeyHeads, d.ValueHeads, d.KeyDim, d.ValueDim)
	heads := n * d.ValueHeads
	s.rows("delta_gate", (heads+warps-1)/warps, 32*warps, at(z), at(out), vecAt(d.Norm.W, 0), d.Norm.Eps, d.ValueDim, heads)
	c.tokens += n
}
