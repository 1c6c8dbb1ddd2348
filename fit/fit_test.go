package fit_test

import (
	"math"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/engine/reference"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// draws makes matrices of numbers in [-1, 1).
type draws struct{ splitmix.Source }

func (d *draws) uniform() float64 { return float64(d.Next()>>11)/(1<<52) - 1 }

func (d *draws) matrix(rows, cols int) tensor.Matrix {
	m := tensor.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = float32(d.uniform())
	}
	return m
}

// gradient returns the largest element, in size, of half the gradient at Q of
//
//	(2/n)·Σ_t w_t·|y_t − Q·x_t|² + λ·‖Q − W‖²
//
// in float64, and the largest of its terms.
func gradient(q, w, x, y tensor.Matrix, weights []float64, lambda float64) (most, terms float64) {
	for i := range q.Rows {
		g := make([]float64, q.Cols)
		size := make([]float64, q.Cols)
		for t := range x.Rows {
			lacks := float64(y.Row(t)[i])
			for j, v := range q.Row(i) {
				lacks -= float64(v) * float64(x.Row(t)[j])
			}
			for j, v := range x.Row(t) {
				g[j] -= 2 * weights[t] * lacks * float64(v)
				size[j] += 2 * weights[t] * math.Abs(float64(y.Row(t)[i])*float64(v))
			}
		}
		for j := range g {
			g[j] += lambda * (float64(q.Row(i)[j]) - float64(w.Row(i)[j]))
			most, terms = max(most, math.Abs(g[j])), max(terms, size[j])
		}
	}
	return most, terms
}

// What the weight is best for has no slope there, whether what lacks is of the
// output or of the input; also with fewer tokens than columns, with a silent channel,
// and beyond a strip of rows.
func TestWeightIsTheLeastSquares(t *testing.T) {
	var d draws
	e := reference.New(engine.F32)
	for _, c := range []struct{ rows, cols, tokens int }{{5, 12, 60}, {300, 7, 20}, {4, 140, 30}} {
		x, w := d.matrix(c.tokens, c.cols), d.matrix(c.rows, c.cols)
		for t := range x.Rows {
			x.Row(t)[c.cols/2] = 0
			x.Row(t)[1] *= 30
		}
		stored := tensor.NewWeight(tensor.F32, c.rows, c.cols)
		for i := range w.Rows {
			stored.SetRow(i, 0, w.Row(i))
		}
		weights := make([]float64, c.tokens)
		for t := range weights {
			weights[t] = 0.1 + math.Abs(d.uniform())
		}
		for _, ofInput := range []bool{false, true} {
			lacks := d.matrix(c.tokens, c.rows) // Y − WX
			if ofInput {
				lacks = d.matrix(c.tokens, c.cols) // of X
			}
			y := tensor.NewMatrix(c.tokens, c.rows)
			for k := range y.Rows {
				for i := range y.Cols {
					sum := 0.0
					for j, v := range w.Row(i) {
						in := float64(x.Row(k)[j])
						if ofInput {
							in += float64(lacks.Row(k)[j])
						}
						sum += float64(v) * in
					}
					if !ofInput {
						sum += float64(lacks.Row(k)[i])
					}
					y.Row(k)[i] = float32(sum)
				}
			}
			s := e.NewStats(c.cols, stats.Needs{Gram: true, Cross: lacks.Cols})
			s.AddFit(enginetest.Upload(e, x), engine.Fit{Weights: weights, Lacks: enginetest.Upload(e, lacks)})
			in := s.Input(1)
			in.Cross.OfInput = ofInput
			by, err := fit.New(in.Gram, in.Cross)
			if err != nil {
				t.Fatal(err)
			}
			mean := 0.0
			for j := range c.cols {
				mean += in.Gram.At(j, j) / float64(c.cols)
			}
			half := c.rows / 2 // the second half as a part of the Linear
			q := tensor.NewMatrix(c.rows, c.cols)
			for _, part := range []struct{ lo, hi int }{{0, half}, {half, c.rows}} {
				got := by.Weight(stored.Slice(part.lo, part.hi), part.lo)
				for i := range got.Rows {
					got.Row(q.Row(part.lo+i), i)
				}
			}
			before, terms := gradient(w, w, x, y, weights, fit.Damping*mean)
			after, _ := gradient(q, w, x, y, weights, fit.Damping*mean)
			// Float32 sums of cols products, and a condition of some 1/Damping.
			if tol := float64(c.cols) / fit.Damping * 0x1p-24 * terms; !(after <= tol && after < before/100) {
				t.Errorf("%+v, of the input %v: slope %v, before %v, want at most %v", c, ofInput, after, before, tol)
			}
		}
	}
}

// Where nothing lacks, the weight stays as it is to the bit.
func TestNothingLacks(t *testing.T) {
	var d draws
	const rows, cols, tokens = 3, 9, 20
	e := reference.New(engine.F32)
	w := tensor.NewWeight(tensor.F32, rows, cols)
	w.SetRow(1, 0, d.matrix(1, cols).Data)
	for _, ofInput := range []bool{false, true} {
		lacks := tensor.NewMatrix(tokens, rows)
		if ofInput {
			lacks = tensor.NewMatrix(tokens, cols)
		}
		s := e.NewStats(cols, stats.Needs{Gram: true, Cross: lacks.Cols})
		s.AddFit(enginetest.Upload(e, d.matrix(tokens, cols)), engine.Fit{Lacks: enginetest.Upload(e, lacks)})
		in := s.Input(1)
		in.Cross.OfInput = ofInput
		by, err := fit.New(in.Gram, in.Cross)
		if err != nil {
			t.Fatal(err)
		}
		if got := by.Weight(w, 0); string(got.Bytes()) != string(w.Bytes()) {
			t.Errorf("of the input %v: the weight changed", ofInput)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		p    param.Values
		want fit.Options
	}{
		{nil, fit.Options{}},
		{param.Defaults(fit.Params()), fit.Options{}},
		{param.Defaults(fit.Params()).With("fit_to", fit.Dense), fit.Options{Dense: true}},
		{param.Defaults(fit.Params()).With("fit_tokens", fit.Energy), fit.Options{Energy: true}},
	} {
		if got := fit.Of(c.p); got != c.want || got.InOrder() != (c.want != fit.Options{}) {
			t.Errorf("%v: %+v, in order %v", c.p, got, got.InOrder())
		}
	}
}
