package rotate

import (
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Vectors are rows of weights that read a space, or columns of weights that write to
// it, one a row of V. Gram is the second moment of what is read, width × width, up to a
// factor; without data every direction counts alike, as it does where a column's input
// is one number.
type Vectors struct {
	V    tensor.Matrix
	Gram tensor.Matrix
}

// Learn returns a rotation Q, width × width, whose rows are the new directions, that
// makes the mean F of a Measure of importance small,
//
//	s_j = (Q·v)_j²·(Q·H·Qᵀ)_jj
//
// over all vectors v, H being the Gram matrix of v: s is the square of Wanda's score of
// the weights that v becomes. It descends from the identity along the group of
// rotations, at most so many steps, and returns F of the identity and after every step,
// which falls: a step that would not lower it is shortened, and where none does it ends.
// each, if not nil, is called after a step.
//
// Directions are those of conjugate gradients (Polak and Ribière's, restarted where they
// would ascend) in the skew matrices, Ω = G·Qᵀ − Q·Gᵀ with G = ∂F/∂Q. A step takes Q to
// the rotation next to Q − τ·D·Q, which Newton's iteration Y ← Y·(3I − YᵀY)/2 finds. All
// products are float32, sums of entropies float64; rows of Q are orthonormal within some
// 1e-6. The result does not depend on GOMAXPROCS.
//
// The entropy is that of Gu et al. 2025, arXiv:2505.23049, section 3; they descend by
// Adam through a QR factorisation.
func Learn(width int, all []Vectors, m Measure, steps int, each func()) (tensor.Matrix, []float64) {
	l := newLearner(width, all, m)
	q := identity(width)
	if l.count == 0 {
		return q, []float64{0}
	}
	values := []float64{l.mean(q, nil)}
	n := width * width
	g, omega, last, d := tensor.NewMatrix(width, width), make([]float32, n), make([]float32, n), make([]float32, n)
	tau := 0.0
	for step := range steps {
		now := values[len(values)-1]
		l.mean(q, &g)
		l.skew(omega, g, q)
		slope := direction(d, omega, last, step == 0)
		copy(last, omega)
		if slope == 0 {
			break
		}
		// The longest step turns no direction by more than about a radian.
		most := 1 / infinityNorm(d, width)
		if tau = min(2*tau, most); tau == 0 {
			tau = most / 4
		}
		next, value, ok := l.search(q, d, now, slope, &tau)
		if !ok {
			break
		}
		q = next
		values = append(values, value)
		if each != nil {
			each()
		}
	}
	return q, values
}

const (
	armijo = 1e-4 // share of what the slope promises that a step must keep
	halves = 12   // most of a step that keeps none
)

// search returns a rotation along −d where F is below now.
func (l *learner) search(q tensor.Matrix, d []float32, now, slope float64, tau *float64) (tensor.Matrix, float64, bool) {
	for range halves {
		next := l.step(q, d, float32(*tau))
		if value := l.mean(next, nil); value <= now-armijo**tau*slope && value < now {
			return next, value, true
		}
		*tau /= 2
	}
	return q, now, false
}

// direction makes d the next one, and returns how fast F falls along it.
func direction(d, omega, last []float32, first bool) float64 {
	own, cross, old := 0.0, 0.0, 0.0
	for i, v := range omega {
		own += float64(v) * float64(v)
		cross += float64(v) * float64(last[i])
		old += float64(last[i]) * float64(last[i])
	}
	beta := float32(0)
	if !first && old > 0 {
		beta = float32(max(0, (own-cross)/old))
	}
	slope := 0.0
	for i, v := range omega {
		d[i] = v + beta*d[i]
		slope += float64(d[i]) * float64(v)
	}
	if !(slope > 0) {
		copy(d, omega)
		slope = own
	}
	return slope / 2 // every pair of directions is there twice
}

// infinityNorm returns the largest sum of magnitudes of a row, which bounds the
// spectral norm.
func infinityNorm(m []float32, width int) float64 {
	most := 0.0
	for i := range width {
		sum := 0.0
		for _, v := range m[i*width : (i+1)*width] {
			sum += math.Abs(float64(v))
		}
		most = max(most, sum)
	}
	return most
}

// Measure is what Learn makes small of the importance of a vector's weights.
type Measure struct {
	// Lost is the share of the weights that are pruned, the least important of each
	// vector: the measure is the share of Σs that they have, over what that was at the
	// start. 0: the measure is the entropy −Σ_j p_j·ln p_j, p = s/Σs, in nats.
	Lost float64
}

// Name returns the value of rotate_for that it is.
func (m Measure) Name() string {
	if m.Lost > 0 {
		return Loss
	}
	return Entropy
}

// learner holds the vectors and memory to work in.
type learner struct {
	width, count int
	all          []Vectors
	measure      Measure
	lost         []float64 // Σs of what each vector would lose at the start; nil before, and for the entropy

	y, dy, turned, yt []float32 // of rowsAtOnce vectors
	rows              []float64 // a vector's entropy each
	t, u              []float32 // width × width
}

// rowsAtOnce is how many vectors are turned at a time.
const rowsAtOnce = 1024

func newLearner(width int, all []Vectors, m Measure) *learner {
	l := &learner{width: width, all: all, measure: m}
	for _, v := range all {
		if v.V.Cols != width || v.Gram.Data != nil && (v.Gram.Rows != width || v.Gram.Cols != width) {
			panic(fmt.Sprintf("rotate: vectors of %d, Gram matrix of %d × %d, want %d", v.V.Cols, v.Gram.Rows, v.Gram.Cols, width))
		}
		l.count += v.V.Rows
	}
	n := rowsAtOnce * width
	l.y, l.dy, l.turned, l.yt = make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, n)
	l.rows = make([]float64, rowsAtOnce)
	if m.Lost > 0 {
		l.lost = make([]float64, l.count)
	}
	l.t, l.u = make([]float32, width*width), make([]float32, width*width)
	return l
}

