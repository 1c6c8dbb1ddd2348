package cpu

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// dense is a weight as it is stored.
type dense struct{ w *tensor.Weight }

func (d dense) Dims() (out, in int)    { return d.w.Rows, d.w.Cols }
func (d dense) DType() tensor.DType    { return d.w.DType }
func (d dense) Bytes() int64           { return int64(len(d.w.Bytes())) }
func (d dense) Weight() *tensor.Weight { return d.w }
func (d dense) Read(w *tensor.Weight)  { copy(w.Bytes(), d.w.Bytes()) }

// Form is an Op of another form than a tensor.Weight, which products expand as
// they read it: a part of its rows at a time, so that it is never dense in memory
// as a whole. An engine that wraps this one returns it from Load.
type Form interface {
	engine.Op

	// Expand writes rows lo to lo+dst.Rows-1 into dst, which is of DType.
	Expand(dst *tensor.Weight, lo int)
}

// expandRows is how many rows of a Form are dense at a time.
const expandRows = 384

// Load implements engine.Engine.
func (e *Engine) Load(w *tensor.Weight) (engine.Op, error) { return dense{w}, nil }

// rounds reports whether what enters w is rounded to bfloat16.
func (s *stream) rounds(w engine.Proj) bool { return s.engine.Rounds(w.W.DType()) }

// newRounded returns a rounded x of n rows, if products with all of ws can have it.
func (s *stream) newRounded(n int, ws ...engine.Proj) (*kernel.Rounded, bool) {
	for _, w := range ws {
		if !s.rounds(w) {
			return nil, false
		}
	}
	_, cols := ws[0].W.Dims()
	size := kernel.RoundedSize(n, cols)
	if size == 0 {
		return nil, false
	}
	return kernel.NewRounded(s.alloc(size).data, n, cols), true
}

// Operand implements engine.Stream.
func (s *stream) Operand(x engine.Mat, n *engine.Norm, ws ...engine.Proj) engine.Mat {
	r, ok := s.newRounded(x.Rows, ws...)
	if !ok {
		if n == nil {
			return x
		}
		y := s.Alloc(x.Rows, x.Cols)
		s.Norm(y, x, n)
		return y
	}
	from := host(x)
	eachToken(x.Rows, func(t int) {
		if n == nil {
			r.Store(t, 0, from.Row(t))
			return
		}
		r.StoreNorm(t, from.Row(t), values(n.W), n.Eps)
	})
	return engine.Mat{Rows: x.Rows, Cols: x.Cols, Mem: &rounded{r}}
}

// OperandFor implements engine.Stream.
func (s *stream) OperandFor(rows int, w engine.Proj) engine.Mat {
	_, cols := w.W.Dims()
	if r, ok := s.newRounded(rows, w); ok {
		return engine.Mat{Rows: rows, Cols: cols, Mem: &rounded{r}}
	}
	return s.Alloc(rows, cols)
}

// operand is the x of products: rounded, or plain.
type operand struct {
	rows, cols int
	rounded    *kernel.Rounded // nil: what rounds is rounded by each product
	plain      tensor.Matrix
}

func operandOf(x engine.Mat) operand {
	o := operand{rows: x.Rows, cols: x.Cols}
	if r, ok := x.Mem.(*rounded); ok {
		o.rounded = r.Rounded
	} else {
		o.plain = host(x)
	}
	return o
}

// store sets elements i and on of row t.
func (o operand) store(t, i int, v []float32) {
	if o.rounded != nil {
		o.rounded.Store(t, i, v)
		return
	}
	copy(o.plain.Row(t)[i:], v)
}

// Linear implements engine.Stream.
func (s *stream) Linear(dst, x engine.Mat, w engine.Proj) { s.linear(host(dst), operandOf(x), w) }

func (s *stream) linear(dst tensor.Matrix, x operand, w engine.Proj) {
	if _, in := w.W.Dims(); x.cols != in || dst.Cols != w.N || dst.Rows != x.rows {
		panic(fmt.Sprintf("cpu: Linear: %d × %d from %d × %d, want %d from %d columns", dst.Rows, dst.Cols, x.rows, x.cols, w.N, in))
	}
	if x.rows == 0 {
		return
	}
	s.eachDense(w, func(part *tensor.Weight, at int) {
		s.product(dst, at, x, part)
	})
	if bias := values(w.Bias); bias != nil {
		eachToken(x.rows, func(t int) { kernel.Add(dst.Row(t), bias[w.Lo:w.Lo+w.N]) })
	}
}

