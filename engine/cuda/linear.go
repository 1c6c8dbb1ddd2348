package cuda

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
	"github.com/crepe-llm/crepe/tensor"
)

// matrix is a matrix of any type in the device's memory: element (i, j) is the
// (i·stride + j)-th, or, of the transpose of what lies there, the (j·stride + i)-th.
type matrix struct {
	at         driver.Pointer
	t          driver.Type
	stride     int
	transposed bool
}

// steps returns how far apart rows and columns are.
func (m matrix) steps() (row, col int) {
	if m.transposed {
		return 1, m.stride
	}
	return m.stride, 1
}

// typeOf returns the type of a weight's elements.
func typeOf(t tensor.DType) driver.Type {
	switch t {
	case tensor.BF16:
		return driver.BF16
	case tensor.F16:
		return driver.F16
	}
	return driver.F32
}

// rounds reports whether what enters w is rounded to bfloat16.
func (s *stream) rounds(w engine.Proj) bool { return s.engine.Rounds(w.W.DType()) }

// Operand implements engine.Stream.
func (s *stream) Operand(x engine.Mat, n *engine.Norm, ws ...engine.Proj) engine.Mat {
	for _, w := range ws {
		if !s.rounds(w) {
			if n == nil {
				return x
			}
			y := s.Alloc(x.Rows, x.Cols)
			s.Norm(y, x, n)
			return y
		}
	}
	return s.round(x, n)
}

// round returns x, normed if n is not nil, in bfloat16.
func (s *stream) round(x engine.Mat, n *engine.Norm) engine.Mat {
	y := s.rounded(x.Rows, x.Cols)
	to := memoryOf(y).at
	if n != nil {
		s.norm(to, x, n, true)
	} else {
		s.each("round_all", size(x), 4, to, at(x), size(x))
	}
	return y
}

// OperandFor implements engine.Stream.
func (s *stream) OperandFor(rows int, w engine.Proj) engine.Mat {
	_, in := w.W.Dims()
	if s.rounds(w) {
		return s.rounded(rows, in)
	}
	return s.Alloc(rows, in)
}

// Linear implements engine.Stream.
func (s *stream) Linear(dst, x engine.Mat, w engine.Proj) {
	if _, in := w.W.Dims(); x.Cols != in || dst.Cols != w.N || dst.Rows != x.Rows {
		panic(fmt.Sprintf("cuda: Linear: %d × %d from %d × %d, want %d from %d columns", dst.Rows, dst.Cols, x.Rows, x.Cols, w.N, in))
	}
	s.linear(at(dst), x, w)
	if w.Bias != nil {
		s.each("add_bias", size(dst), 1, at(dst), vecAt(w.Bias, w.Lo), dst.Cols, size(dst))
	}
}

// linear writes x·wᵀ, x.Rows × w.N.
func (s *stream) linear(dst driver.Pointer, x engine.Mat, w engine.Proj) {
	if x.Rows == 0 || w.N == 0 {
		return
	}
	defer s.Release(s.Mark())
	a, b := s.operand(x, w), s.weight(w)
	s.product(dst, w.N, a, b, x.Rows, w.N, x.Cols)
}

// operand returns x as products with w read it.
func (s *stream) operand(x engine.Mat, w engine.Proj) matrix {
	m := memoryOf(x)
	if !m.rounded && s.rounds(w) {
		x = s.round(x, nil)
		m = memoryOf(x)
	}
	if m.rounded {
		return matrix{m.at + driver.Pointer(2*x.First*x.Cols), driver.BF16, x.Cols, false}
	}
	return matrix{at(x), driver.F32, x.Cols, false}
}

// weight returns w's rows as products read them: with activations that are not rounded,
// in float32.
func (s *stream) weight(w engine.Proj) matrix {
	o, ok := w.W.(*weight)
	if !ok {
		panic(fmt.Sprintf("cuda: a weight of type %T, want one that this engine loaded", w.W))
	}
	t, cols := typeOf(o.w.DType), o.w.Cols
	from := o.at() + driver.Pointer(t.Size()*w.Lo*cols)
	if t == driver.F32 || s.rounds(w) {
		return matrix{from, t, cols, false}
	}
	n := int64(w.N) * int64(cols)
	wide := s.take(4 * n)
	s.each("widen_all", n, 1, wide, from, n, kind(t))
	return matrix{wide, driver.F32, cols, false}
}