// LearnBytes returns what Learn holds beside the vectors and their Gram matrices.
func LearnBytes(width int) int64 {
	n := int64(width)
	return 4*4*rowsAtOnce*n + 4*9*n*n
}

// LearnFLOP returns the operations of so many steps on so many vectors.
func LearnFLOP(width, vectors, steps int) float64 {
	n := float64(width)
	return float64(steps) * (4*2*float64(vectors)*n*n + 14*2*n*n*n)
}

// mean returns F(q), and its gradient if g is not nil.
func (l *learner) mean(q tensor.Matrix, g *tensor.Matrix) float64 {
	if g != nil {
		clear(g.Data)
	}
	sum, first := 0.0, 0
	for _, v := range l.all {
		sum += l.group(v, first, q, g)
		first += v.V.Rows
	}
	if g != nil {
		for i := range g.Data {
			g.Data[i] /= float32(l.count)
		}
	}
	return sum / float64(l.count)
}

// group returns the sum of v's measures, of which the first vector is number first of
// all, and adds its gradient to g.
func (l *learner) group(v Vectors, first int, q tensor.Matrix, g *tensor.Matrix) float64 {
	w := l.width
	d, dd := make([]float64, w), make([]float64, w) // Q·H·Qᵀ's diagonal, and ∂F/∂d
	if v.Gram.Data == nil {
		for j := range d {
			d[j] = 1
		}
	} else {
		kernel.MatMulT(l.t, w, q.Data, w, kernel.Source{F32: v.Gram.Data}, w, w, w, w)
		for j := range d {
			for k, x := range q.Row(j) {
				d[j] += float64(x) * float64(l.t[j*w+k])
			}
			d[j] = max(d[j], 0)
		}
	}
	sum := 0.0
	for lo := 0; lo < v.V.Rows; lo += rowsAtOnce {
		n := min(rowsAtOnce, v.V.Rows-lo)
		part := v.V.Data[lo*w : (lo+n)*w]
		kernel.MatMulT(l.y, w, part, w, kernel.Source{F32: q.Data}, w, n, w, w)
		parallel.For(n, 8, func(a, b int) {
			for i := a; i < b; i++ {
				var dy []float32
				if g != nil {
					dy = l.dy[i*w : (i+1)*w]
				}
				l.rows[i] = l.one(dy, l.y[i*w:(i+1)*w], d, first+lo+i)
			}
		})
		for _, e := range l.rows[:n] {
			sum += e
		}
		if g != nil {
			l.gradient(g, dd, part, n)
		}
	}
	if g != nil && v.Gram.Data != nil {
		parallel.For(w, 16, func(a, b int) {
			for j := a; j < b; j++ {
				if d[j] > 0 {
					by := float32(dd[j] / d[j]) // dd is 2·d·∂F/∂d so far
					for k, x := range l.t[j*w : (j+1)*w] {
						g.Data[j*w+k] += by * x
					}
				}
			}
		})
	}
	return sum
}

// gradient adds dyᵀ·part to g, and y·dy, summed over the vectors, to dd.
func (l *learner) gradient(g *tensor.Matrix, dd []float64, part []float32, n int) {
	w := l.width
	parallel.For(w, 64, func(a, b int) {
		for i := range n {
			for j := a; j < b; j++ {
				dd[j] += float64(l.y[i*w+j]) * float64(l.dy[i*w+j])
			}
		}
	})
	transpose(l.turned, l.dy, n, w)
	transpose(l.yt, part, n, w)
	kernel.MatMulT(l.u, w, l.turned, n, kernel.Source{F32: l.yt}, n, w, w, n)
	for i, v := range l.u {
		g.Data[i] += v
	}
}

// one returns the measure of vector number i, which became y, and its derivative.
func (l *learner) one(dy, y []float32, d []float64, i int) float64 {
	if l.measure.Lost == 0 {
		return entropy(dy, y, d)
	}
	if l.lost == nil {
		panic("rotate: no start to measure against")
	}
	return lost(dy, y, d, l.measure.Lost, &l.lost[i])
}

