package cpu

import (
	"sync"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// gram gathers a stats.Gram. The products are float32 over at most gramTokens
// tokens, their sums float64, so |error| ≤ gramTokens·2⁻²⁴·(2/n)·Σ|x_i·x_j|.
type gram struct {
	n     int
	panel [][]float64 // nil before the first token
}

const (
	gramPanel  = stats.GramPanel
	gramTokens = 1024 // tokens a product: 45 MB of transposed activations at 11008 columns
)

// gramScratch is what one add works in.
type gramScratch struct{ x, product []float32 }

var gramScratches = sync.Pool{New: func() any { return new(gramScratch) }}

func grown(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}

// add takes in xᵀx.
func (g *gram) add(x tensor.Matrix) {
	if x.Rows == 0 {
		return
	}
	if g.panel == nil {
		g.panel = stats.NewGramPanels(g.n)
	}
	s := gramScratches.Get().(*gramScratch)
	defer gramScratches.Put(s)
	s.product = grown(s.product, g.n*gramPanel)
	for lo := 0; lo < x.Rows; lo += gramTokens {
		part := x.Slice(lo, min(lo+gramTokens, x.Rows))
		s.x = grown(s.x, g.n*part.Rows)
		transposeInTiles(s.x, part)
		for p := range g.panel {
			g.addPanel(p, s, part.Rows)
		}
	}
}

// addPanel adds the product of all channels up to the panel's last with the
// panel's own; s.x holds the tokens of one channel after the other.
func (g *gram) addPanel(p int, s *gramScratch, tokens int) {
	lo := p * gramPanel
	hi := min(lo+gramPanel, g.n)
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

// transposeInTiles writes x's columns one after the other.
func transposeInTiles(dst []float32, x tensor.Matrix) {
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
