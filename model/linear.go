package model

import (
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Compute says in which type the inputs of matrix products are. Sums are
// float32 in both.
type Compute uint8

const (
	// F32 multiplies float32 activations with weights widened to float32.
	F32 Compute = iota
	// BF16 rounds activations to bfloat16 before a product with a bfloat16
	// weight, and queries, keys, values and attention's weights where the
	// processor multiplies bfloat16; other weights are multiplied as in F32.
	BF16
)

// String returns "f32" or "bf16".
func (c Compute) String() string {
	if c == BF16 {
		return "bf16"
	}
	return "f32"
}

// ParseCompute reads "f32" or "bf16".
func ParseCompute(s string) (Compute, error) {
	switch s {
	case "f32":
		return F32, nil
	case "bf16":
		return BF16, nil
	}
	return F32, fmt.Errorf("compute %q, want f32 or bf16", s)
}

// Linear computes y = W x + b.
type Linear struct {
	Name       string         // of the checkpoint, without ".weight"
	Rows, Cols int            // out, in
	W          *tensor.Weight // nil while it is not in memory: see Load
	Bias       []float32      // [out], nil for none

	// Expert marks a Linear of one of a mixture of experts: only the tokens
	// routed to it enter.
	Expert bool

	// Attention marks a Linear of what mixes the tokens: q, k, v, o, fused or
	// not, and of Gated DeltaNet, which stands in their place, all it has.
	Attention bool

	// Parts are what a fused matrix holds; nil for one that is not fused.
	Parts []Part

	// Steers marks the few rows that set how fast a recurrent state decays and
	// learns: pruning them saves nothing and costs much, so the default is not to.
	Steers bool

	compute  *Compute
	stored   stored
	streamed bool // in memory only between Load and Unload
}

// stored says where a weight is.
type stored struct {
	inv    *checkpoint.Inventory
	tensor checkpoint.Tensor
	pool   *pool
}

// Load reads W unless it is in memory. Only experts that Model.ExpertBytes
// leaves no room for are not.
func (l *Linear) Load() error {
	if l.W != nil {
		return nil
	}
	w := l.stored.pool.get(l.stored.tensor.DType, l.Rows, l.Cols)
	if err := readWeight(l.stored.inv, l.stored.tensor, w); err != nil {
		l.stored.pool.put(w)
		return err
	}
	l.W = w
	return nil
}

// Unload gives up a W that does not stay in memory, and with it every change.
func (l *Linear) Unload() {
	if l.streamed {
		l.release()
	}
}

func (l *Linear) release() {
	if l.W != nil {
		l.stored.pool.put(l.W)
		l.W = nil
	}
}

// Part is what of a Linear's rows is a Linear of its own in models that do not
// fuse: rows Lo to Hi-1, or, where the parts are interleaved by heads, the first
// Run of every Step of them.
type Part struct {
	Name      string // "q"
	Lo, Hi    int
	Run, Step int // 0: all rows
}

// Rows returns the number of rows.
func (p Part) Rows() int {
	if p.Step == 0 {
		return p.Hi - p.Lo
	}
	return (p.Hi - p.Lo + p.Step - p.Run) / p.Step * p.Run
}

// Take returns the part's rows of w: w's memory if they follow each other, else
// a copy.
func (p Part) Take(w *tensor.Weight) *tensor.Weight {
	if p.Step == 0 {
		return w.Slice(p.Lo, p.Hi)
	}
	part := tensor.NewWeight(w.DType, p.Rows(), w.Cols)
	p.runs(w, part, func(all, own []byte) { copy(own, all) })
	return part
}

// Return writes what Take returned back into w.
func (p Part) Return(w, part *tensor.Weight) {
	if p.Step != 0 {
		p.runs(w, part, func(all, own []byte) { copy(all, own) })
	}
}

// runs calls f with each run of rows, in w and in the part.
func (p Part) runs(w, part *tensor.Weight, f func(all, own []byte)) {
	for lo, at := p.Lo, 0; lo < p.Hi; lo, at = lo+p.Step, at+p.Run {
		f(w.Slice(lo, lo+p.Run).Bytes(), part.Slice(at, at+p.Run).Bytes())
	}
}

// part returns the i-th of l's Parts.
func (l *Linear) part(i int) rows {
	p := l.Parts[i]
	return rows{Linear: l, lo: p.Lo, n: p.Hi - p.Lo}
}

// rows is a Linear's output features lo to lo+n-1: what a fused matrix holds
// for one of its parts. It sees changes of the Linear's weights.
type rows struct {
	*Linear
	lo, n int
}

// all returns every row of l.
func (l *Linear) all() rows { return rows{Linear: l, n: l.Rows} }

// operand is the x of products with weights: a Matrix, or only its sizes and
// the values rounded.
type operand struct {
	tensor.Matrix
	rounded *kernel.Rounded // nil: what rounds is rounded by each product
}

// newOperand returns an x of n rows, of undefined content, for products like those
// of rs.
func newOperand(st *State, n int, rs ...rows) operand {
	if x, ok := newRounded(st, n, rs); ok {
		return x
	}
	return operand{Matrix: st.alloc(n, rs[0].Cols)}
}

// newRounded returns a rounded x of n rows, if the products of all of rs can have it.
func newRounded(st *State, n int, rs []rows) (x operand, ok bool) {
	cols := rs[0].Cols
	size := kernel.RoundedSize(n, cols)
	if size == 0 || slices.ContainsFunc(rs, func(r rows) bool { return !r.rounds() }) {
		return operand{}, false
	}
	return operand{tensor.Matrix{Rows: n, Cols: cols}, kernel.NewRounded(st.alloc(1, size).Data, n, cols)}, true
}

// store sets elements i and on of row t.
func (x operand) store(t, i int, v []float32) {
	if x.rounded != nil {
		x.rounded.Store(t, i, v)
		return
	}
	copy(x.Row(t)[i:], v)
}

// share returns x for products like those of rs.
func share(st *State, x tensor.Matrix, rs ...rows) operand {
	o, ok := newRounded(st, x.Rows, rs)
	if !ok {
		return operand{Matrix: x}
	}
	eachToken(x.Rows, func(t int) { o.store(t, 0, x.Row(t)) })
	return o
}

// normed is the RMS norm of the rows of x, computed where it is read; x itself
// where w is nil.
type normed struct {
	x   tensor.Matrix
	w   []float32
	eps float32
}

// slice returns rows lo to hi-1.
func (h normed) slice(lo, hi int) normed { return normed{h.x.Slice(lo, hi), h.w, h.eps} }

// matrix returns all of it.
func (h normed) matrix(st *State) tensor.Matrix {
	if h.w == nil {
		return h.x
	}
	y := st.alloc(h.x.Rows, h.x.Cols)
	normRows(y, h.x, h.w, h.eps)
	return y
}

// share returns it for products like those of rs.
func (h normed) share(st *State, rs ...rows) operand {
	if h.w == nil {
		return share(st, h.x, rs...)
	}
	o, ok := newRounded(st, h.x.Rows, rs)
	if !ok {
		return operand{Matrix: h.matrix(st)}
	}
	eachToken(h.x.Rows, func(t int) { o.rounded.StoreNorm(t, h.x.Row(t), h.w, h.eps) })
	return o
}

// enter returns what enters in's Linears, like those of rs, after tap, if not
// nil, has had it.
func (h normed) enter(st *State, tap Tap, in *Input, rs ...rows) operand {
	if tap == nil {
		return h.share(st, rs...)
	}
	x := h.matrix(st)
	tap(in, x)
	return share(st, x, rs...)
}

// eachRun calls f with the products of x, the features from i on, one run of at
// most width features after another. They share the memory y.
func (r rows) eachRun(st *State, x operand, width int, f func(i int, y tensor.Matrix)) {
	defer st.release(st.mark())
	width = min(width, r.n)
	all := st.alloc(x.Rows, width)
	for i := 0; i < r.n; i += width {
		n := min(width, r.n-i)
		y := tensor.Matrix{Rows: x.Rows, Cols: n, Data: all.Data[:x.Rows*n]}
		rows{Linear: r.Linear, lo: r.lo + i, n: n}.apply(y, x)
		f(i, y)
	}
}

// apply writes tokens × n products into dst.
func (r rows) apply(dst tensor.Matrix, x operand) {
	if x.Cols != r.Cols || dst.Cols != r.n || dst.Rows != x.Rows {
		panic(fmt.Sprintf("model: %s: %d × %d from %d × %d, want %d from %d columns",
			r.Name, dst.Rows, dst.Cols, x.Rows, x.Cols, r.n, r.Cols))
	}
	if x.Rows == 0 {
		return
	}
	src := r.source()
	switch {
	case !r.rounds():
		kernel.MatMulT(dst.Data, dst.Cols, x.Data, x.Cols, src, r.Cols, x.Rows, r.n, r.Cols)
	case x.rounded == nil:
		kernel.MatMulTBF16(dst.Data, dst.Cols, x.Data, x.Cols, src, r.Cols, x.Rows, r.n, r.Cols)
	default:
		x.rounded.MatMulT(dst.Data, dst.Cols, src, r.Cols, r.n)
	}
	if r.Bias != nil {
		eachToken(x.Rows, func(t int) { r.addBias(0, dst.Row(t)) })
	}
}

// applyPair calls f with the products of x with r and with other, as
// kernel.MatMulTPair does.
func (r rows) applyPair(other rows, x operand, f kernel.PairFunc) {
	if x.Cols != r.Cols || x.Cols != other.Cols || r.n != other.n {
		panic(fmt.Sprintf("model: %s, %s: from %d columns to %d and %d, want %d and %d to be one number",
			r.Name, other.Name, x.Cols, r.n, other.n, r.Cols, other.Cols))
	}
	biased := f
	if r.Bias != nil || other.Bias != nil {
		biased = func(t, o int, u, v []float32) {
			r.addBias(o, u)
			other.addBias(o, v)
			f(t, o, u, v)
		}
	}
	b, c := r.source(), other.source()
	switch {
	case x.rounded != nil:
		x.rounded.MatMulTPair(b, c, r.Cols, r.n, biased)
	case r.rounds() && other.rounds():
		kernel.MatMulTPairBF16(x.Data, x.Cols, b, c, r.Cols, x.Rows, r.n, r.Cols, biased)
	default:
		kernel.MatMulTPair(x.Data, x.Cols, b, c, r.Cols, x.Rows, r.n, r.Cols, biased)
	}
}

// source returns r's weights.
func (r rows) source() kernel.Source { return r.W.Slice(r.lo, r.lo+r.n).Source() }

// addBias adds the bias of r's features from i on to y.
func (r rows) addBias(i int, y []float32) {
	if r.Bias != nil {
		kernel.Add(y, r.Bias[r.lo+i : r.lo+r.n][:len(y)])
	}
}

// rounds reports whether l's inputs are rounded to bfloat16.
func (l *Linear) rounds() bool { return *l.compute == BF16 && l.W.DType == tensor.BF16 }

// Input is one activation and the Linears it enters, which share a statistic.
type Input struct {
	Name    string // of the first Linear
	Linears []*Linear
}

// Tap is called with the tokens × in activation that enters in's Linears. x is
// valid during the call only and must not be changed.
type Tap func(in *Input, x tensor.Matrix)

func newInput(linears ...*Linear) *Input {
	return &Input{Name: linears[0].Name, Linears: linears}
}

// attentionInputs marks the Linears of ins and returns ins.
func attentionInputs(ins ...*Input) []*Input {
	for _, in := range ins {
		for _, l := range in.Linears {
			l.Attention = true
		}
	}
	return ins
}

// eachToken runs f for each of n tokens, on all cores.
func eachToken(n int, f func(t int)) {
	const grain = 16 // tokens a task takes: some 64 KiB of activations at width 1024
	parallel.For(n, grain, func(lo, hi int) {
		for t := lo; t < hi; t++ {
			f(t)
		}
	})
}

// normRows writes the RMS norm of each row of x into dst, which may be x.
func normRows(dst, x tensor.Matrix, w []float32, eps float32) {
	eachToken(x.Rows, func(t int) { kernel.RMSNorm(dst.Row(t), x.Row(t), w, eps) })
}