// eachDense calls f with w's features as plain weights, of which the first is
// feature at of w: all at once, or part by part.
func (s *stream) eachDense(w engine.Proj, f func(part *tensor.Weight, at int)) {
	if d, ok := w.W.(dense); ok {
		f(d.w.Slice(w.Lo, w.Lo+w.N), 0)
		return
	}
	form := formOf(w.W)
	_, in := form.Dims()
	part := tensor.NewWeight(form.DType(), min(expandRows, w.N), in)
	for at := 0; at < w.N; at += part.Rows {
		part := part.Slice(0, min(part.Rows, w.N-at))
		form.Expand(part, w.Lo+at)
		f(part, at)
	}
}

func formOf(op engine.Op) Form {
	form, ok := op.(Form)
	if !ok {
		panic(fmt.Sprintf("cpu: a weight of type %T, want one that this engine loaded, or a Form", op))
	}
	return form
}

// product writes the products with w into columns at and on of dst.
func (s *stream) product(dst tensor.Matrix, at int, x operand, w *tensor.Weight) {
	to := dst.Data[at:]
	switch {
	case x.rounded != nil:
		x.rounded.MatMulT(to, dst.Cols, w.Source(), w.Cols, w.Rows)
	case s.engine.Rounds(w.DType):
		kernel.MatMulTBF16(to, dst.Cols, x.plain.Data, x.cols, w.Source(), w.Cols, x.rows, w.Rows, w.Cols)
	default:
		kernel.MatMulT(to, dst.Cols, x.plain.Data, x.cols, w.Source(), w.Cols, x.rows, w.Rows, w.Cols)
	}
}

// Gated implements engine.Stream.
func (s *stream) Gated(dst, x engine.Mat, gate, up engine.Proj, act engine.Activation) {
	_, in := gate.W.Dims()
	if _, other := up.W.Dims(); x.Cols != in || x.Cols != other || gate.N != up.N || dst.Rows != x.Rows || dst.Cols != gate.N {
		panic(fmt.Sprintf("cpu: Gated: %d × %d from %d columns to %d and %d features of %d and %d", dst.Rows, dst.Cols, x.Cols, gate.N, up.N, in, other))
	}
	activate := kernel.SiluMul
	if act == engine.GELU {
		activate = kernel.GeluMul
	}
	to, gateBias, upBias := operandOf(dst), values(gate.Bias), values(up.Bias)
	f := func(t, i int, g, u []float32) {
		if gateBias != nil {
			kernel.Add(g, gateBias[gate.Lo+i:][:len(g)])
		}
		if upBias != nil {
			kernel.Add(u, upBias[up.Lo+i:][:len(u)])
		}
		activate(g, g, u)
		to.store(t, i, g)
	}
	a, aDense := gate.W.(dense)
	b, bDense := up.W.(dense)
	if aDense && bDense {
		s.pair(operandOf(x), a.w.Slice(gate.Lo, gate.Lo+gate.N), b.w.Slice(up.Lo, up.Lo+up.N), f)
		return
	}
	s.gatedForms(operandOf(x), gate, up, f)
}

// pair calls f with the products of x with a and with b, as kernel.MatMulTPair does.
func (s *stream) pair(x operand, a, b *tensor.Weight, f kernel.PairFunc) {
	switch {
	case x.rounded != nil:
		x.rounded.MatMulTPair(a.Source(), b.Source(), a.Cols, a.Rows, f)
	case s.engine.Rounds(a.DType) && s.engine.Rounds(b.DType):
		kernel.MatMulTPairBF16(x.plain.Data, x.cols, a.Source(), b.Source(), a.Cols, x.rows, a.Rows, a.Cols, f)
	default:
		kernel.MatMulTPair(x.plain.Data, x.cols, a.Source(), b.Source(), a.Cols, x.rows, a.Rows, a.Cols, f)
	}
}

// gatedForms is Gated where gate or up is a Form: both are expanded, part by part.
func (s *stream) gatedForms(x operand, gate, up engine.Proj, f kernel.PairFunc) {
	for at := 0; at < gate.N; at += expandRows {
		n := min(expandRows, gate.N-at)
		a, b := denseRows(gate.W, gate.Lo+at, n), denseRows(up.W, up.Lo+at, n)
		s.pair(x, a, b, func(t, i int, g, u []float32) { f(t, at+i, g, u) })
	}
}

// denseRows returns rows lo to lo+n-1 of op.
func denseRows(op engine.Op, lo, n int) *tensor.Weight {
	if d, ok := op.(dense); ok {
		return d.w.Slice(lo, lo+n)
	}
	form := formOf(op)
	_, in := form.Dims()
	part := tensor.NewWeight(form.DType(), n, in)
	form.Expand(part, lo)
	return part
}
