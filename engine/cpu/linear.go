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

// packed is a weight in packed form, of which products expand some rows at a time in
// registers or in the caches.
type packed struct{ w *tensor.Packed }

func (p packed) Dims() (out, in int)    { return p.w.Rows, p.w.Cols }
func (p packed) DType() tensor.DType    { return p.w.DType }
func (p packed) Bytes() int64           { return p.w.Bytes() }
func (p packed) Weight() *tensor.Weight { return nil }
func (p packed) Read(w *tensor.Weight)  { p.w.Expand(w, 0) }

// LoadPacked implements engine.Packer.
func (e *Engine) LoadPacked(w *tensor.Packed) (engine.Op, error) { return packed{w}, nil }

// operandRows are rows of a weight as products of package kernel take them.
type operandRows struct {
	src        kernel.Source
	dtype      tensor.DType
	rows, cols int
}

// rowsOf returns rows lo to lo+n-1 of op, if kernels read its form.
func rowsOf(op engine.Op, lo, n int) (operandRows, bool) {
	switch op := op.(type) {
	case dense:
		return plainRows(op.w.Slice(lo, lo+n)), true
	case packed:
		return operandRows{op.w.Slice(lo, lo+n).Source(), op.w.DType, n, op.w.Cols}, true
	}
	return operandRows{}, false
}

func plainRows(w *tensor.Weight) operandRows {
	return operandRows{w.Source(), w.DType, w.Rows, w.Cols}
}

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
	s.eachPart(w, func(part operandRows, at int) { s.product(dst, at, x, part) })
	if bias := values(w.Bias); bias != nil {
		eachToken(x.rows, func(t int) { kernel.Add(dst.Row(t), bias[w.Lo:w.Lo+w.N]) })
	}
}

// eachPart calls f with w's features as kernels read them, of which the first is
// feature at of w: all at once, or part by part.
func (s *stream) eachPart(w engine.Proj, f func(part operandRows, at int)) {
	if all, ok := rowsOf(w.W, w.Lo, w.N); ok {
		f(all, 0)
		return
	}
	form := formOf(w.W)
	_, in := form.Dims()
	part := tensor.NewWeight(form.DType(), min(expandRows, w.N), in)
	for at := 0; at < w.N; at += part.Rows {
		part := part.Slice(0, min(part.Rows, w.N-at))
		form.Expand(part, w.Lo+at)
		f(plainRows(part), at)
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
func (s *stream) product(dst tensor.Matrix, at int, x operand, w operandRows) {
	to := dst.Data[at:]
	switch {
	case x.rounded != nil:
		x.rounded.MatMulT(to, dst.Cols, w.src, w.cols, w.rows)
	case s.engine.Rounds(w.dtype):
		kernel.MatMulTBF16(to, dst.Cols, x.plain.Data, x.cols, w.src, w.cols, x.rows, w.rows, w.cols)
	default:
		kernel.MatMulT(to, dst.Cols, x.plain.Data, x.cols, w.src, w.cols, x.rows, w.rows, w.cols)
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
	a, aRead := rowsOf(gate.W, gate.Lo, gate.N)
	b, bRead := rowsOf(up.W, up.Lo, up.N)
	if aRead && bRead {
		s.pair(operandOf(x), a, b, f)
		return
	}
	s.gatedForms(operandOf(x), gate, up, f)
}

// pair calls f with the products of x with a and with b, as kernel.MatMulTPair does.
func (s *stream) pair(x operand, a, b operandRows, f kernel.PairFunc) {
	switch {
	case x.rounded != nil:
		x.rounded.MatMulTPair(a.src, b.src, a.cols, a.rows, f)
	case s.engine.Rounds(a.dtype) && s.engine.Rounds(b.dtype):
		kernel.MatMulTPairBF16(x.plain.Data, x.cols, a.src, b.src, a.cols, x.rows, a.rows, a.cols, f)
	default:
		kernel.MatMulTPair(x.plain.Data, x.cols, a.src, b.src, a.cols, x.rows, a.rows, a.cols, f)
	}
}

// gatedForms is Gated where gate or up is a Form, which is expanded part by part.
func (s *stream) gatedForms(x operand, gate, up engine.Proj, f kernel.PairFunc) {
	for at := 0; at < gate.N; at += expandRows {
		n := min(expandRows, gate.N-at)
		a, b := expandedRows(gate.W, gate.Lo+at, n), expandedRows(up.W, up.Lo+at, n)
		s.pair(x, a, b, func(t, i int, g, u []float32) { f(t, at+i, g, u) })
	}
}

// expandedRows returns rows lo to lo+n-1 of op, as they are or expanded.
func expandedRows(op engine.Op, lo, n int) operandRows {
	if rows, ok := rowsOf(op, lo, n); ok {
		return rows
	}
	form := formOf(op)
	_, in := form.Dims()
	part := tensor.NewWeight(form.DType(), n, in)
	form.Expand(part, lo)
	return plainRows(part)
}
