package update

import (
	"context"
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/tensor"
)

// When a row's refit ends. In conjugate gradients every iteration lowers the
// loss by what it gains, so what the last refitWindow iterations gained is what
// was left to gain before them, but for what is left now.
const (
	refitTolerance = 1e-3 // of the row's loss
	refitWindow    = 4    // iterations
	refitLimit     = 200  // iterations
)

// leastSquares finds the kept weights that minimise dᵀĤd, d = ŵ − q̂: with c what is
// added to the mask applied to ŵ, d_S = −c, it solves Ĥ_SS·c = (Ĥ·u)_S, u the
// pruned part of ŵ, for all rows of a strip together:
//
//	r = (Ĥd)_S, p = r
//	α = rᵀr/pᵀĤp,  c += αp,  r −= α(Ĥp)_S,  p = r + (r′ᵀr′/rᵀr)·p
//
// The loss falls by α·rᵀr in each iteration. A row whose pᵀĤp is not above 0
// ends there. A row's result does not depend on the other rows of its strip but
// for the rounding of the products.
//
// Hestenes & Stiefel 1952; the estimate of what is left, Strakoš & Tichý 2002.
type leastSquares struct {
	*admm
	ctx   context.Context
	w     *tensor.Weight
	kept  *mask.Mask
	start tensor.Matrix // V to begin from; empty: the mask applied to ŵ

	c, r, p, a []float32 // rows of a strip
	rows       []refitRow
}

// refitRow is a row at work. Its p and Ĥp lie at its place among the rows that
// are not done, c and r at its own place.
type refitRow struct {
	i, at    int // row of w; of the strip
	rr, loss float64
	gains    [refitWindow]float64
	done     bool
}

// strip refits the rows from lo to hi-1.
func (f *leastSquares) strip(lo, hi int) error {
	n := f.w.Cols
	f.rows = f.rows[:0]
	for i := lo; i < hi; i++ {
		f.rows = append(f.rows, refitRow{i: i, at: i - lo})
	}
	f.each(f.begin)
	f.product()
	f.each(f.residual)
	for it := range refitLimit {
		f.compact()
		if len(f.rows) == 0 {
			break
		}
		if err := f.ctx.Err(); err != nil {
			return err
		}
		f.product()
		f.each(func(k int, row *refitRow) { f.step(k, row, it) })
	}
	overflow := make([]bool, hi-lo)
	parallel.For(hi-lo, sweepRows, func(k0, k1 int) {
		q := make([]float32, n)
		for k := k0; k < k1; k++ {
			f.result(q, lo+k, k)
			limit := largest(f.w.DType)
			overflow[k] = slices.ContainsFunc(q, func(v float32) bool { return !(abs(v) <= limit) })
			if !overflow[k] {
				f.w.SetRow(lo+k, 0, q)
			}
		}
	})
	if k := slices.Index(overflow, true); k >= 0 {
		q, limit := make([]float32, n), largest(f.w.DType)
		f.result(q, lo+k, k)
		j := slices.IndexFunc(q, func(v float32) bool { return !(abs(v) <= limit) })
		return fmt.Errorf("updated weight [%d, %d] is %v, which %v cannot hold", lo+k, j, q[j], f.w.DType)
	}
	return nil
}

// each calls f with every row at work and its place.
func (f *leastSquares) each(g func(k int, row *refitRow)) {
	parallel.For(len(f.rows), 4, func(k0, k1 int) {
		for k := k0; k < k1; k++ {
			g(k, &f.rows[k])
		}
	})
}

// of returns row k of m.
func (f *leastSquares) of(m []float32, k int) []float32 { return m[k*f.w.Cols : (k+1)*f.w.Cols] }

// product writes Ĥp to a for the rows at work.
func (f *leastSquares) product() {
	n := f.w.Cols
	kernel.MatMulT(f.a, n, f.p, n, kernel.Source{F32: f.hat.Data}, n, len(f.rows), n, n)
}

// begin sets c, and d in p's place.
func (f *leastSquares) begin(k int, row *refitRow) {
	c, d := f.of(f.c, row.at), f.of(f.p, k)
	f.load(d, f.w, row.i)
	clear(c)
	for j := range d {
		if !f.kept.Kept(row.i, j) {
			continue
		}
		if f.start.Data != nil {
			c[j] = f.start.Row(row.i)[j] - d[j]
		}
		d[j] = -c[j]
	}
}

// residual sets r and p, and the loss.
func (f *leastSquares) residual(k int, row *refitRow) {
	p, a, r := f.of(f.p, k), f.of(f.a, k), f.of(f.r, row.at)
	for j, v := range a {
		row.loss += float64(p[j]) * float64(v)
		if !f.kept.Kept(row.i, j) {
			v = 0
		}
		row.rr += float64(v) * float64(v)
		r[j], p[j] = v, v
	}
	row.done = row.rr == 0
}

// step is an iteration of a row, whose Ĥp is there.
func (f *leastSquares) step(k int, row *refitRow, it int) {
	p, a, r, c := f.of(f.p, k), f.of(f.a, k), f.of(f.r, row.at), f.of(f.c, row.at)
	curve := 0.0
	for j, v := range p {
		curve += float64(v) * float64(a[j])
	}
	if row.done = !(curve > 0); row.done {
		return
	}
	alpha, rr := float32(row.rr/curve), 0.0
	for j, v := range p {
		c[j] += float32(alpha * v)
		if v != 0 || f.kept.Kept(row.i, j) {
			r[j] -= float32(alpha * a[j])
		}
		rr += float64(r[j]) * float64(r[j])
	}
	gain := row.rr * row.rr / curve
	row.loss -= gain
	row.gains[it%refitWindow] = gain
	sum := 0.0
	for _, g := range row.gains {
		sum += g
	}
	row.done = rr == 0 || it+1 >= refitWindow && !(sum > refitTolerance*row.loss)
	beta := float32(rr / row.rr)
	row.rr = rr
	for j, v := range r {
		p[j] = v + float32(beta*p[j])
	}
}

// compact drops the rows that are done.
func (f *leastSquares) compact() {
	n := 0
	for k, row := range f.rows {
		if row.done {
			continue
		}
		if n != k {
			copy(f.of(f.p, n), f.of(f.p, k))
			f.rows[n] = row
		}
		n++
	}
	f.rows = f.rows[:n]
}

// result writes row i of Q, whose c is row k of the strip.
func (f *leastSquares) result(q []float32, i, k int) {
	f.w.Row(q, i)
	c := f.of(f.c, k)
	for j := range q {
		if !f.kept.Kept(i, j) || f.dead[j] {
			q[j] = 0
		} else if c[j] != 0 {
			q[j] += c[j] / f.scale[j]
		}
	}
}