// lost returns how much of s = y²·d the lowest share of y loses, in units of from, which
// becomes that if it is 0; and the derivative by y.
func lost(dy, y []float32, d []float64, share float64, from *float64) float64 {
	s := make([]float64, len(y))
	for j, v := range y {
		s[j] = float64(v) * float64(v) * d[j]
	}
	order := slices.Clone(s)
	slices.Sort(order)
	n := int(share * float64(len(y)))
	sum, limit := 0.0, order[n]
	for _, v := range order[:n] {
		sum += v
	}
	if *from == 0 {
		*from = sum
	}
	if *from == 0 {
		clear(dy)
		return 0
	}
	if dy != nil {
		for j, v := range y {
			dy[j] = 0
			if s[j] < limit {
				dy[j] = float32(2 * float64(v) * d[j] / *from)
			}
		}
	}
	return sum / *from
}

// entropy returns the entropy of s = y²·d and, unless dy is nil, writes its
// derivative by y, which is 0 where s is.
func entropy(dy, y []float32, d []float64) float64 {
	z, sum := 0.0, 0.0 // Σs and Σ s·ln s
	for j, v := range y {
		if s := float64(v) * float64(v) * d[j]; s > 0 {
			log := math.Log(s)
			z += s
			sum += s * log
			if dy != nil {
				dy[j] = float32(log)
			}
		}
	}
	if !(z > 0) {
		clear(dy)
		return 0
	}
	logZ := math.Log(z)
	e := logZ - sum/z
	if dy != nil {
		for j, v := range y {
			if s := float64(v) * float64(v) * d[j]; s > 0 {
				dy[j] = float32(-2 * float64(v) * d[j] * (float64(dy[j]) - logZ + e) / z)
			} else {
				dy[j] = 0
			}
		}
	}
	return e
}

// skew writes g·qᵀ − q·gᵀ.
func (l *learner) skew(omega []float32, g, q tensor.Matrix) {
	w := l.width
	kernel.MatMulT(l.t, w, g.Data, w, kernel.Source{F32: q.Data}, w, w, w, w)
	parallel.For(w, 16, func(a, b int) {
		for i := a; i < b; i++ {
			for j := range w {
				omega[i*w+j] = l.t[i*w+j] - l.t[j*w+i]
			}
		}
	})
}

// step returns the rotation next to q − tau·d·q.
func (l *learner) step(q tensor.Matrix, d []float32, tau float32) tensor.Matrix {
	w := l.width
	next := tensor.NewMatrix(w, w)
	transpose(l.u, q.Data, w, w)
	kernel.MatMulT(l.t, w, d, w, kernel.Source{F32: l.u}, w, w, w, w)
	for i, v := range q.Data {
		next.Data[i] = v - tau*l.t[i]
	}
	l.orthonormalise(next)
	return next
}

// orthonormalise replaces y, whose singular values are below √3, by the rotation next
// to it: Y ← (3I − Y·Yᵀ)/2·Y until Y·Yᵀ is the identity within float32.
func (l *learner) orthonormalise(y tensor.Matrix) {
	w := l.width
	for range 16 {
		kernel.MatMulT(l.t, w, y.Data, w, kernel.Source{F32: y.Data}, w, w, w, w)
		off := float32(0)
		for i := range w {
			for j := range w {
				v := l.t[i*w+j]
				if i == j {
					v--
				}
				off = max(off, v, -v)
				l.t[i*w+j] = -v / 2
			}
			l.t[i*w+i]++
		}
		transpose(l.u, y.Data, w, w)
		product := l.turnedSquare()
		kernel.MatMulT(product, w, l.t, w, kernel.Source{F32: l.u}, w, w, w, w)
		copy(y.Data, product)
		if off < 1e-6 {
			return
		}
	}
}

// turnedSquare returns memory of width × width.
func (l *learner) turnedSquare() []float32 {
	if n := l.width * l.width; len(l.turned) < n {
		l.turned = make([]float32, n)
	}
	return l.turned[:l.width*l.width]
}

func identity(n int) tensor.Matrix {
	m := tensor.NewMatrix(n, n)
	for i := range n {
		m.Data[i*n+i] = 1
	}
	return m
}

// transpose writes the transpose of x, rows × cols, to dst.
func transpose(dst, x []float32, rows, cols int) {
	const tile = 32
	parallel.For((cols+tile-1)/tile, 1, func(a, b int) {
		for j0 := a * tile; j0 < min(b*tile, cols); j0 += tile {
			for i0 := 0; i0 < rows; i0 += tile {
				for j := j0; j < min(j0+tile, cols); j++ {
					for i := i0; i < min(i0+tile, rows); i++ {
						dst[j*rows+i] = x[i*cols+j]
					}
				}
			}
		}
	})
}
