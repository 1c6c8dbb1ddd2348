package refine

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Gram is a stats.Gram as refinements read it: whole, in float32, so that a
// column is a run of memory.
type Gram struct {
	h tensor.Matrix // H, in × in

	// near bounds how much two columns can have in common:
	// |H_jk| ≤ near_j·near_k·sqrt(H_jj·H_kk) for all k ≠ j.
	near []float64
}

// GramBytes returns what the Gram of an input of width in holds.
func GramBytes(in int) int64 { return 4*int64(in)*int64(in) + 8*int64(in) }

// NewGram copies g.
func NewGram(g *stats.Gram) *Gram {
	s := &Gram{h: tensor.NewMatrix(g.N, g.N), near: make([]float64, g.N)}
	g.Upper(s.h)
	s.mirror()
	norm := make([]float64, g.N)
	for j := range norm {
		norm[j] = math.Sqrt(float64(s.h.Row(j)[j]))
	}
	parallel.For(g.N, 16, func(lo, hi int) {
		for j := lo; j < hi; j++ {
			s.near[j] = math.Sqrt(nearest(s.h.Row(j), norm, j))
		}
	})
	return s
}

// nearest returns the largest |H_jk|/sqrt(H_jj·H_kk), k ≠ j, rounded up. With
// all near_j its square roots, their product is at least the smaller of the two.
func nearest(row []float32, norm []float64, j int) float64 {
	top := 0.0
	for k, v := range row {
		// A silent channel has H_jk = 0 with every other.
		if c := math.Abs(float64(v)); c > top*norm[k] && k != j && norm[k] > 0 {
			top = c / norm[k]
		}
	}
	if norm[j] == 0 {
		return 0
	}
	const up = 1 + 1e-9 // more than the roundings here
	return top / norm[j] * up
}

// mirror copies the upper triangle to the lower.
func (s *Gram) mirror() {
	const tile = 32 // source and target in the first cache
	n := s.h.Rows
	parallel.For((n+tile-1)/tile, 1, func(lo, hi int) {
		for i0 := lo * tile; i0 < min(hi*tile, n); i0 += tile {
			for j0 := 0; j0 <= i0; j0 += tile {
				for i := i0; i < min(i0+tile, n); i++ {
					row := s.h.Row(i)
					for j := j0; j < min(j0+tile, i); j++ {
						row[j] = s.h.Data[j*n+i]
					}
				}
			}
		}
	})
}

func (s *Gram) check(cols int) {
	if s == nil || s.h.Rows != cols {
		panic(fmt.Sprintf("refine: Gram %v, want one of %d columns", s, cols))
	}
}

// groups returns the blocks of H of every of columns that follow each other in at,
// one after the other, so that those of a row are read in a run.
func (s *Gram) groups(at []int, of int) []float32 {
	blocks := make([]float32, 0, s.h.Rows*of)
	for k, j := range at {
		h, lo := s.h.Row(j), k/of*of
		for _, i := range at[lo : lo+of] {
			blocks = append(blocks, h[i])
		}
	}
	return blocks
}
