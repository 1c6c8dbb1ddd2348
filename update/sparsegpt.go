package update

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/linalg"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// SparseGPT prunes column after column and lets the columns to the right make
// up for each.
var SparseGPT = Method{
	Name:      "sparsegpt",
	Doc:       "prunes the lowest w²/d² block by block; the columns to the right compensate",
	Cite:      "Frantar & Alistarh 2023, arXiv:2301.00774",
	NeedsGram: true,
	Params:    fit.Params(),
	Prepare:   prepareSparseGPT,
	Bytes:     func(in int, _ bool) int64 { return FactorBytes(in) },
	RunBytes:  func(out, _ int, _ bool) int64 { return 3 * 4 * int64(out) * blockColumns },
	FLOP:      func(in int, _ bool) float64 { return cube(in) / 3 },
	RunFLOP:   func(out, in int, _ bool) float64 { return float64(out) * float64(in) * float64(in) },
}

func prepareSparseGPT(g *stats.Gram, to pattern.Pattern, _ param.Values) (Prepared, error) {
	f, err := Factorize(g, to)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func cube(n int) float64 { return float64(n) * float64(n) * float64(n) }

// Damped is Prepared's.
func (f *Factor) Damped() float64 { return f.Damping }

// Run is Prepared's for SparseGPT:, for the columns i from left to right,
//
//	Q[:,i] = w[:,i] where kept, else 0
//	w[:,j] −= (w[:,i] − Q[:,i])/d_i·U_ij    for all j ≥ i
//
// Which weights go, if kept is nil: unstructured, of each block of 128 columns,
// all rows together, those of lowest w²/d² as the blocks to the left have made
// w; N:M, of each group those of lowest w²/d² as all columns to the left have.
// Through column b ⌊out·b·s⌋ are gone, so that the total is exact; the source
// rounds block by block.
//
// The blocks are not updated from the left, one product for each block and all
// of the rest. Since D = W − Q is E·U, with E the errors (w−Q)/d, E is D·R, and
// a block as the columns to its left have made it is
//
//	w[:,J] = W[:,J] + (D[:,K]·R[K,J])·U[J,J]    over all K left of J
//
// one product that writes 128 columns once, and that needs R only, never the
// inverse of H. D is the only matrix held besides w's own memory: it is work.
//
// Inside a block the loop is the one above. All is float32, no operation fused
// outside the products; selection squares nothing, |w|/d orders the same. The
// result does not depend on GOMAXPROCS. A column with a silent input becomes 0.
//
// Frantar & Alistarh 2023, arXiv:2301.00774, algorithm 1.
func (f *Factor) Run(ctx context.Context, w *tensor.Weight, kept *mask.Mask, t pattern.Target, work []float32) error {
	n := w.Rows * w.Cols
	if f.N != w.Cols || len(work) < n || kept != nil && (kept.Rows != w.Rows || kept.Cols != w.Cols) {
		panic(fmt.Sprintf("update: SparseGPT: weight of %d × %d, factor of %d, work of %d, mask %v", w.Rows, w.Cols, f.N, len(work), kept))
	}
	s := sweep{w: w, f: f, kept: kept, target: t, d: tensor.Matrix{Rows: w.Rows, Cols: w.Cols, Data: work[:n]}}
	if _, err := t.Pruned(w.Rows, w.Cols); err != nil {
		return err
	}
	if err := checkFinite(w); err != nil {
		return err
	}
	wide := w.Rows * min(f.Block, w.Cols)
	s.sums, s.now = make([]float32, wide), make([]float32, wide)
	s.ut = make([]float32, f.Block*f.Block)
	s.load()
	for b := range (w.Cols + f.Block - 1) / f.Block {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.block(b); err != nil {
			return err
		}
	}
	return nil
}

// sweep is a run of SparseGPT.
type sweep struct {
	w         *tensor.Weight
	f         *Factor
	kept      *mask.Mask // nil: select
	target    pattern.Target
	d         tensor.Matrix // W − Q in the blocks that are done, W in the others
	sums, now []float32     // out × block
	ut        []float32     // the block's U, transposed
}

// block does block b.
func (s *sweep) block(b int) error {
	rows := s.w.Rows
	lo := b * s.f.Block
	width := min(s.f.Block, s.w.Cols-lo)
	u := s.f.Inverse(b)
	now := tensor.Matrix{Rows: rows, Cols: width, Data: s.now[:rows*width]}
	if lo > 0 {
		sums := tensor.Matrix{Rows: rows, Cols: width, Data: s.sums[:rows*width]}
		s.f.Left(sums, s.d, b)
		linalg.Transpose(s.ut, u, s.f.Block, width)
		kernel.MatMulT(now.Data, width, sums.Data, width, kernel.Source{F32: s.ut}, width, rows, width, width)
	} else {
		clear(now.Data)
	}
	s.addWeight(now, lo)
	keeps := s.given(lo)
	switch {
	case s.kept != nil:
	case s.target.Pattern.Of != 0:
		keeps = nil
	default:
		chosen, err := s.choose(now, lo, u)
		if err != nil {
			return err
		}
		keeps = chosen.Kept
	}
	wide := padded(u, s.f.Block, width)
	parallel.For(rows, sweepRows, func(i0, i1 int) {
		r := newRowSweep(wide, width, s.target.Pattern)
		for i := i0; i < i1; i++ {
			if keeps != nil {
				r.given(now.Row(i), func(j int) bool { return keeps(i, j) })
			} else {
				r.groups(now.Row(i))
			}
		}
	})
	return s.store(now, lo)
}

// sweepRows is how many rows a task sweeps.
const sweepRows = 16

// given returns what is kept of the block at column lo by the mask.
func (s *sweep) given(lo int) func(i, j int) bool {
	if s.kept == nil {
		return nil
	}
	return func(i, j int) bool { return s.kept.Kept(i, lo+j) }
}

// load puts W into d; it is 0 where the input is silent.
func (s *sweep) load() {
	parallel.For(s.d.Rows, sweepRows, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			row := s.d.Row(i)
			s.w.Row(row, i)
			for j, dead := range s.f.dead {
				if dead {
					row[j] = 0
				}
			}
		}
	})
}

