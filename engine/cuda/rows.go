package cuda

import (
	"fmt"
	"unsafe"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
)

// Copy implements engine.Stream.
func (s *stream) Copy(dst, x engine.Mat) {
	sameSize("Copy", dst.Rows, dst.Cols, x)
	s.engine.Move(at(dst), at(x), 4*size(x))
}

// Norm implements engine.Stream.
func (s *stream) Norm(dst, x engine.Mat, n *engine.Norm) {
	sameSize("Norm", dst.Rows, dst.Cols, x)
	s.norm(at(dst), x, n, false)
}

func (s *stream) norm(dst driver.Pointer, x engine.Mat, n *engine.Norm, rounded bool) {
	if n.W.Len() != x.Cols {
		panic(fmt.Sprintf("cuda: Norm: %d weights for %d columns", n.W.Len(), x.Cols))
	}
	s.rows("rms_norm", x.Rows, threadsFor(x.Cols), dst, at(x), vecAt(n.W, 0), n.Eps, x.Cols, rounded)
}

// threadsFor returns how many threads share a row: whole warps.
func threadsFor(cols int) int { return min(512, (cols+31)/32*32) }

// Add implements engine.Stream.
func (s *stream) Add(x, y engine.Mat, post *engine.Norm) {
	sameSize("Add", x.Rows, x.Cols, y)
	if post == nil {
		s.each("add", size(x), 4, at(x), at(y), size(x))
		return
	}
	s.rows("add_normed", x.Rows, threadsFor(x.Cols), at(x), at(y), vecAt(post.W, 0), post.Eps, x.Cols)
}

// Sub implements engine.Stream.
func (s *stream) Sub(dst, x, y engine.Mat) {
	sameSize("Sub", dst.Rows, dst.Cols, x)
	sameSize("Sub", dst.Rows, dst.Cols, y)
	s.each("subtract", size(x), 1, at(dst), at(x), at(y), size(x))
}

// Squares implements engine.Stream.
func (s *stream) Squares(dst []float64, x engine.Mat) {
	defer s.Release(s.Mark())
	sums := s.take(8 * int64(x.Rows))
	s.rows("squares", x.Rows, threadsFor(x.Cols), sums, at(x), x.Cols)
	download(s, dst[:x.Rows], sums)
}

// FirstHalves implements engine.Stream.
func (s *stream) FirstHalves(dst, x engine.Mat, dim int) {
	sameSize("FirstHalves", dst.Rows, 2*dst.Cols, x)
	s.each("first_halves", size(dst), 1, at(dst), at(x), dst.Cols, dim, size(dst))
}

// GateHalves implements engine.Stream.
func (s *stream) GateHalves(x, gates engine.Mat, dim int) {
	sameSize("GateHalves", x.Rows, 2*x.Cols, gates)
	s.each("gate_halves", size(x), 1, at(x), at(gates), x.Cols, dim, size(x))
}

// Route implements engine.Stream.
func (s *stream) Route(x engine.Mat, router engine.Proj, used int, renormalise bool) [][]engine.Routed {
	defer s.Release(s.Mark())
	type choice struct {
		expert int32
		weight float32
	}
	logits := s.Alloc(x.Rows, router.N)
	s.Linear(logits, x, router)
	chosen := make([]choice, x.Rows*used)
	choices := s.take(8 * int64(len(chosen)))
	const warps = 8
	s.rows("route", (x.Rows+warps-1)/warps, 32*warps, choices, at(logits), router.N, used, renormalise, x.Rows)
	download(s, chosen, choices)
	routed := make([][]engine.Routed, router.N)
	for i, c := range chosen {
		if c.weight >= 0 {
			routed[c.expert] = append(routed[c.expert], engine.Routed{Token: i / used, Weight: c.weight})
		}
	}
	return routed
}

// The kernels read engine.Routed as it lies in memory.
var _ [16]byte = [unsafe.Sizeof(engine.Routed{})]byte{}

// Gather implements engine.Stream.
func (s *stream) Gather(dst, x engine.Mat, tokens []engine.Routed) {
	defer s.Release(s.Mark())
	s.rows("gather", len(tokens), threadsFor(x.Cols), at(dst), at(x), upload(s, tokens), x.Cols)
}

// ScatterAdd implements engine.Stream.
func (s *stream) ScatterAdd(x, y engine.Mat, tokens []engine.Routed) {
	defer s.Release(s.Mark())
	s.rows("scatter_add", len(tokens), threadsFor(x.Cols), at(x), at(y), upload(s, tokens), x.Cols)
}
