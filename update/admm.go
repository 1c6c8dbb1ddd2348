package update

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/linalg"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// ADMM selects by the alternating direction method of multipliers, and refits
// what is kept by conjugate gradients.
var ADMM = Method{
	Name:      "admm",
	Doc:       "selects by ADMM on the Gram matrix, then refits the kept weights by conjugate gradients",
	Cite:      "Meng et al. 2024, arXiv:2406.07831; Boža 2024, arXiv:2401.02938",
	NeedsGram: true,
	Params:    fit.Params(),
	Prepare:   func(g *stats.Gram, _ pattern.Pattern, _ param.Values) (Prepared, error) { return newADMM(g) },
	Bytes:     admmBytes,
	RunBytes:  admmRunBytes,
	FLOP:      admmFLOP,
	RunFLOP:   admmRunFLOP,
}

// The schedule of Boža 2024, section 3.
const (
	admmRho        = 1.0 // against diag Ĥ = 1
	admmIterations = 20
	admmSelects    = 15 // of these, the first ones that select
)

// stripRows is how many rows are refitted together.
const stripRows = 512

// admm prunes and refits for
//
//	min over Q of Σ_rows (w−q)ᵀ(H+λI)(w−q)   Q zero where pruned
//
// in the scale in which all channels are alike: s_j² = H_jj + λ, Ĥ_ij =
// (H+λI)_ij/(s_i·s_j), ŵ_j = w_j·s_j, with λ the damping.
//
// To select, if no mask is given: with V = ŵ at first, 20 times
//
//	S = what is kept of V (|V| lowest go)
//	V ← ŵ + ρ·(Ĥ+ρI)⁻¹·(V on S, −V elsewhere, less ŵ) + (0 on S, V elsewhere)
//
// which is ADMM with V = W + U in place of its two variables, ρ = 1. The number
// of pruned weights grows as 1 − (1−t/15)³ of the whole; the mask of t = 15 stays.
// Unstructured the whole matrix is compared; N:M what the groups would prune.
//
// The refit minimises over the kept weights alone, by conjugate gradients from
// the mask applied to ŵ, or from ADMM's V: in Ĥ's scale the Jacobi
// preconditioner is the identity. A row ends when what its last iterations
// gained says that what is left to gain is small (leastSquares).
//
// Products are float32, scalar products float64. The result does not depend on
// GOMAXPROCS. A column with a silent input becomes 0.
type admm struct {
	hat    tensor.Matrix  // Ĥ
	scale  []float32      // s
	dead   []bool         // columns whose input is silent
	factor *linalg.Factor // of Ĥ + ρI; nil until a mask is asked for
}

// newADMM scales g, whose damping is Damping.
func newADMM(g *stats.Gram) (*admm, error) {
	n := g.N
	a := &admm{hat: tensor.NewMatrix(n, n), scale: make([]float32, n), dead: make([]bool, n)}
	mean := 0.0
	for j := range n {
		d := g.At(j, j)
		if d == 0 {
			a.dead[j], d = true, 1
		}
		mean += d / float64(n)
	}
	inverse := make([]float64, n)
	for j := range n {
		d := g.At(j, j)
		if a.dead[j] {
			d = 1
		}
		d += Damping * mean
		if !(d > 0 && d <= math.MaxFloat32) {
			return nil, &linalg.NotPositiveDefiniteError{Pivot: j, Value: d, Damping: Damping}
		}
		a.scale[j], inverse[j] = float32(math.Sqrt(d)), 1/math.Sqrt(d)
	}
	g.Upper(a.hat)
	parallel.For(n, 64, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			row := a.hat.Row(i)
			row[i] = 1
			for j := i + 1; j < n; j++ {
				row[j] = float32(float64(row[j]) * inverse[i] * inverse[j])
			}
		}
	})
	linalg.Mirror(a.hat)
	return a, nil
}

// admmBytes is Method.Bytes: Ĥ, and to select the factor.
func admmBytes(in int, selects bool) int64 {
	n := 4 * int64(in) * int64(in)
	if selects {
		n += FactorBytes(in)
	}
	return n
}

// admmRunBytes is Method.RunBytes: four matrices of a strip, and to select the
// sizes of V.
func admmRunBytes(rows, in int, selects bool) int64 {
	n := 4 * 4 * int64(in) * int64(min(rows, stripRows))
	if selects {
		n += 4 * int64(in) * int64(rows)
	}
	return n
}

// admmFLOP is Method.FLOP: the factor, to select.
func admmFLOP(in int, selects bool) float64 {
	if !selects {
		return 0
	}
	return cube(in) / 3
}

// admmRunFLOP is Method.RunFLOP: each iteration is a product with an in × in
// matrix.
func admmRunFLOP(out, in int, selects bool) float64 {
	const usual = 20 // of a refit: 4 to 34, by Linear, on the demo model
	iterations := float64(usual)
	if selects {
		iterations += admmIterations
	}
	return iterations * 2 * float64(out) * float64(in) * float64(in)
}

func (a *admm) Damped() float64 { return Damping }

