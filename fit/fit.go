// Package fit says what the methods that fit weights by least squares, the updates
// and SparseSwaps, fit them to.
//
// What a Linear W computes in the pruned model lacks two things of what it computes
// in the dense one: what is pruned of W, and what was pruned before it, which
// changed its input. By itself a method makes up for the first, since it fits a
// weight Q to W on the input X that the pruned model gives. With
//
//	W* = W + E·(H + λI)⁻¹,    E = (2/n)·Σ_t w_t·e_t·x_tᵀ,  H = (2/n)·Σ_t w_t·x_t·x_tᵀ
//
// in W's place it makes up for both: e_t = y_t − W·x_t is what the output of a token
// lacks of y_t, the dense model's, and W* the weight that is best by
//
//	min over Q of (2/n)·Σ_t w_t·|y_t − Q·x_t|² + λ·‖Q − W‖²
//
// since that sum is (Q−W*)(H+λI)(Q−W*)ᵀ, summed over the rows, and a constant: a
// method that finds the best Q for a weight W and a Gram matrix H finds the best for
// the dense model's output when it is given W* for W. For quantisation the target is
// known as asymmetric calibration (Li et al. 2025, arXiv:2504.02692).
package fit

import (
	"fmt"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/linalg"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// The values of the parameters.
const (
	Dense  = "dense"  // to the dense model's output on the dense model's input
	Own    = "own"    // to the Linear's own weights on the pruned model's input
	Energy = "energy" // tokens weigh by the inverse of their output's energy
	Equal  = "equal"  // every token weighs the same
)

// Params declares what a method fits to; the defaults are what was published.
func Params() []param.Spec {
	return []param.Spec{
		{Name: "fit_to", Doc: "what weights are fitted to: the dense model's output, or the Linear's own weights on the pruned model's input", Default: Own, Choices: []any{Dense, Own}},
		{Name: "fit_tokens", Doc: "how tokens weigh in the fit of a branch's last Linear: by the inverse energy of the output, or all the same", Default: Equal, Choices: []any{Energy, Equal}},
	}
}

// Options are the parameters' values.
type Options struct {
	Dense  bool // fit_to is Dense
	Energy bool // fit_tokens is Energy
}

// Of returns those of p; without the parameters a method fits to the Linear's own
// weights, and tokens weigh the same.
func Of(p param.Values) Options {
	return Options{Dense: p["fit_to"] == Dense, Energy: p["fit_tokens"] == Energy}
}

// InOrder reports whether the Linears of a block must be pruned in the order in which
// their inputs depend on each other.
func (o Options) InOrder() bool { return o.Dense || o.Energy }

// Damping is λ as a share of mean(diag H).
const Damping = 0.01

// Correction is E·(H + λI)⁻¹ of all Linears of an input.
type Correction struct {
	by      tensor.Matrix
	ofInput bool // it is W's factor: W* = W + W·by
}

const blockColumns = 128 // of the factor

// New returns the correction by the Gram matrix g and by c, which relates to the
// input what its Linears' output lacks, or, if c.OfInput, what the input itself
// lacks: then E is W·c for each Linear. It is a *linalg.NotPositiveDefiniteError if
// g allows none. Products are float32.
func New(g *stats.Gram, c *stats.Cross) (*Correction, error) {
	if c.Cols != g.N {
		panic(fmt.Sprintf("fit: New: Cross of %d columns, Gram of %d", c.Cols, g.N))
	}
	h := tensor.NewMatrix(g.N, g.N)
	g.Upper(h)
	mean := 0.0
	for j := range g.N {
		mean += g.At(j, j) / float64(g.N)
	}
	for j := range g.N {
		d := g.At(j, j) + Damping*mean
		if d == 0 { // no input at all: c is 0 too
			d = 1
		}
		h.Data[j*g.N+j] = float32(d)
	}
	f, err := linalg.Factorize(h, blockColumns)
	if err != nil {
		if e, ok := err.(*linalg.NotPositiveDefiniteError); ok {
			e.Damping = Damping
		}
		return nil, err
	}
	by := tensor.NewMatrix(c.Rows, c.Cols)
	c.Write(by)
	f.Solve(by, make([]float32, 2*by.Rows*f.Block))
	if c.OfInput {
		linalg.TransposeSquare(by) // products want its columns side by side
	}
	return &Correction{by, c.OfInput}, nil
}

// Bytes returns what a Correction of an input of width in holds, with rows rows of a
// Cross, and what making it takes.
func Bytes(rows, in int) (held, making int64) {
	held = 4 * int64(rows) * int64(in)
	return held, held + 4*int64(in)*int64(in) + 8*int64(in)*blockColumns + 8*int64(rows)*blockColumns
}

// FLOP returns the operations of making a Correction.
func FLOP(rows, in int) float64 {
	n := float64(in)
	return n*n*n/3 + 2*float64(rows)*n*n
}

// Weight returns W* of w, rows lo and on of a Linear, in float32.
func (c *Correction) Weight(w *tensor.Weight, lo int) *tensor.Weight {
	to := tensor.NewWeight(tensor.F32, w.Rows, w.Cols)
	const strip = 256 // rows
	own, by := make([]float32, strip*w.Cols), make([]float32, strip*w.Cols)
	for at := 0; at < w.Rows; at += strip {
		rows := min(strip, w.Rows-at)
		for i := range rows {
			w.Row(own[i*w.Cols:(i+1)*w.Cols], at+i)
		}
		if c.ofInput {
			kernel.MatMulT(by, w.Cols, own, w.Cols, kernel.Source{F32: c.by.Data}, w.Cols, rows, w.Cols, w.Cols)
		} else {
			copy(by, c.by.Data[(lo+at)*w.Cols:(lo+at+rows)*w.Cols])
		}
		parallel.For(rows, 16, func(i0, i1 int) {
			for i := i0; i < i1; i++ {
				row := own[i*w.Cols : (i+1)*w.Cols]
				kernel.Add(row, by[i*w.Cols:(i+1)*w.Cols])
				to.SetRow(at+i, 0, row)
			}
		})
	}
	return to
}
