package reference

import (
	"math"

	"github.com/crepe-llm/crepe/engine"
)

var _ engine.Gradients = stream{}

// LinearBack implements engine.Gradients.
func (s stream) LinearBack(dx, dw, dy, x engine.Mat, w engine.Proj) {
	o := w.W.(*op)
	for f := range dw.Rows {
		for j := range dw.Cols {
			sum := float64(matrix(dw).Row(f)[j])
			for t := range dy.Rows {
				sum += float64(matrix(dy).Row(t)[f]) * float64(matrix(x).Row(t)[j])
			}
			matrix(dw).Row(f)[j] = float32(sum)
		}
	}
	for t := range dx.Rows {
		for j := range dx.Cols {
			sum := 0.0
			for f, v := range matrix(dy).Row(t) {
				sum += float64(v) * o.rows[w.Lo+f][j]
			}
			matrix(dx).Row(t)[j] = float32(sum)
		}
	}
}

// NormBack implements engine.Gradients.
func (s stream) NormBack(dx, dy, x engine.Mat, n *engine.Norm) {
	for t := range x.Rows {
		d := normBack(widen(matrix(dy).Row(t)), widen(matrix(x).Row(t)), n)
		for j, v := range d {
			matrix(dx).Row(t)[j] = float32(v)
		}
	}
}

// normBack returns the gradient by x of y_j = x_j·w_j·r, r = 1/sqrt(mean(x²) + eps):
//
//	dx_j = r·w_j·dy_j − x_j·r³/n·Σ_i w_i·dy_i·x_i
func normBack(dy, x []float64, n *engine.Norm) []float64 {
	sum, dot := 0.0, 0.0
	for j, v := range x {
		sum += v * v
		dot += float64(n.W.(vec)[j]) * dy[j] * v
	}
	r := 1 / math.Sqrt(sum/float64(len(x))+float64(n.Eps))
	dx := make([]float64, len(x))
	for j, v := range x {
		dx[j] = r*float64(n.W.(vec)[j])*dy[j] - v*r*r*r/float64(len(x))*dot
	}
	return dx
}

// Activate implements engine.Gradients.
func (s stream) Activate(dst, gate, up engine.Mat, act engine.Activation) {
	for i, g := range matrix(gate).Data {
		matrix(dst).Data[i] = float32(activate(float64(g), act) * float64(matrix(up).Data[i]))
	}
}

// ActivateBack implements engine.Gradients.
func (s stream) ActivateBack(dgate, dup, dy, gate, up engine.Mat, act engine.Activation) {
	for i, d := range matrix(dy).Data {
		g, u := float64(matrix(gate).Data[i]), float64(matrix(up).Data[i])
		matrix(dgate).Data[i] = float32(float64(d) * u * slope(g, act))
		matrix(dup).Data[i] = float32(float64(d) * activate(g, act))
	}
}

// slope is the derivative of activate.
func slope(x float64, act engine.Activation) float64 {
	if act == engine.GELU {
		c := math.Sqrt(2 / math.Pi)
		th := math.Tanh(c * (x + 0.044715*x*x*x))
		return 0.5*(1+th) + 0.5*x*(1-th*th)*c*(1+3*0.044715*x*x)
	}
	p := sigmoid(x)
	return p * (1 + x*(1-p))
}

// AttendBack implements engine.Gradients, with all of a head's scores at once.
func (s stream) AttendBack(dq, dk, dv, dy, q, k, v engine.Mat, r *engine.Rotary, a *engine.Attention) {
	n, dim := q.Rows, a.HeadDim
	r.Grow(n)
	heads := func(x engine.Mat, h int, norm *engine.Norm, turned bool) (own, placed [][]float64) {
		for t := range n {
			row := widen(matrix(x).Row(t)[h*dim : (h+1)*dim])
			own = append(own, row)
			y := append([]float64(nil), row...)
			if norm != nil {
				y = normed(y, norm)
			}
			if turned {
				turn(y, r, t, 1)
			}
			placed = append(placed, y)
		}
		return own, placed
	}
	// back writes into dx what the gradient of a placed head is of the head as it came.
	back := func(dx engine.Mat, h int, d, own [][]float64, norm *engine.Norm) {
		for t := range n {
			turn(d[t], r, t, -1)
			g := d[t]
			if norm != nil {
				g = normBack(g, own[t], norm)
			}
			for i, v := range g {
				matrix(dx).Row(t)[h*dim+i] = float32(v)
			}
		}
	}
	group := a.Heads / a.KVHeads
	for kv := range a.KVHeads {
		ownK, keys := heads(k, kv, a.KNorm, true)
		_, vals := heads(v, kv, nil, false)
		dKeys, dVals := zeros(n, dim), zeros(n, dim)
		for h := kv * group; h < (kv+1)*group; h++ {
			ownQ, queries := heads(q, h, a.QNorm, true)
			dQueries := zeros(n, dim)
			for t := range n {
				first := 0
				if a.Window > 0 {
					first = max(0, t-a.Window+1)
				}
				var scores, caps []float64
				for j := first; j <= t; j++ {
					x := dot(queries[t], keys[j]) * float64(a.Scale)
					by := float64(a.Scale)
					if limit := float64(a.SoftCap); limit > 0 {
						th := math.Tanh(x / limit)
						x, by = limit*th, by*(1-th*th)
					}
					scores, caps = append(scores, x), append(caps, by)
				}
				p := softmax(scores)
				g := widen(matrix(dy).Row(t)[h*dim : (h+1)*dim])
				mean := 0.0
				for i, w := range p {
					mean += w * dot(g, vals[first+i])
				}
				for i, w := range p {
					j := first + i
					ds := w * (dot(g, vals[j]) - mean) * caps[i]
					for c := range dim {
						dVals[j][c] += w * g[c]
						dQueries[t][c] += ds * keys[j][c]
						dKeys[j][c] += ds * queries[t][c]
					}
				}
			}
			back(dq, h, dQueries, ownQ, a.QNorm)
		}
		back(dk, kv, dKeys, ownK, a.KNorm)
		for t := range n {
			for i, v := range dVals[t] {
				matrix(dv).Row(t)[kv*dim+i] = float32(v)
			}
		}
	}
}

func zeros(rows, cols int) [][]float64 {
	m := make([][]float64, rows)
	for i := range m {
		m[i] = make([]float64, cols)
	}
	return m
}

func dot(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

// normed is rmsNorm in float64.
func normed(x []float64, n *engine.Norm) []float64 {
	by := 1 / math.Sqrt(dot(x, x)/float64(len(x))+float64(n.Eps))
	y := make([]float64, len(x))
	for j, v := range x {
		y[j] = v * by * float64(n.W.(vec)[j])
	}
	return y
}

// turn turns a head to position pos, or, with sign −1, by the transpose of that.
func turn(x []float64, r *engine.Rotary, pos int, sign float64) {
	cos, sin := r.At(pos)
	half := len(cos)
	for i := range half {
		a, b, c, s := x[i], x[i+half], float64(cos[i]), sign*float64(sin[i])
		x[i], x[i+half] = a*c-b*s, b*c+a*s
	}
}

// Scale implements engine.Gradients.
func (s stream) Scale(x engine.Mat, by []float64) {
	for t, b := range by {
		for j, v := range matrix(x).Row(t) {
			matrix(x).Row(t)[j] = float32(float64(v) * b)
		}
	}
}
