package cpu

import (
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

var _ engine.Gradients = (*stream)(nil)

// LinearBack implements engine.Gradients. Products are float32, whatever the weight
// is stored in.
func (s *stream) LinearBack(dx, dw, dy, x engine.Mat, w engine.Proj) {
	defer s.Release(s.Mark())
	_, in := w.W.Dims()
	from := host(dy)
	if dw.Rows > 0 {
		dyT, xT, product := s.transposed(from), s.transposed(host(x)), s.matrix(w.N, in)
		kernel.MatMulT(product.Data, in, dyT.Data, dyT.Cols, kernel.Source{F32: xT.Data}, xT.Cols, w.N, in, from.Rows)
		to := host(dw)
		eachToken(w.N, func(f int) { kernel.Add(to.Row(f), product.Row(f)) })
	}
	if dx.Rows > 0 {
		own, dense := plainOf(w.W).Slice(w.Lo, w.Lo+w.N), s.matrix(w.N, in)
		eachToken(w.N, func(f int) { own.Row(dense.Row(f), f) })
		wT, to := s.transposed(dense), host(dx)
		kernel.MatMulT(to.Data, in, from.Data, from.Cols, kernel.Source{F32: wT.Data}, wT.Cols, from.Rows, in, w.N)
	}
}

// plainOf returns op as a plain weight.
func plainOf(op engine.Op) *tensor.Weight {
	if w := op.Weight(); w != nil {
		return w
	}
	out, in := op.Dims()
	w := tensor.NewWeight(op.DType(), out, in)
	op.Read(w)
	return w
}

// transposed returns the transpose of x, in scratch.
func (s *stream) transposed(x tensor.Matrix) tensor.Matrix {
	t := s.matrix(x.Cols, x.Rows)
	transposeInTiles(t.Data, x)
	return t
}

// NormBack implements engine.Gradients.
func (s *stream) NormBack(dx, dy, x engine.Mat, n *engine.Norm) {
	to, d, from, w := host(dx), host(dy), host(x), values(n.W)
	eachToken(from.Rows, func(t int) { normBack(to.Row(t), d.Row(t), from.Row(t), w, n.Eps) })
}

// normBack writes the gradient by x of y_j = x_j·w_j·r, r = 1/sqrt(mean(x²) + eps):
//
//	dx_j = r·w_j·dy_j − x_j·r³/n·Σ_i w_i·dy_i·x_i
//
// dx may be dy. Sums are float64.
func normBack(dx, dy, x, w []float32, eps float32) {
	sum, dot := 0.0, 0.0
	for j, v := range x {
		sum += float64(v) * float64(v)
		dot += float64(w[j]) * float64(dy[j]) * float64(v)
	}
	n := float64(len(x))
	r := 1 / math.Sqrt(sum/n+float64(eps))
	by := r * r * r / n * dot
	for j, v := range x {
		dx[j] = float32(r*float64(w[j])*float64(dy[j]) - float64(v)*by)
	}
}

// Activate implements engine.Gradients.
func (s *stream) Activate(dst, gate, up engine.Mat, act engine.Activation) {
	to, g, u := host(dst), host(gate), host(up)
	f := kernel.SiluMul
	if act == engine.GELU {
		f = kernel.GeluMul
	}
	eachToken(g.Rows, func(t int) { f(to.Row(t), g.Row(t), u.Row(t)) })
}

// ActivateBack implements engine.Gradients.
func (s *stream) ActivateBack(dgate, dup, dy, gate, up engine.Mat, act engine.Activation) {
	dg, du, d, g, u := host(dgate), host(dup), host(dy), host(gate), host(up)
	slope := siluSlope
	if act == engine.GELU {
		slope = geluSlope
	}
	eachToken(g.Rows, func(t int) {
		dg, du, u, d := dg.Row(t), du.Row(t), u.Row(t), d.Row(t)
		for i, x := range g.Row(t) {
			value, by := slope(float64(x))
			dg[i], du[i] = float32(float64(d[i])*float64(u[i])*by), float32(float64(d[i])*value)
		}
	})
}

// siluSlope returns x·sigmoid(x) and its derivative.
func siluSlope(x float64) (value, slope float64) {
	p := 1 / (1 + math.Exp(-x))
	return x * p, p * (1 + x*(1-p))
}

// geluSlope returns the approximation of GELU by tanh and its derivative.
func geluSlope(x float64) (value, slope float64) {
	const c, cube = 0.7978845608028654, 0.044715 // sqrt(2/π)
	th := math.Tanh(c * (x + cube*x*x*x))
	return 0.5 * x * (1 + th), 0.5*(1+th) + 0.5*x*(1-th*th)*c*(1+3*cube*x*x)
}

// backTokens is how many queries AttendBack holds the scores of.
const backTokens = 64

// AttendBack implements engine.Gradients. The scores of backTokens queries of a head
// with the keys that they see exist at a time: P is their softmax, and with dP = dy·Vᵀ
//
//	dS = P∘(dP − Σ_j P·dP),  dV += Pᵀ·dy,  dQ = dS·K,  dK += dSᵀ·Q
//
// K and Q normed and turned to their positions, dS times what scale and soft cap make
// of it. A key and value head is one task.
func (s *stream) AttendBack(dq, dk, dv, dy, q, k, v engine.Mat, r *engine.Rotary, a *engine.Attention) {
	r.Grow(q.Rows)
	b := &attendBack{Attention: a, rotary: r, q: host(q), k: host(k), v: host(v), dy: host(dy), dq: host(dq), dk: host(dk), dv: host(dv)}
	parallel.For(a.KVHeads, 1, func(lo, hi int) {
		for h := lo; h < hi; h++ {
			b.head(h)
		}
	})
}

type attendBack struct {
	*engine.Attention
	rotary                  *engine.Rotary
	q, k, v, dy, dq, dk, dv tensor.Matrix
}

// head computes the gradients of key and value head h and its queries.
func (b *attendBack) head(h int) {
	n, dim := b.k.Rows, b.HeadDim
	keys, vals := b.take(b.k, h), b.take(b.v, h)
	b.place(keys, b.KNorm)
	dKeys, dVals := tensor.NewMatrix(n, dim), tensor.NewMatrix(n, dim)
	keysT := transposeOf(keys)
	group := b.Heads / b.KVHeads
	for i := h * group; i < (h+1)*group; i++ {
		queries, g := b.take(b.q, i), b.take(b.dy, i)
		b.place(queries, b.QNorm)
		dQueries := tensor.NewMatrix(n, dim)
		for lo := 0; lo < n; lo += backTokens {
			hi := min(lo+backTokens, n)
			first := 0
			if b.Window > 0 {
				first = max(0, lo-b.Window+1)
			}
			rows, seen := hi-lo, hi-first
			p, caps, ds := tensor.NewMatrix(rows, seen), tensor.NewMatrix(rows, seen), tensor.NewMatrix(rows, seen)
			own, d := queries.Slice(lo, hi), g.Slice(lo, hi)
			kernel.MatMulT(p.Data, seen, own.Data, dim, kernel.Source{F32: keys.Data[first*dim:]}, dim, rows, seen, dim)
			kernel.MatMulT(ds.Data, seen, d.Data, dim, kernel.Source{F32: vals.Data[first*dim:]}, dim, rows, seen, dim)
			for t := range rows {
				from := 0
				if b.Window > 0 {
					from = max(0, lo+t-b.Window+1-first)
				}
				b.scores(p.Row(t), caps.Row(t), ds.Row(t), from, lo+t+1-first)
			}
			kernel.MatMulT(dQueries.Data[lo*dim:], dim, ds.Data, seen, kernel.Source{F32: keysT.Data[first:]}, n, rows, dim, seen)
			addProduct(dKeys.Slice(first, hi), transposeOf(ds), transposeOf(own))
			addProduct(dVals.Slice(first, hi), transposeOf(p), transposeOf(d))
		}
		b.put(b.dq, i, dQueries, b.q, b.QNorm)
	}
	b.put(b.dk, h, dKeys, b.k, b.KNorm)
	for t := range n {
		copy(b.dv.Row(t)[h*dim:(h+1)*dim], dVals.Row(t))
	}
}

// scores makes the softmax of a row of products p, of which from to to-1 are seen, and
// of dP in ds the dS; the others become 0.
func (b *attendBack) scores(p, caps, ds []float32, from, to int) {
	clear(p[:from])
	clear(p[to:])
	clear(ds[:from])
	clear(ds[to:])
	p, caps, ds = p[from:to], caps[from:to], ds[from:to]
	top := math.Inf(-1)
	for j, x := range p {
		s, by := float64(x)*float64(b.Scale), float64(b.Scale)
		if limit := float64(b.SoftCap); limit > 0 {
			th := math.Tanh(s / limit)
			s, by = limit*th, by*(1-th*th)
		}
		p[j], caps[j] = float32(s), float32(by)
		top = max(top, float64(p[j]))
	}
	sum, mean := 0.0, 0.0
	for j, x := range p {
		e := math.Exp(float64(x) - top)
		p[j] = float32(e)
		sum += e
		mean += e * float64(ds[j])
	}
	mean /= sum
	for j, e := range p {
		w := float64(e) / sum
		p[j] = float32(w)
		ds[j] = float32(w * (float64(ds[j]) - mean) * float64(caps[j]))
	}
}

// take returns a copy of head h of x.
func (b *attendBack) take(x tensor.Matrix, h int) tensor.Matrix {
	y := tensor.NewMatrix(x.Rows, b.HeadDim)
	for t := range x.Rows {
		copy(y.Row(t), x.Row(t)[h*b.HeadDim:])
	}
	return y
}

// place norms a head's rows and turns them to their positions.
func (b *attendBack) place(x tensor.Matrix, norm *engine.Norm) {
	for t := range x.Rows {
		if norm != nil {
			kernel.RMSNorm(x.Row(t), x.Row(t), values(norm.W), norm.Eps)
		}
		cos, sin := b.rotary.At(t)
		kernel.Rope(x.Row(t), cos, sin, 1, b.HeadDim, 2*len(cos))
	}
}

// put writes into head h of dst what the gradient d of the placed head is of x, the
// head as it came: turned by the transpose, then back through the norm.
func (b *attendBack) put(dst tensor.Matrix, h int, d, x tensor.Matrix, norm *engine.Norm) {
	dim := b.HeadDim
	for t := range d.Rows {
		row := d.Row(t)
		cos, sin := b.rotary.At(t)
		half := len(cos)
		for i, c := range cos {
			a, e := row[i], row[i+half]
			row[i], row[i+half] = a*c+e*sin[i], e*c-a*sin[i]
		}
		if norm != nil {
			normBack(row, row, x.Row(t)[h*dim:(h+1)*dim], values(norm.W), norm.Eps)
		}
		copy(dst.Row(t)[h*dim:(h+1)*dim], row)
	}
}

// addProduct adds a·bᵀ to dst.
func addProduct(dst, a, b tensor.Matrix) {
	y := tensor.NewMatrix(dst.Rows, dst.Cols)
	kernel.MatMulT(y.Data, y.Cols, a.Data, a.Cols, kernel.Source{F32: b.Data}, b.Cols, y.Rows, y.Cols, a.Cols)
	kernel.Add(dst.Data, y.Data)
}

func transposeOf(x tensor.Matrix) tensor.Matrix {
	t := tensor.NewMatrix(x.Cols, x.Rows)
	transposeInTiles(t.Data, x)
	return t
}

// Scale implements engine.Gradients.
func (s *stream) Scale(x engine.Mat, by []float64) {
	to := host(x)
	eachToken(to.Rows, func(t int) {
		row := to.Row(t)
		for j, v := range row {
			row[j] = float32(float64(v) * by[t])
		}
	})
}
