package model

import (
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// deltaSizes are the shapes of a Gated DeltaNet layer.
type deltaSizes struct {
	keyHeads, valueHeads int // valueHeads is a multiple of keyHeads
	keyDim, valueDim     int // of one head
	taps                 int // of the convolution over time
}

// channels is the width of q, k and v of all heads side by side.
func (s deltaSizes) channels() int { return 2*s.keyHeads*s.keyDim + s.valueWidth() }

func (s deltaSizes) valueWidth() int { return s.valueHeads * s.valueDim }

// deltaNet is linear attention by the gated delta rule. With [q|k|v] =
// silu(conv(QKV h)), q and k scaled to length 1 (q also by keyDim^−½), and per
// value head β = sigmoid(B h), g = −exp(A_log)·softplus(A h + dt_bias):
//
//	S_t = e^g S_{t−1} + β k (v − e^g S_{t−1}ᵀk)ᵀ,  S: keyDim × valueDim, S_0 = 0
//	out = O · (norm(S_tᵀ q) · silu(Z h)),  norm a plain RMSNorm over a head
//
// Value head j reads q and k of head ⌊j / (valueHeads/keyHeads)⌋. All of it is
// float32, the gates float64. Yang et al. 2024, arXiv:2412.06464.
type deltaNet struct {
	deltaSizes
	block        int
	qkv, z, b, a rows
	out          *Linear
	conv         [][]float32  // [taps][channels]; the last multiplies the token itself
	ones         []float32    // [channels]
	unit         [2][]float32 // [keyDim] weights of unitHeads for q and k
	rate, bias   []float32    // [valueHeads] exp(A_log), dt_bias
	norm         []float32    // [valueDim]
	eps          float32
	ins          []*Input
}

// newDeltaNet binds the tensors under linear_attn.
func newDeltaNet(c *Config, b *binder, block int) *deltaNet {
	const at = "linear_attn."
	s := c.delta
	keys := s.keyHeads * s.keyDim
	qkv := b.fused(at+"in_proj_qkv", c.Width, false,
		partSize{"q", keys}, partSize{"k", keys}, partSize{"v", s.valueWidth()})
	z := b.linear(at+"in_proj_z", s.valueWidth(), c.Width, false)
	beta := b.linear(at+"in_proj_b", s.valueHeads, c.Width, false)
	decay := b.linear(at+"in_proj_a", s.valueHeads, c.Width, false)
	beta.Steers, decay.Steers = true, true
	d := &deltaNet{
		deltaSizes: s, block: block, eps: c.NormEps,
		qkv: rows{qkv, 0, s.channels()}, z: rows{z, 0, s.valueWidth()},
		b: rows{beta, 0, s.valueHeads}, a: rows{decay, 0, s.valueHeads},
		rate: b.vector(at+"A_log", s.valueHeads),
		bias: b.vector(at+"dt_bias", s.valueHeads),
		norm: b.vector(at+"norm.weight", s.valueDim),
		out:  b.linear(at+"out_proj", c.Width, s.valueWidth(), false),
	}
	for i, v := range d.rate {
		d.rate[i] = float32(math.Exp(float64(v)))
	}
	d.setUnit()
	d.setConv(b.vector(at+"conv1d.weight", s.channels(), 1, s.taps))
	d.ins = attentionInputs(newInput(qkv, z, beta, decay), newInput(d.out))
	return d
}

// setUnit sets the weights of unitHeads.
func (d *deltaNet) setUnit() {
	d.unit = [2][]float32{make([]float32, d.keyDim), make([]float32, d.keyDim)}
	for i := range d.keyDim {
		d.unit[0][i] = float32(1 / float64(d.keyDim))
		d.unit[1][i] = float32(1 / math.Sqrt(float64(d.keyDim)))
	}
}

// setConv takes the weights channel by channel; nil while only headers are read.
func (d *deltaNet) setConv(w []float32) {
	if w == nil {
		return
	}
	d.ones = make([]float32, d.channels())
	for c := range d.ones {
		d.ones[c] = 1
	}
	d.conv = make([][]float32, d.taps)
	for j := range d.conv {
		d.conv[j] = make([]float32, d.channels())
		for c := range d.ones {
			d.conv[j][c] = w[c*d.taps+j]
		}
	}
}

// deltaMemory is what a layer keeps of earlier tokens.
type deltaMemory struct {
	before []float32 // (taps−1) × channels: the last inputs of the convolution
	state  []float32 // valueHeads × valueDim × keyDim: Sᵀ by head
}

// recall returns the memory that a sequence, or its next piece, starts from.
func (d *deltaNet) recall(st *State) deltaMemory {
	before, state := (d.taps-1)*d.channels(), d.valueWidth()*d.keyDim
	if kept := remember[deltaMemory](st, d.block); kept != nil {
		if kept.state == nil {
			*kept = deltaMemory{make([]float32, before), make([]float32, state)}
		}
		return *kept
	}
	fresh := deltaMemory{st.alloc(1, before).Data, st.alloc(1, state).Data}
	clear(fresh.before)
	clear(fresh.state)
	return fresh
}

func (d *deltaNet) inputs() []*Input { return d.ins }

func (d *deltaNet) run(st *State, h normed, out *residual, tap Tap) error {
	defer st.release(st.mark())
	tokens := h.x.Rows
	mixed, z := st.alloc(tokens, d.channels()), st.alloc(tokens, d.z.n)
	beta, decay := st.alloc(tokens, d.valueHeads), st.alloc(tokens, d.valueHeads)
	qkv := st.alloc(tokens, d.channels())
	mark := st.mark()
	x := h.enter(st, tap, d.ins[0], d.qkv, d.z, d.b, d.a)
	d.qkv.apply(mixed, x)
	d.z.apply(z, x)
	d.b.apply(beta, x)
	d.a.apply(decay, x)
	st.release(mark)
	// One piece after another: each is spread over the cores.
	pieces, starts := st.each(tokens)
	states := make([][]float32, len(pieces))
	for i, p := range pieces {
		lo, hi := starts[i], starts[i+1]
		memory := d.recall(p.State)
		states[i] = memory.state
		d.convolve(qkv.Slice(lo, hi), mixed.Slice(lo, hi), memory.before)
		eachToken(p.Tokens, func(t int) {
			d.unitHeads(qkv.Row(lo + t))
			d.gates(beta.Row(lo+t), decay.Row(lo+t))
		})
	}
	o := tensor.Matrix{Rows: tokens, Cols: d.z.n, Data: mixed.Data[:tokens*d.z.n]} // mixed is used up
	for i := range pieces {
		lo, hi := starts[i], starts[i+1]
		d.scanAll(st, o.Slice(lo, hi), qkv.Slice(lo, hi), beta.Slice(lo, hi), decay.Slice(lo, hi), states[i])
	}
	clear(o.Slice(starts[len(pieces)], tokens).Data)
	eachToken(tokens, func(t int) { d.gate(z.Row(t), o.Row(t)) })
	if tap != nil {
		tap(d.ins[1], z)
	}
	if out != nil {
		out.project(st, z, d.out)
	}
	return nil
}

// scanAll runs the delta rule over one sequence's tokens, from the state on.
func (d *deltaNet) scanAll(st *State, o, qkv, beta, decay tensor.Matrix, state []float32) {
	defer st.release(st.mark())
	work := st.alloc(d.valueHeads, d.workSize())
	parallel.For(d.valueHeads, 1, func(lo, hi int) {
		for head := lo; head < hi; head++ {
			d.scan(head, o, qkv, beta, decay, state, work.Row(head))
		}
	})
}

// convolve writes silu of the causal convolution of x over time into dst;
// before holds the taps−1 rows ahead of x, and gets the last of them.
func (d *deltaNet) convolve(dst, x tensor.Matrix, before []float32) {
	past := tensor.Matrix{Rows: d.taps - 1, Cols: x.Cols, Data: before}
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
			kernel.AddProduct(y, row(t-(d.taps-1)+j), w)
		}
		kernel.SiluMul(y, y, d.ones)
	})
	for i := range past.Rows { // in order: row i comes from a later one
		copy(past.Row(i), row(x.Rows-past.Rows+i))
	}
}

// unitHeads scales each head of q and k to length 1, and q by keyDim^−½. The
// sum of squares gets 1e-6; so these are RMS norms with an eps of 1e-6/keyDim
// and weights of keyDim^−½ for k, 1/keyDim for q.
func (d *deltaNet) unitHeads(x []float32) {
	eps := float32(1e-6 / float64(d.keyDim))
	width := d.keyHeads * d.keyDim
	for i := 0; i < 2*width; i += d.keyDim {
		head, w := x[i:i+d.keyDim], d.unit[0]
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
	for i := 0; i < len(o); i += d.valueDim {
		head := o[i : i+d.valueDim]
		kernel.RMSNorm(head, head, d.norm, d.eps)
	}
	kernel.SiluMul(z, z, o)
}
