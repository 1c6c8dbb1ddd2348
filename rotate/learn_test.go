package rotate

import (
	"math"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/tensor"
)

// random returns a matrix of values between −1 and 1.
func random(rows, cols int, seed uint64) tensor.Matrix {
	draws := splitmix.Source(seed)
	m := tensor.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(draws.Next()>>40)/(1<<23) - 1
	}
	return m
}

// gram returns xᵀx.
func gram(x tensor.Matrix) tensor.Matrix {
	g := tensor.NewMatrix(x.Cols, x.Cols)
	for t := range x.Rows {
		for i, v := range x.Row(t) {
			for j, u := range x.Row(t) {
				g.Data[i*g.Cols+j] += v * u
			}
		}
	}
	return g
}

// offRotation returns how far q·qᵀ is from the identity.
func offRotation(q tensor.Matrix) float64 {
	most := 0.0
	for i := range q.Rows {
		for j := range q.Rows {
			sum := 0.0
			for k, v := range q.Row(i) {
				sum += float64(v) * float64(q.Row(j)[k])
			}
			if i == j {
				sum--
			}
			most = max(most, math.Abs(sum))
		}
	}
	return most
}

// Two directions turned by 45° from the axes: the entropy is ln 2, and 0 on the axes.
func TestLearnByHand(t *testing.T) {
	v := tensor.Matrix{Rows: 2, Cols: 2, Data: []float32{1, 1.02, 3, -2.9}}
	q, values := Learn(2, []Vectors{{V: v}}, Measure{}, 200, nil)
	if first, last := values[0], values[len(values)-1]; math.Abs(first-math.Ln2) > 1e-3 || last > 1e-2 {
		t.Errorf("entropy from %v to %v, want from ln 2 to nearly 0", first, last)
	}
	for _, x := range q.Data {
		if math.Abs(math.Abs(float64(x))-math.Sqrt(0.5)) > 0.02 {
			t.Errorf("rotation %v, want one by 45°", q.Data)
			break
		}
	}
}

// The gradient against central differences in float64.
func TestGradient(t *testing.T) {
	const width = 7
	all := []Vectors{{V: random(9, width, 1), Gram: gram(random(20, width, 2))}, {V: random(5, width, 3)}}
	l := newLearner(width, all, Measure{})
	q, _ := Learn(width, all, Measure{}, 2, nil) // of no particular form
	g := tensor.NewMatrix(width, width)
	l.mean(q, &g)
	for i := range q.Data {
		const h = 1e-4
		at := func(by float64) float64 {
			x := make([]float64, len(q.Data))
			for k, v := range q.Data {
				x[k] = float64(v)
			}
			x[i] += by
			return entropy64(x, all)
		}
		if want := (at(h) - at(-h)) / (2 * h); !(math.Abs(float64(g.Data[i])-want) <= 1e-4) {
			t.Errorf("element %d: %v, want %v", i, g.Data[i], want)
		}
	}
	if got, want := l.mean(q, nil), entropy64(wide(q.Data), all); !(math.Abs(got-want) <= 1e-6) {
		t.Errorf("entropy %v, want %v", got, want)
	}
}