// Run is Method's.
func (a *admm) Run(ctx context.Context, w *tensor.Weight, kept *mask.Mask, t pattern.Target, work []float32) error {
	n := w.Rows * w.Cols
	if a.hat.Rows != w.Cols || len(work) < n || kept != nil && (kept.Rows != w.Rows || kept.Cols != w.Cols) {
		panic(fmt.Sprintf("update: ADMM: weight of %d × %d, Gram of %d, work of %d, mask %v", w.Rows, w.Cols, a.hat.Rows, len(work), kept))
	}
	if _, err := t.Pruned(w.Rows, w.Cols); err != nil {
		return err
	}
	if err := checkFinite(w); err != nil {
		return err
	}
	r := &leastSquares{ctx: ctx, admm: a, w: w, kept: kept}
	if kept == nil {
		r.start = tensor.Matrix{Rows: w.Rows, Cols: w.Cols, Data: work[:n]}
		var err error
		if r.kept, err = a.choose(ctx, w, r.start, t); err != nil {
			return err
		}
	}
	size := min(w.Rows, stripRows) * w.Cols
	for _, m := range []*[]float32{&r.c, &r.r, &r.p, &r.a} {
		*m = make([]float32, size)
	}
	for lo := 0; lo < w.Rows; lo += stripRows {
		if err := r.strip(lo, min(lo+stripRows, w.Rows)); err != nil {
			return err
		}
	}
	return nil
}

// load writes row i of ŵ.
func (a *admm) load(dst []float32, w *tensor.Weight, i int) {
	w.Row(dst, i)
	for j := range dst {
		dst[j] *= a.scale[j]
		if a.dead[j] {
			dst[j] = 0
		}
	}
}

// choose returns ADMM's mask; v becomes its V.
func (a *admm) choose(ctx context.Context, w *tensor.Weight, v tensor.Matrix, t pattern.Target) (*mask.Mask, error) {
	if err := a.factorize(); err != nil {
		return nil, err
	}
	total, err := t.Pruned(w.Rows, w.Cols)
	if err != nil {
		return nil, err
	}
	for i := range w.Rows {
		a.load(v.Row(i), w, i)
	}
	var kept *mask.Mask
	size := make([]float32, len(v.Data))
	rows := min(w.Rows, stripRows)
	step, work := make([]float32, rows*w.Cols), make([]float32, 2*rows*a.factor.Block)
	for it := range admmIterations {
		if it < admmSelects {
			left := admmSelects - 1 - it
			k := total - total*left*left*left/(admmSelects*admmSelects*admmSelects)
			if kept, err = lowest(size, v, k, t); err != nil {
				return nil, err
			}
		}
		for lo := 0; lo < w.Rows; lo += rows {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			hi := min(lo+rows, w.Rows)
			a.iterate(w, v, kept, tensor.Matrix{Rows: hi - lo, Cols: w.Cols, Data: step[:(hi-lo)*w.Cols]}, lo, work)
		}
	}
	return kept, nil
}

// factorize makes the factor of Ĥ + ρI, unless it is there.
func (a *admm) factorize() error {
	if a.factor != nil {
		return nil
	}
	h := tensor.NewMatrix(a.hat.Rows, a.hat.Cols)
	copy(h.Data, a.hat.Data)
	for j := range h.Rows {
		h.Data[j*h.Cols+j] += admmRho
	}
	var err error
	a.factor, err = linalg.Factorize(h, blockColumns)
	var not *linalg.NotPositiveDefiniteError
	if errors.As(err, &not) {
		not.Damping = Damping
	}
	return err
}

// lowest prunes k weights of V, of an N:M pattern some that it would prune;
// size is memory.
func lowest(size []float32, v tensor.Matrix, k int, t pattern.Target) (*mask.Mask, error) {
	parallel.For(v.Rows, sweepRows, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			to := size[i*v.Cols : (i+1)*v.Cols]
			for j, x := range v.Row(i) {
				to[j] = abs(x)
			}
		}
	})
	if t.Pattern.Of == 0 {
		return mask.Lowest(size, v.Rows, v.Cols, k)
	}
	full, err := mask.Select(size, v.Rows, v.Cols, t)
	if err != nil || full.Pruned() == k {
		return full, err
	}
	parallel.For(v.Rows, sweepRows, func(i0, i1 int) {
		for i := i0; i < i1; i++ {
			for j := range v.Cols {
				if full.Kept(i, j) {
					size[i*v.Cols+j] = math.MaxFloat32
				}
			}
		}
	})
	return mask.Lowest(size, v.Rows, v.Cols, k)
}

// iterate is one iteration for the rows of V from lo on, as many as x has.
func (a *admm) iterate(w *tensor.Weight, v tensor.Matrix, kept *mask.Mask, x tensor.Matrix, lo int, work []float32) {
	each := func(f func(hat, v, x []float32, i int)) {
		parallel.For(x.Rows, sweepRows, func(i0, i1 int) {
			hat := make([]float32, x.Cols)
			for i := i0; i < i1; i++ {
				a.load(hat, w, lo+i)
				f(hat, v.Row(lo+i), x.Row(i), lo+i)
			}
		})
	}
	each(func(hat, v, x []float32, i int) {
		for j, y := range v {
			if !kept.Kept(i, j) {
				y = -y
			}
			x[j] = admmRho * (y - hat[j])
		}
	})
	a.factor.Solve(x, work)
	each(func(hat, v, x []float32, i int) {
		for j, y := range x {
			y += hat[j]
			if !kept.Kept(i, j) {
				y += v[j]
			}
			v[j] = y
		}
	})
}