// checkFinite returns an error that names the first weight that is not finite.
func checkFinite(w *tensor.Weight) error {
	bad := make([]bool, w.Rows)
	parallel.For(w.Rows, sweepRows, func(i0, i1 int) {
		row := make([]float32, w.Cols)
		for i := i0; i < i1; i++ {
			w.Row(row, i)
			bad[i] = slices.ContainsFunc(row, notFinite)
		}
	})
	i := slices.Index(bad, true)
	if i < 0 {
		return nil
	}
	row := make([]float32, w.Cols)
	w.Row(row, i)
	j := slices.IndexFunc(row, notFinite)
	return fmt.Errorf("weight [%d, %d] is %v, want a finite number", i, j, row[j])
}

func notFinite(v float32) bool { return !(abs(v) <= math.MaxFloat32) }

// addWeight adds W to the block at column lo.
func (s *sweep) addWeight(now tensor.Matrix, lo int) {
	parallel.For(now.Rows, sweepRows, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			kernel.Add(now.Row(i), s.d.Row(i)[lo:lo+now.Cols])
		}
	})
}

// store writes the block's Q to w and takes it from the W in d.
func (s *sweep) store(now tensor.Matrix, lo int) error {
	overflow := make([]bool, now.Rows)
	parallel.For(now.Rows, sweepRows, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			q, d := now.Row(i), s.d.Row(i)[lo:]
			for j, v := range q {
				overflow[i] = overflow[i] || !(abs(v) <= largest(s.w.DType))
				d[j] -= v
			}
			s.w.SetRow(i, lo, q)
		}
	})
	if i := slices.Index(overflow, true); i >= 0 {
		j := slices.IndexFunc(now.Row(i), func(v float32) bool { return !(abs(v) <= largest(s.w.DType)) })
		return fmt.Errorf("updated weight [%d, %d] is %v, which %v cannot hold", i, lo+j, now.Row(i)[j], s.w.DType)
	}
	return nil
}

// largest returns the largest value that does not round to infinity.
func largest(d tensor.DType) float32 {
	switch d {
	case tensor.F16:
		return 65519
	case tensor.BF16:
		return 0x1.fefffep127
	}
	return math.MaxFloat32
}

// choose selects of the whole block.
func (s *sweep) choose(now tensor.Matrix, lo int, u []float32) (*mask.Mask, error) {
	saliency := s.sums[:len(now.Data)]
	parallel.For(now.Rows, sweepRows, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			to := saliency[i*now.Cols:]
			for j, v := range now.Row(i) {
				to[j] = abs(v) / u[j*s.f.Block+j]
			}
		}
	})
	k := s.target.Sparsity.CountOf(now.Rows*(lo+now.Cols)) - s.target.Sparsity.CountOf(now.Rows*lo)
	m, err := mask.Lowest(saliency, now.Rows, now.Cols, k)
	if err != nil {
		return nil, fmt.Errorf("columns %d to %d: %w", lo, lo+now.Cols-1, err)
	}
	return m, nil
}

func abs(v float32) float32 { return float32(math.Abs(float64(v))) }
