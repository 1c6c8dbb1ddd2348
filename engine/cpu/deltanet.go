package cpu

import (
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// deltaCache is the Cache of Gated DeltaNet. It does not grow with the tokens.
type deltaCache struct {
	tokens int
	before []float32 // (taps−1) × channels: the last inputs of the convolution
	state  []float32 // valueHeads × valueDim × keyDim: Sᵀ by head
}

func (c *deltaCache) Len() int     { return c.tokens }
func (c *deltaCache) Bytes() int64 { return 4 * int64(len(c.before)+len(c.state)) }

func (c *deltaCache) Reset() {
	c.tokens = 0
	clear(c.before)
	clear(c.state)
}

func (c *deltaCache) Fork(n int, old engine.Cache) engine.Cache {
	if n != c.tokens {
		panic(fmt.Sprintf("cpu: Fork: %d tokens of a recurrence of %d, want all", n, c.tokens))
	}
	to, ok := old.(*deltaCache)
	if !ok {
		to = new(deltaCache)
	}
	to.tokens = c.tokens
	to.before = append(to.before[:0], c.before...)
	to.state = append(to.state[:0], c.state...)
	return to
}

// DeltaCache implements engine.Delta.
func (s *stream) DeltaCache(d *engine.DeltaNet, old engine.Cache) engine.Cache {
	before, state := (d.Taps-1)*d.Channels(), d.ValueWidth()*d.KeyDim
	if c, ok := old.(*deltaCache); ok && len(c.before) == before && len(c.state) == state {
		c.Reset()
		return c
	}
	return &deltaCache{before: make([]float32, before), state: make([]float32, state)}
}

// deltaNet is a DeltaNet at work. All of it is float32, the gates float64.
type deltaNet struct {
	*engine.DeltaNet
	conv       [][]float32
	rate, bias []float32
	ones       []float32    // [channels]
	unit       [2][]float32 // [keyDim] weights of unitHeads for q and k
}

func newDeltaNet(d *engine.DeltaNet) *deltaNet {
	n := &deltaNet{
		DeltaNet: d, rate: values(d.Rate), bias: values(d.Bias),
		ones: slices.Repeat([]float32{1}, d.Channels()),
	}
	for _, w := range d.Conv {
		n.conv = append(n.conv, values(w))
	}
	n.unit = [2][]float32{
		slices.Repeat([]float32{float32(1 / float64(d.KeyDim))}, d.KeyDim),
		slices.Repeat([]float32{float32(1 / math.Sqrt(float64(d.KeyDim)))}, d.KeyDim),
	}
	return n
}

// Delta implements engine.Delta.
func (s *stream) Delta(z, qkv, beta, decay engine.Mat, seqs []engine.Sequence, conf *engine.DeltaNet) {
	defer s.Release(s.Mark())
	d := newDeltaNet(conf)
	gates, in, rates, decays := host(z), host(qkv), host(beta), host(decay)
	tokens := gates.Rows
	if in.Cols != d.Channels() || gates.Cols != d.ValueWidth() {
		panic(fmt.Sprintf("cpu: Delta: %d channels and %d gates, want %d and %d", in.Cols, gates.Cols, d.Channels(), d.ValueWidth()))
	}
	mixed := s.matrix(tokens, d.Channels())
	// One sequence after another: each is spread over the cores.
	starts := startsOf(seqs)
	for i, seq := range seqs {
		lo, hi := starts[i], starts[i+1]
		c := seq.Cache.(*deltaCache)
		d.convolve(mixed.Slice(lo, hi), in.Slice(lo, hi), c.before)
		eachToken(seq.Tokens, func(t int) {
			d.unitHeads(mixed.Row(lo + t))
			d.gates(rates.Row(lo+t), decays.Row(lo+t))
		})
	}
	o := tensor.Matrix{Rows: tokens, Cols: gates.Cols, Data: in.Data[:tokens*gates.Cols]} // in is used up
	for i, seq := range seqs {
		lo, hi := starts[i], starts[i+1]
		c := seq.Cache.(*deltaCache)
		s.scanAll(d, o.Slice(lo, hi), mixed.Slice(lo, hi), rates.Slice(lo, hi), decays.Slice(lo, hi), c.state)
		c.tokens += seq.Tokens
	}
	clear(o.Slice(starts[len(seqs)], tokens).Data)
	eachToken(tokens, func(t int) { d.gate(gates.Row(t), o.Row(t)) })
}

// scanAll runs the delta rule over one sequence's tokens, from the state on.
func (s *stream) scanAll(d *deltaNet, o, qkv, beta, decay tensor.Matrix, state []float32) {
	defer s.Release(s.Mark())
	work := s.matrix(d.ValueHeads, d.workSize())
	parallel.For(d.ValueHeads, 1, func(lo, hi int) {
		for head := lo; head < hi; head++ {
			d.scan(head, o, qkv, beta, decay, state, work.Row(head))
		}
	})
}

// convolve writes silu of the causal convolution of x over time into dst;
// before holds the Taps−1 rows ahead of x, and gets the last of them.
func (d *deltaNet) convolve(dst, x tensor.Matrix, before []float32) {
	past := tensor.Matrix{Rows: d.Taps - 1, Cols: x.Cols, Data: before}
	row := func(t int) []float32 {
		if t < 0 {
			return past.Row(past.Rows + t)
		}
		return x.Row(t)
	}
	eachToken(x.Rows, func(t int) {
		y := dst.Row(t)
		clear(y)
		for j, w := range d.conv {
			kernel.AddProduct(y, row(t-(d.Taps-1)+j), w)
		}
		kernel.SiluMul(y, y, d.ones)
	})
	for i := range past.Rows { // in order: row i comes from a later one
		copy(past.Row(i), row(x.Rows-past.Rows+i))
	}
}

// unitHeads scales each head of q and k to length 1, and q by KeyDim^−½. The
// sum of squares gets 1e-6; so these are RMS norms with an eps of 1e-6/KeyDim
// and weights of KeyDim^−½ for k, 1/KeyDim for q.
func (d *deltaNet) unitHeads(x []float32) {
	eps := float32(1e-6 / float64(d.KeyDim))
	width := d.KeyHeads * d.KeyDim
	for i := 0; i < 2*width; i += d.KeyDim {
		head, w := x[i:i+d.KeyDim], d.unit[0]
		if i >= width {
			w = d.unit[1]
		}
		kernel.RMSNorm(head, head, w, eps)
	}
}

// gates replaces B h by β and A h by g ≤ 0.
func (d *deltaNet) gates(beta, decay []float32) {
	for i := range beta {
		beta[i] = float32(1 / (1 + math.Exp(-float64(beta[i]))))
		x := float64(decay[i]) + float64(d.bias[i])
		softplus := max(x, 0) + math.Log1p(math.Exp(-math.Abs(x)))
		decay[i] = float32(-float64(d.rate[i]) * softplus)
	}
}

// gate replaces z by norm(o) · silu(z), head by head. It overwrites o.
func (d *deltaNet) gate(z, o []float32) {
	for i := 0; i < len(o); i += d.ValueDim {
		head := o[i : i+d.ValueDim]
		kernel.RMSNorm(head, head, values(d.Norm.W), d.Norm.Eps)
	}
	kernel.SiluMul(z, z, o)
}