// kind returns t as kernels are told it.
func kind(t driver.Type) int {
	switch t {
	case driver.BF16:
		return 1
	case driver.F16:
		return 2
	}
	return 0
}

// product writes d_ij = Σ_k a_ik · b_jk, rows × n; rows of d are stride
// elements apart.
func (s *stream) product(d driver.Pointer, stride int, a, b matrix, rows, n, k int) {
	// cuBLASLt's matrices are column-major: dᵀ = b·aᵀ.
	if a.t == b.t {
		p := driver.Product{
			M: n, N: rows, K: k, Type: a.t,
			A: b.at, LDA: b.stride, TransA: !b.transposed,
			B: a.at, LDB: a.stride, TransB: a.transposed,
			D: d, LDD: stride,
		}
		if s.engine.Multiply(p) {
			return
		}
	}
	ar, ac := a.steps()
	br, bc := b.steps()
	s.engine.Launch("multiply", [3]int{(n + 15) / 16, (rows + 15) / 16, 1}, [3]int{256, 1, 1}, 0,
		d, stride, a.at, kind(a.t), ar, ac, b.at, kind(b.t), br, bc, rows, n, k)
}

// Gated implements engine.Stream.
func (s *stream) Gated(dst, x engine.Mat, gate, up engine.Proj, act engine.Activation) {
	if gate.N != up.N || dst.Rows != x.Rows || dst.Cols != gate.N {
		panic(fmt.Sprintf("cuda: Gated: %d × %d of %d and %d features", dst.Rows, dst.Cols, gate.N, up.N))
	}
	defer s.Release(s.Mark())
	g, u := s.Alloc(x.Rows, gate.N), s.Alloc(x.Rows, up.N)
	s.linear(at(g), x, gate)
	s.linear(at(u), x, up)
	to := memoryOf(dst)
	address := to.at + driver.Pointer(2*dst.First*dst.Cols)
	if !to.rounded {
		address = at(dst)
	}
	s.each("gated", size(dst), 2, address, at(g), at(u), vecAt(gate.Bias, gate.Lo), vecAt(up.Bias, up.Lo), dst.Cols, size(dst), int(act), to.rounded)
}

// LogSums implements engine.Stream.
func (s *stream) LogSums(sums []engine.LogSum, x engine.Mat, head engine.Proj, first int, softCap float32, targets []int32) {
	defer s.Release(s.Mark())
	type part struct {
		largest, target float32
		sum             float64
	}
	parts := make([]part, x.Rows)
	results, wanted := s.take(16*int64(x.Rows)), upload(s, targets[:x.Rows])
	s.logits(x, head, softCap, func(logits engine.Mat, lo int) {
		s.rows("log_sums", x.Rows, 256, results, at(logits), logits.Cols, first+lo, wanted)
		download(s, parts, results)
		for t, p := range parts {
			sums[t].Add(float64(p.largest), p.sum)
			if i := int(targets[t]) - first - lo; i >= 0 && i < logits.Cols {
				sums[t].Target = float64(p.target)
			}
		}
	})
}

// Logits implements engine.Stream.
func (s *stream) Logits(dst, x engine.Mat, head engine.Proj, first int, softCap float32) {
	s.logits(x, head, softCap, func(logits engine.Mat, lo int) {
		for t := range x.Rows {
			s.engine.Move(at(dst.Slice(t, t+1))+driver.Pointer(4*(first+lo)), at(logits.Slice(t, t+1)), 4*int64(logits.Cols))
		}
	})
}

// logitsBytes is about how many bytes of logits there are at a time.
const logitsBytes = 256 << 20

// logits calls f with the logits of head's features, one run of them after another, of
// which the first is the lo-th.
func (s *stream) logits(x engine.Mat, head engine.Proj, softCap float32, f func(logits engine.Mat, lo int)) {
	if x.Rows == 0 {
		return
	}
	run := min(head.N, max(1024, logitsBytes/(4*x.Rows)/1024*1024))
	for lo := 0; lo < head.N; lo += run {
		mark := s.Mark()
		part := head
		part.Lo, part.N = head.Lo+lo, min(run, head.N-lo)
		y := s.Alloc(x.Rows, part.N)
		s.Linear(y, x, part)
		if softCap > 0 {
			s.each("cap", size(y), 1, at(y), softCap, size(y))
		}
		f(y, lo)
		s.Release(mark)
	}
}
