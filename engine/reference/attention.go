package reference

import (
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// cache keeps a sequence's keys and values, or the inputs of a Gated DeltaNet's
// convolution and its state.
type cache struct {
	k, v   [][]float32 // by token: heads side by side
	inputs [][]float32
	state  [][][]float64 // by value head: KeyDim × ValueDim
	tokens int
}

func (c *cache) Len() int { return c.tokens }

func (c *cache) Bytes() int64 {
	n := 0
	for _, rows := range [][][]float32{c.k, c.v, c.inputs} {
		for _, r := range rows {
			n += 4 * len(r)
		}
	}
	for _, s := range c.state {
		n += 8 * len(s) * len(s[0])
	}
	return int64(n)
}

func (c *cache) Reset() { *c = cache{} }

func (c *cache) Fork(n int, _ engine.Cache) engine.Cache {
	if n > c.tokens || c.state != nil && n != c.tokens {
		panic(fmt.Sprintf("reference: Fork: %d tokens of %d, want at most as many, and all of a recurrence", n, c.tokens))
	}
	f := &cache{inputs: slices.Clone(c.inputs), tokens: n}
	if c.k != nil {
		f.k, f.v = slices.Clone(c.k[:n]), slices.Clone(c.v[:n])
	}
	for _, head := range c.state {
		var rows [][]float64
		for _, row := range head {
			rows = append(rows, slices.Clone(row))
		}
		f.state = append(f.state, rows)
	}
	return f
}

// AttentionCache implements engine.Stream.
func (s stream) AttentionCache(*engine.Attention, engine.Proj, engine.Cache) engine.Cache {
	return new(cache)
}

// AttentionBytes implements engine.Engine.
func (Engine) AttentionBytes(a *engine.Attention, _ tensor.DType, tokens int) int64 {
	return 4 * 2 * int64(a.KVHeads*a.HeadDim) * int64(tokens)
}

// Attend implements engine.Stream.
func (s stream) Attend(q, k, v engine.Mat, seqs []engine.Sequence, a *engine.Attention) {
	queries, keys, values := matrix(q), matrix(k), matrix(v)
	at := 0
	for _, seq := range seqs {
		c := seq.Cache.(*cache)
		seq.Rotary.Grow(c.tokens + seq.Tokens)
		for range seq.Tokens {
			place(queries.Row(at), a.QNorm, a.HeadDim, seq.Rotary, c.tokens)
			place(keys.Row(at), a.KNorm, a.HeadDim, seq.Rotary, c.tokens)
			c.k = append(c.k, slices.Clone(keys.Row(at)))
			c.v = append(c.v, slices.Clone(values.Row(at)))
			for h := range a.Heads {
				head := queries.Row(at)[h*a.HeadDim : (h+1)*a.HeadDim]
				copy(head, attend(head, c, h/(a.Heads/a.KVHeads)*a.HeadDim, a))
			}
			c.tokens++
			at++
		}
	}
	clear(queries.Slice(at, queries.Rows).Data)
}

// place norms the heads of a row and turns them to position pos.
func place(x []float32, norm *engine.Norm, dim int, r *engine.Rotary, pos int) {
	cos, sin := r.At(pos)
	half := len(cos)
	for h := 0; h < len(x); h += dim {
		head := x[h : h+dim]
		if norm != nil {
			rmsNorm(head, head, norm)
		}
		for i := range half {
			a, b := float64(head[i]), float64(head[i+half])
			c, s := float64(cos[i]), float64(sin[i])
			head[i], head[i+half] = float32(a*c-b*s), float32(b*c+a*s)
		}
	}
}

// attend returns what one head's query yields at position c.tokens; its keys and
// values are those from off on of c's rows.
func attend(q []float32, c *cache, off int, a *engine.Attention) []float32 {
	first := 0
	if a.Window > 0 {
		first = max(0, c.tokens-a.Window+1)
	}
	var scores []float64
	for j := first; j <= c.tokens; j++ {
		sum := 0.0
		for i, v := range q {
			sum += float64(v) * float64(c.k[j][off+i])
		}
		sum *= float64(a.Scale)
		if a.SoftCap > 0 {
			sum = capped(sum, float64(a.SoftCap))
		}
		scores = append(scores, sum)
	}
	p := softmax(scores)
	out := make([]float32, len(q))
	for i := range out {
		sum := 0.0
		for j, w := range p {
			sum += w * float64(c.v[first+j][off+i])
		}
		out[i] = float32(sum)
	}
	return out
}

// DeltaCache implements engine.Delta.
func (s stream) DeltaCache(*engine.DeltaNet, engine.Cache) engine.Cache { return new(cache) }

// Delta implements engine.Delta: the recurrence token by token.
func (s stream) Delta(z, qkv, beta, decay engine.Mat, seqs []engine.Sequence, d *engine.DeltaNet) {
	gates, at := matrix(z), 0
	for _, seq := range seqs {
		c := seq.Cache.(*cache)
		if c.state == nil {
			for range d.ValueHeads {
				head := make([][]float64, d.KeyDim)
				for i := range head {
					head[i] = make([]float64, d.ValueDim)
				}
				c.state = append(c.state, head)
			}
		}
		for range seq.Tokens {
			c.inputs = append(c.inputs, slices.Clone(matrix(qkv).Row(at)))
			c.tokens++
			x := convolve(c, d)
			for h := range d.ValueHeads {
				b := sigmoid(float64(matrix(beta).Row(at)[h]))
				g := -float64(d.Rate.(vec)[h]) * softplus(float64(matrix(decay).Row(at)[h])+float64(d.Bias.(vec)[h]))
				o := step(c.state[h], x, h, b, g, d)
				rmsNorm(o, o, d.Norm)
				for i, v := range o {
					gate := &gates.Row(at)[h*d.ValueDim+i]
					*gate = float32(float64(v) * activate(float64(*gate), engine.SiLU))
				}
			}
			at++
		}
	}
	for t := at; t < gates.Rows; t++ { // nobody's: the norm of 0
		clear(gates.Row(t))
	}
}

func softplus(x float64) float64 { return max(x, 0) + math.Log1p(math.Exp(-math.Abs(x))) }

// convolve returns silu of the convolution at c's last token.
func convolve(c *cache, d *engine.DeltaNet) []float64 {
	x := make([]float64, d.Channels())
	for j, w := range d.Conv {
		t := c.tokens - d.Taps + j
		if t < 0 {
			continue
		}
		for ch, v := range c.inputs[t] {
			x[ch] += float64(v) * float64(w.(vec)[ch])
		}
	}
	for ch, v := range x {
		x[ch] = activate(v, engine.SiLU)
	}
	return x
}

// step advances the state of value head h by a token and returns what it yields.
func step(state [][]float64, x []float64, h int, beta, g float64, d *engine.DeltaNet) []float32 {
	keyHead := h / (d.ValueHeads / d.KeyHeads)
	q := unit(x[keyHead*d.KeyDim:][:d.KeyDim])
	k := unit(x[(d.KeyHeads+keyHead)*d.KeyDim:][:d.KeyDim])
	v := x[2*d.KeyHeads*d.KeyDim+h*d.ValueDim:][:d.ValueDim]
	out := make([]float32, d.ValueDim)
	for j := range v {
		read := 0.0
		for i := range state {
			state[i][j] *= math.Exp(g)
			read += state[i][j] * k[i]
		}
		o := 0.0
		for i := range state {
			state[i][j] += k[i] * beta * (v[j] - read)
			o += state[i][j] * q[i] / math.Sqrt(float64(d.KeyDim))
		}
		out[j] = float32(o)
	}
	return out
}

// unit scales x to length 1; its sum of squares gets 1e-6.
func unit(x []float64) []float64 {
	sum := 1e-6
	for _, v := range x {
		sum += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(sum)
	}
	return y
}