func wide(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// entropy64 is Learn's F as it is written there.
func entropy64(q []float64, all []Vectors) float64 {
	sum, n := 0.0, 0
	for _, v := range all {
		w := v.V.Cols
		for r := range v.V.Rows {
			s, z, e := make([]float64, w), 0.0, 0.0
			for j := range w {
				y, d := 0.0, 0.0
				for k, x := range v.V.Row(r) {
					y += q[j*w+k] * float64(x)
				}
				if v.Gram.Data == nil {
					d = 1
				}
				for k := range v.Gram.Rows {
					for m, h := range v.Gram.Row(k) {
						d += q[j*w+k] * float64(h) * q[j*w+m]
					}
				}
				s[j] = y * y * d
				z += s[j]
			}
			for _, x := range s {
				if x > 0 {
					e -= x / z * math.Log(x/z)
				}
			}
			sum, n = sum+e, n+1
		}
	}
	return sum / float64(n)
}

// On vectors that are sparse in a turned frame the entropy falls at every step, far, and
// what comes out is a rotation within 1e-5.
func TestLearnFallsAndStaysARotation(t *testing.T) {
	const width = 48
	turn, _ := Learn(width, []Vectors{{V: random(40, width, 4)}}, Measure{}, 5, nil)
	sparse := random(300, width, 5)
	for i := range sparse.Data {
		if i%7 != 0 {
			sparse.Data[i] /= 50
		}
	}
	v := tensor.NewMatrix(sparse.Rows, width)
	for r := range v.Rows {
		for j := range width {
			for k, x := range sparse.Row(r) {
				v.Row(r)[j] += x * turn.Data[k*width+j]
			}
		}
	}
	q, values := Learn(width, []Vectors{{V: v, Gram: gram(random(100, width, 6))}}, Measure{}, 60, nil)
	for i := 1; i < len(values); i++ {
		if !(values[i] < values[i-1]) {
			t.Fatalf("step %d: entropy rose from %v to %v", i, values[i-1], values[i])
		}
	}
	if first, last := values[0], values[len(values)-1]; !(last < 0.9*first) {
		t.Errorf("entropy from %v to %v after %d steps", first, last, len(values)-1)
	}
	if off := offRotation(q); off > 1e-5 {
		t.Errorf("Q·Qᵀ is %v off the identity", off)
	}
	again, _ := Learn(width, []Vectors{{V: v, Gram: gram(random(100, width, 6))}}, Measure{}, 60, nil)
	for i, x := range again.Data {
		if x != q.Data[i] {
			t.Fatal("the second time it is another rotation")
		}
	}
}

// The slope of the loss against central differences.
func TestGradientOfTheLoss(t *testing.T) {
	const width, share = 8, 0.5
	all := []Vectors{{V: random(9, width, 1), Gram: gram(random(20, width, 2))}, {V: random(5, width, 3)}}
	l := newLearner(width, all, Measure{Lost: share})
	if start := l.mean(identity(width), nil); math.Abs(start-1) > 1e-6 {
		t.Fatalf("the loss begins at %v, want 1", start)
	}
	q, values := Learn(width, all, Measure{Lost: share}, 3, nil)
	g := tensor.NewMatrix(width, width)
	if got := l.mean(q, &g); math.Abs(got-values[len(values)-1]) > 1e-6 || !(got < 1) {
		t.Errorf("loss %v, Learn says %v", got, values)
	}
	for i := range q.Data {
		const h = 1e-3
		at := func(by float32) float64 {
			x := tensor.Matrix{Rows: width, Cols: width, Data: slices.Clone(q.Data)}
			x.Data[i] += by
			return l.mean(x, nil)
		}
		if want := (at(h) - at(-h)) / (2 * h); !(math.Abs(float64(g.Data[i])-want) <= 2e-3) {
			t.Errorf("element %d: %v, want %v", i, g.Data[i], want)
		}
	}
}

// By hand: of y = (3, 1, 2, 0.5) with d = (1, 9, 1, 4) the lower half are 4·0.25 = 1 and
// 4, of a start of 10.
func TestLossByHand(t *testing.T) {
	from, dy := 10.0, make([]float32, 4)
	got := lost(dy, []float32{3, 1, 2, 0.5}, []float64{1, 9, 1, 4}, 0.5, &from)
	if want := []float32{0, 0, 0.4, 0.4}; math.Abs(got-0.5) > 1e-12 || !slices.Equal(dy, want) {
		t.Errorf("%v with slope %v, want 0.5 and %v", got, dy, want)
	}
}

// Nothing to learn from, and vectors of zeros, leave the identity.
func TestLearnOfNothing(t *testing.T) {
	for _, all := range [][]Vectors{nil, {{V: tensor.NewMatrix(3, 4)}}} {
		q, values := Learn(4, all, Measure{}, 10, nil)
		if len(values) != 1 || values[0] != 0 || offRotation(q) != 0 || q.Data[0] != 1 {
			t.Errorf("%d vectors: %v, %v", len(all), q.Data, values)
		}
	}
}
