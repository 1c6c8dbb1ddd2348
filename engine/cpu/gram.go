package cpu

import (
	"fmt"
	"math"
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
type gramScratch struct{ x, y, product []float32 }

var gramScratches = sync.Pool{New: func() any { return new(gramScratch) }}

func grown(s []float32, n int) []float32 {
	if cap(s) < n {
		return make([]float32, n)
	}
	return s[:n]
}

// add takes in Σ_t w_t·x_t x_tᵀ; without weights each is 1.
func (g *gram) add(x tensor.Matrix, weights []float64) {
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
		scaleTokens(s.x, weights, lo, part.Rows)
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

// scaleTokens multiplies token t of x, which holds the tokens lo and on of one
// channel after the other, with the root of its weight.
func scaleTokens(x []float32, weights []float64, lo, tokens int) {
	if weights == nil {
		return
	}
	roots := make([]float32, tokens)
	for t := range roots {
		roots[t] = float32(math.Sqrt(weights[lo+t]))
	}
	parallel.For(len(x)/tokens, 16, func(j0, j1 int) {
		for j := j0; j < j1; j++ {
			for t, r := range roots {
				x[j*tokens+t] *= r
			}
		}
	})
}

// cross gathers a stats.Cross as gram does a Gram matrix.
type cross struct {
	rows, cols int
	sum        []float64 // nil before the first token
}

// add takes in Σ_t w_t·y_t x_tᵀ; without weights each is 1.
func (c *cross) add(x tensor.Matrix, weights []float64, y tensor.Matrix) {
	if y.Cols != c.rows || y.Rows != x.Rows {
		panic(fmt.Sprintf("cpu: Stats.AddFit: %d × %d of what tokens lack, want %d × %d", y.Rows, y.Cols, x.Rows, c.rows))
	}
	if c.sum == nil {
		c.sum = make([]float64, c.rows*c.cols)
	}
	s := gramScratches.Get().(*gramScratch)
	defer gramScratches.Put(s)
	s.product = grown(s.product, c.rows*gramPanel)
	for lo := 0; lo < x.Rows; lo += gramTokens {
		hi := min(lo+gramTokens, x.Rows)
		tokens := hi - lo
		s.x, s.y = grown(s.x, c.cols*tokens), grown(s.y, c.rows*tokens)
		transposeInTiles(s.x, x.Slice(lo, hi))
		transposeInTiles(s.y, y.Slice(lo, hi))
		scaleTokens(s.x, weights, lo, tokens)
		scaleTokens(s.y, weights, lo, tokens)
		for at := 0; at < c.cols; at += gramPanel {
			width := min(gramPanel, c.cols-at)
			kernel.MatMulT(s.product, width, s.y, tokens, kernel.Source{F32: s.x[at*tokens:]}, tokens, c.rows, width, tokens)
			parallel.For(c.rows, gramPanel, func(i0, i1 int) {
				for i := i0; i < i1; i++ {
					to := c.sum[i*c.cols+at:]
					for j, v := range s.product[i*width : (i+1)*width] {
						to[j] += float64(v)
					}
				}
			})
		}
	}
}

// matrix returns what has been gathered.
func (c *cross) matrix(scale float64) *stats.Cross {
	if c.sum == nil {
		c.sum = make([]float64, c.rows*c.cols)
	}
	return stats.NewCross(c.rows, c.cols, scale, c.sum)
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
