package reference

import (
	"fmt"
	"math"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/tensor"
)

// check holds what back writes to central differences: L = Σ c∘forward for random c,
// whose gradient dy is c. of are the arguments and d where their gradients are. Outputs
// are rounded to float32, which a step of 2⁻⁹ makes some 3e-4 of, and differences are
// off by the third derivatives times 6e-7.
func check(t *testing.T, what string, of, d []engine.Mat, out engine.Mat, forward func(), back func(dy engine.Mat)) {
	t.Helper()
	var draws splitmix.Source
	e := New(engine.F32)
	dy := e.NewMat(out.Rows, out.Cols)
	for i := range matrix(dy).Data {
		matrix(dy).Data[i] = float32(draws.Next()>>40)/(1<<23) - 1
	}
	back(dy)
	loss := func() float64 {
		forward()
		sum := 0.0
		for i, v := range matrix(out).Data {
			sum += float64(v) * float64(matrix(dy).Data[i])
		}
		return sum
	}
	const h = 1.0 / 512
	for n, x := range of {
		top := 0.0
		for _, v := range matrix(d[n]).Data {
			top = max(top, math.Abs(float64(v)))
		}
		if top == 0 {
			t.Errorf("%s: argument %d has no gradient", what, n)
		}
		for i := range matrix(x).Data {
			p := &matrix(x).Data[i]
			was := *p
			*p = was + h
			up := loss()
			*p = was - h
			down := loss()
			*p = was
			want := (up - down) / (2 * h)
			if got := float64(matrix(d[n]).Data[i]); !(math.Abs(got-want) <= 2e-3*(top+1)) {
				t.Fatalf("%s: argument %d, element %d: gradient %v, differences give %v", what, n, i, got, want)
			}
		}
	}
}

// random returns a matrix of numbers between −1 and 1.
func random(draws *splitmix.Source, rows, cols int) engine.Mat {
	x := New(engine.F32).NewMat(rows, cols)
	for i := range matrix(x).Data {
		matrix(x).Data[i] = float32(draws.Next()>>40)/(1<<23) - 1
	}
	return x
}

func TestGradientsAreDifferences(t *testing.T) {
	draws := new(splitmix.Source)
	draws.Next()
	e := New(engine.F32)
	s := stream{e}
	const rows, cols = 4, 6
	norm := &engine.Norm{W: vec(matrix(random(draws, 1, cols)).Data), Eps: 1e-3}
	x, out, dx := random(draws, rows, cols), e.NewMat(rows, cols), e.NewMat(rows, cols)
	check(t, "Norm", []engine.Mat{x}, []engine.Mat{dx}, out,
		func() { s.Norm(out, x, norm) }, func(dy engine.Mat) { s.NormBack(dx, dy, x, norm) })
	for _, act := range []engine.Activation{engine.SiLU, engine.GELU} {
		up, du := random(draws, rows, cols), e.NewMat(rows, cols)
		check(t, fmt.Sprint("Activate ", act), []engine.Mat{x, up}, []engine.Mat{dx, du}, out,
			func() { s.Activate(out, x, up, act) }, func(dy engine.Mat) { s.ActivateBack(dx, du, dy, x, up, act) })
	}
	const features, lo, n = 5, 1, 3
	w, dw, y := random(draws, features, cols), e.NewMat(n, cols), e.NewMat(rows, n)
	load := func() engine.Proj {
		stored := tensor.NewWeight(tensor.F32, features, cols)
		for i := range features {
			stored.SetRow(i, 0, matrix(w).Row(i))
		}
		op, err := e.Load(stored)
		if err != nil {
			t.Fatal(err)
		}
		return engine.Proj{W: op, Lo: lo, N: n}
	}
	check(t, "Linear", []engine.Mat{x, w.Slice(lo, lo+n)}, []engine.Mat{dx, dw}, y,
		func() { s.Linear(y, x, load()) }, func(dy engine.Mat) { s.LinearBack(dx, dw, dy, x, load()) })
}

func TestAttendBackIsDifferences(t *testing.T) {
	draws := new(splitmix.Source)
	e := New(engine.F32)
	s := stream{e}
	const tokens, dim = 7, 4
	norm := &engine.Norm{W: vec{0.9, 1.2, 0.7, 1.1}, Eps: 1e-3}
	for _, a := range []engine.Attention{
		{Heads: 2, KVHeads: 2, HeadDim: dim, Scale: 0.5},
		{Heads: 4, KVHeads: 2, HeadDim: dim, Scale: 0.7, QNorm: norm, KNorm: norm},
		{Heads: 2, KVHeads: 1, HeadDim: dim, Scale: 1, Window: 3, SoftCap: 2},
	} {
		q, k, v := random(draws, tokens, a.Heads*dim), random(draws, tokens, a.KVHeads*dim), random(draws, tokens, a.KVHeads*dim)
		dq, dk, dv := e.NewMat(q.Rows, q.Cols), e.NewMat(k.Rows, k.Cols), e.NewMat(v.Rows, v.Cols)
		rotary := &engine.Rotary{Inv: []float32{1, 0.1}, Scale: 1.2}
		out := e.NewMat(q.Rows, q.Cols)
		forward := func() {
			keys, values := e.NewMat(k.Rows, k.Cols), e.NewMat(v.Rows, v.Cols)
			s.Copy(out, q)
			s.Copy(keys, k)
			s.Copy(values, v)
			s.Attend(out, keys, values, []engine.Sequence{{Cache: new(cache), Tokens: tokens, Rotary: rotary}}, &a)
		}
		check(t, fmt.Sprintf("%+v", a), []engine.Mat{q, k, v}, []engine.Mat{dq, dk, dv}, out, forward,
			func(dy engine.Mat) { s.AttendBack(dq, dk, dv, dy, q, k, v, rotary, &a) })
	}
}
