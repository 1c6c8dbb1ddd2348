package stats

import (
	"fmt"
	"math"
	"sync"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Gram is the second moment of an input,
//
//	H = (2/n)·Σ_sequences XᵀX    in × in, n sequences
//
// of which the upper half is kept, in float64: GramBytes, the size of the whole
// in float32. The products are float32 over at most gramTokens tokens, their
// sums float64, so |error| ≤ gramTokens·2⁻²⁴·(2/n)·Σ|x_i·x_j|. It does not
// depend on GOMAXPROCS.
type Gram struct {
	N     int
	scale float64
	panel [][]float64 // of gramPanel columns: all rows down to its last, nil before the first token
}

const (
	gramPanel  = 256  // columns of a panel: 1/43 of the products of 11008 columns is spent on the lower half
	gramTokens = 1024 // tokens a product: 45 MB of transposed activations at 11008 columns
)

// GramBytes returns what a Gram of width in holds.
func GramBytes(in int) int64 {
	n := int64(in)
	return 4*n*n + 4*n*gramPanel
}

// GramScratchBytes returns what adding to a Gram of width in takes besides.
func GramScratchBytes(in int) int64 { return 4 * int64(in) * (gramTokens + gramPanel) }

// NewGram returns a zero matrix.
func NewGram(in int) *Gram { return &Gram{N: in, scale: 1} }

// gramScratch is what one Add works in.
type gramScratch struct{ x, product []float32 }

var gramScratches = sync.Pool{New: func() any { return new(gramScratch) }}

func grown(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}

// add takes in xᵀx.
func (g *Gram) add(x tensor.Matrix) {
	if x.Rows == 0 {
		return
	}
	if g.panel == nil {
		for lo := 0; lo < g.N; lo += gramPanel {
			hi := min(lo+gramPanel, g.N)
			g.panel = append(g.panel, make([]float64, hi*(hi-lo)))
		}
	}
	s := gramScratches.Get().(*gramScratch)
	defer gramScratches.Put(s)
	s.product = grown(s.product, g.N*gramPanel)
	for lo := 0; lo < x.Rows; lo += gramTokens {
		part := x.Slice(lo, min(lo+gramTokens, x.Rows))
		s.x = grown(s.x, g.N*part.Rows)
		transpose(s.x, part)
		for p := range g.panel {
			g.addPanel(p, s, part.Rows)
		}
	}
}

// addPanel adds the product of all channels up to the panel's last with the
// panel's own; s.x holds the tokens of one channel after the other.
func (g *Gram) addPanel(p int, s *gramScratch, tokens int) {
	lo := p * gramPanel
	hi := min(lo+gramPanel, g.N)
	width := hi - lo
	kernel.MatMulT(s.product, width, s.x, tokens, kernel.Source{F32: s.x[lo*tokens:]}, tokens, hi, width, tokens)
	sum := g.panel[p]
	parallel.For(hi, gramPanel, func(i0, i1 int) {
		to := sum[i0*width : i1*width]
		for i, v := range s.product[i0*width : i1*width] {
			to[i] += float64(v)
		}
	})
}

// transpose writes x's columns one after the other.
func transpose(dst []float32, x tensor.Matrix) {
	const tile = 32 // 32 × 32 float32 of source and target fit in the first cache
	parallel.For((x.Cols+tile-1)/tile, 4, func(lo, hi int) {
		for j0 := lo * tile; j0 < min(hi*tile, x.Cols); j0 += tile {
			j1 := min(j0+tile, x.Cols)
			for t0 := 0; t0 < x.Rows; t0 += tile {
				for t := t0; t < min(t0+tile, x.Rows); t++ {
					for j, v := range x.Data[t*x.Cols+j0 : t*x.Cols+j1] {
						dst[(j0+j)*x.Rows+t] = v
					}
				}
			}
		}
	})
}

// At returns H_ij.
func (g *Gram) At(i, j int) float64 {
	if i > j {
		i, j = j, i
	}
	if g.panel == nil {
		return 0
	}
	p := j / gramPanel
	lo := p * gramPanel
	return g.scale * g.panel[p][i*(min(lo+gramPanel, g.N)-lo)+j-lo]
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
	for lo := 0; lo < g.N; lo += gramPanel {
		p.panel = append(p.panel, make([]float64, min(lo+gramPanel, g.N)*(min(lo+gramPanel, g.N)-lo)))
	}
	parallel.For(g.N, 16, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			for j := i / gramPanel * gramPanel; j < g.N; j++ { // the panels hold a square on the diagonal
				a, b := min(order[i], order[j]), max(order[i], order[j])
				*p.at(i, j) = *g.at(a, b)
			}
		}
	})
	return p
}

// at is the sum behind H_ij, j in a panel that reaches down to i.
func (g *Gram) at(i, j int) *float64 {
	p := j / gramPanel
	lo := p * gramPanel
	return &g.panel[p][i*(min(lo+gramPanel, g.N)-lo)+j-lo]
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
