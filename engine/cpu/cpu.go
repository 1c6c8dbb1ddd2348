// Package cpu is the engine of this processor: the kernels of internal/kernel,
// on all cores. All of it is float32 but for the sums that say otherwise, and,
// with engine.BF16, the inputs of products with bfloat16 weights.
package cpu

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Engine computes on this processor. It holds nothing but its settings.
type Engine struct {
	compute engine.Compute
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine that computes so.
func New(c engine.Compute) *Engine { return &Engine{compute: c} }

// ID returns "cpu/" and the instruction level; with engine.BF16 also "+bf16", or
// "+bf16-emulated" where the processor does not multiply bfloat16 itself: inputs
// are rounded to it and multiplied as float32.
func (e *Engine) ID() string {
	id := "cpu/" + cpu.Current().String()
	switch {
	case e.compute != engine.BF16:
		return id
	case cpu.AVX512BF16:
		return id + "+bf16"
	}
	return id + "+bf16-emulated"
}

// Compute implements engine.Engine.
func (e *Engine) Compute() engine.Compute { return e.compute }

// FastBF16 reports whether the processor multiplies bfloat16 itself, so that
// engine.BF16 is the faster way.
func FastBF16() bool { return cpu.AVX512BF16 }

// Rounds implements engine.Engine.
func (e *Engine) Rounds(weights tensor.DType) bool {
	return e.compute == engine.BF16 && weights == tensor.BF16
}

// matrix is memory of float32 activations, row after row.
type matrix struct{ data []float32 }

func (m *matrix) Bytes() int64 { return 4 * int64(cap(m.data)) }

// rounded is the x of products in bfloat16, where they read it.
type rounded struct{ *kernel.Rounded }

func (r *rounded) Bytes() int64 { return 0 } // it lies in scratch

// NewMat implements engine.Engine.
func (e *Engine) NewMat(rows, cols int) engine.Mat {
	return engine.Mat{Rows: rows, Cols: cols, Mem: &matrix{make([]float32, rows*cols)}}
}

// host returns x as a matrix that aliases it.
func host(x engine.Mat) tensor.Matrix {
	m, ok := x.Mem.(*matrix)
	if !ok {
		panic(fmt.Sprintf("cpu: activations in %T, want those of this engine, in float32", x.Mem))
	}
	lo, hi := x.First*x.Cols, (x.First+x.Rows)*x.Cols
	return tensor.Matrix{Rows: x.Rows, Cols: x.Cols, Data: m.data[lo:hi:hi]}
}

// Upload implements engine.Engine.
func (e *Engine) Upload(dst engine.Mat, src tensor.Matrix) { copyRows(host(dst), src) }

// Download implements engine.Engine.
func (e *Engine) Download(dst tensor.Matrix, src engine.Mat) { copyRows(dst, host(src)) }

func copyRows(dst, src tensor.Matrix) {
	if dst.Rows != src.Rows || dst.Cols != src.Cols {
		panic(fmt.Sprintf("cpu: copy of %d × %d to %d × %d, want equal sizes", src.Rows, src.Cols, dst.Rows, dst.Cols))
	}
	copy(dst.Data, src.Data)
}

// vec is an engine.Vec.
type vec []float32

func (v vec) Len() int { return len(v) }

// NewVec implements engine.Engine.
func (e *Engine) NewVec(v []float32) engine.Vec { return vec(v) }

// values returns the elements of v, nil for none.
func values(v engine.Vec) []float32 {
	if v == nil {
		return nil
	}
	return v.(vec)
}

// NewStream implements engine.Engine.
func (e *Engine) NewStream() engine.Stream { return &stream{engine: e} }

// stream is an engine.Stream, and an engine.Delta.
type stream struct {
	engine  *Engine
	scratch []*matrix // by depth: the i-th live buffer
	depth   int
}

var (
	_ engine.Stream = (*stream)(nil)
	_ engine.Delta  = (*stream)(nil)
)

// Alloc implements engine.Stream.
func (s *stream) Alloc(rows, cols int) engine.Mat {
	return engine.Mat{Rows: rows, Cols: cols, Mem: s.alloc(rows * cols)}
}

// alloc returns n elements of undefined content.
func (s *stream) alloc(n int) *matrix {
	if s.depth == len(s.scratch) {
		s.scratch = append(s.scratch, new(matrix))
	}
	m := s.scratch[s.depth]
	if cap(m.data) < n {
		m.data = make([]float32, n)
	}
	m.data = m.data[:n]
	s.depth++
	return m
}

// matrix returns scratch as a matrix.
func (s *stream) matrix(rows, cols int) tensor.Matrix {
	return tensor.Matrix{Rows: rows, Cols: cols, Data: s.alloc(rows * cols).data}
}

// Mark implements engine.Stream.
func (s *stream) Mark() int { return s.depth }

// Release implements engine.Stream.
func (s *stream) Release(mark int) { s.depth = mark }

// Bytes implements engine.Stream.
func (s *stream) Bytes() int64 {
	n := int64(0)
	for _, m := range s.scratch {
		n += m.Bytes()
	}
	return n
}

// Copy implements engine.Stream.
func (s *stream) Copy(dst, x engine.Mat) { copyRows(host(dst), host(x)) }

// Norm implements engine.Stream.
func (s *stream) Norm(dst, x engine.Mat, n *engine.Norm) { normRows(host(dst), host(x), n) }

func normRows(dst, x tensor.Matrix, n *engine.Norm) {
	w := values(n.W)
	eachToken(x.Rows, func(t int) { kernel.RMSNorm(dst.Row(t), x.Row(t), w, n.Eps) })
}

// Add implements engine.Stream.
func (s *stream) Add(x, y engine.Mat, post *engine.Norm) {
	to, from := host(x), host(y)
	eachToken(from.Rows, func(t int) {
		if post != nil {
			kernel.RMSNorm(from.Row(t), from.Row(t), values(post.W), post.Eps)
		}
		kernel.Add(to.Row(t), from.Row(t))
	})
}

// Sub implements engine.Stream.
func (s *stream) Sub(dst, x, y engine.Mat) {
	to, a, b := host(dst), host(x), host(y)
	eachToken(a.Rows, func(t int) {
		to, b := to.Row(t), b.Row(t)
		for j, v := range a.Row(t) {
			to[j] = v - b[j]
		}
	})
}

// Squares implements engine.Stream.
func (s *stream) Squares(dst []float64, x engine.Mat) {
	from := host(x)
	eachToken(from.Rows, func(t int) {
		dst[t] = 0
		for _, v := range from.Row(t) {
			dst[t] += float64(v) * float64(v)
		}
	})
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
