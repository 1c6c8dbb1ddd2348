package stats

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Gram is the second moment of an input,
//
//	H = (2/n)·Σ_sequences XᵀX    in × in, n sequences
//
// of which the upper half is kept, in float64: GramBytes, the size of the whole
// in float32.
type Gram struct {
	N     int
	scale float64
	panel [][]float64 // of GramPanel columns: all rows down to its last; nil: all zeros
}

// GramPanel is the number of columns of a panel: with 256, 1/43 of the products of
// 11008 columns is spent on the lower half.
const GramPanel = 256

// NewGram returns the matrix whose elements are scale times those of panels. A
// panel has the elements of GramPanel columns, the last perhaps of fewer, and of
// all rows down to its last column's, row after row. nil is a matrix of zeros.
func NewGram(n int, scale float64, panels [][]float64) *Gram {
	for p, panel := range panels {
		lo := p * GramPanel
		if hi := min(lo+GramPanel, n); len(panel) != hi*(hi-lo) {
			panic(fmt.Sprintf("stats: NewGram: panel %d of %d columns has %d elements, want %d", p, n, len(panel), hi*(hi-lo)))
		}
	}
	if want := (n + GramPanel - 1) / GramPanel; panels != nil && len(panels) != want {
		panic(fmt.Sprintf("stats: NewGram: %d panels of %d columns, want %d", len(panels), n, want))
	}
	return &Gram{N: n, scale: scale, panel: panels}
}

// NewGramPanels returns panels of zeros.
func NewGramPanels(n int) [][]float64 {
	var panels [][]float64
	for lo := 0; lo < n; lo += GramPanel {
		hi := min(lo+GramPanel, n)
		panels = append(panels, make([]float64, hi*(hi-lo)))
	}
	return panels
}

// GramBytes returns what a Gram of width in holds.
func GramBytes(in int) int64 {
	n := int64(in)
	return 4*n*n + 4*n*GramPanel
}

// At returns H_ij.
func (g *Gram) At(i, j int) float64 {
	if i > j {
		i, j = j, i
	}
	if g.panel == nil {
		return 0
	}
	p := j / GramPanel
	lo := p * GramPanel
	return g.scale * g.panel[p][i*(min(lo+GramPanel, g.N)-lo)+j-lo]
}

// Permuted returns the matrix of the channels in another order: channel k of it
// is channel order[k] of g.
func (g *Gram) Permuted(order []int) *Gram {
	if len(order) != g.N {
		panic(fmt.Sprintf("stats: Gram.Permuted: order of %d channels, want %d", len(order), g.N))
	}
	p := &Gram{N: g.N, scale: g.scale}
	if g.panel == nil {
		return p
	}
	p.panel = NewGramPanels(g.N)
	parallel.For(g.N, 16, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			for j := i / GramPanel * GramPanel; j < g.N; j++ { // the panels hold a square on the diagonal
				a, b := min(order[i], order[j]), max(order[i], order[j])
				*p.at(i, j) = *g.at(a, b)
			}
		}
	})
	return p
}

// at is the sum behind H_ij, j in a panel that reaches down to i.
func (g *Gram) at(i, j int) *float64 {
	p := j / GramPanel
	lo := p * GramPanel
	return &g.panel[p][i*(min(lo+GramPanel, g.N)-lo)+j-lo]
}

// Upper writes the upper triangle of H, with its diagonal, to dst, N × N; what
// lies below it is left as it is.
func (g *Gram) Upper(dst tensor.Matrix) {
	if dst.Rows != g.N || dst.Cols != g.N {
		panic(fmt.Sprintf("stats: Gram.Upper: dst %d × %d, want %d × %d", dst.Rows, dst.Cols, g.N, g.N))
	}
	parallel.For(g.N, 64, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			row := dst.Row(i)
			for j := i; j < g.N; j++ {
				row[j] = float32(g.At(i, j))
			}
		}
	})
}

// check returns an error that names the first channel whose H_jj is not a
// finite float32; |H_ij| ≤ sqrt(H_ii·H_jj), so then no other is.
func (g *Gram) check() error {
	for j := range g.N {
		if d := float32(g.At(j, j)); math.IsNaN(float64(d)) || math.IsInf(float64(d), 0) {
			return fmt.Errorf("input channel %d: diagonal of the Gram matrix is %v, want a finite float32", j, d)
		}
	}
	return nil
}
