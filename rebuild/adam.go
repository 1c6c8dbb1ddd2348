package rebuild

import (
	"math"

	"github.com/crepe-llm/crepe/internal/parallel"
)

// Adam optimises the weights of a matrix that are not 0 when it begins; the others
// stay 0. With gradient g and learning rate r, in step i = 1, 2, …
//
//	m ← β₁m + (1−β₁)g,  v ← β₂v + (1−β₂)g²
//	w ← w − r·(m/(1−β₁ⁱ)) / (sqrt(v/(1−β₂ⁱ)) + ε)
//
// β₁ = 0.9, β₂ = 0.999, ε = 1e-8. Moments and weights are float32, a step's arithmetic
// is float64. A weight without gradient so far does not move.
//
// Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
type Adam struct {
	m, v  []float32
	kept  []bool
	steps int
}

const (
	beta1, beta2 = 0.9, 0.999
	epsilon      = 1e-8
)

// NewAdam returns an Adam for w.
func NewAdam(w []float32) *Adam {
	a := &Adam{m: make([]float32, len(w)), v: make([]float32, len(w)), kept: make([]bool, len(w))}
	for i, x := range w {
		a.kept[i] = x != 0
	}
	return a
}

// Bytes returns what an Adam of n weights holds.
func Bytes(n int64) int64 { return (4 + 4 + 1) * n }

// Step changes w by its gradient g times by.
func (a *Adam) Step(w, g []float32, by, rate float64) {
	a.steps++
	c1, c2 := 1-math.Pow(beta1, float64(a.steps)), 1-math.Pow(beta2, float64(a.steps))
	parallel.For(len(w), 1<<14, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			if !a.kept[i] {
				continue
			}
			x := by * float64(g[i])
			m := beta1*float64(a.m[i]) + (1-beta1)*x
			v := beta2*float64(a.v[i]) + (1-beta2)*x*x
			a.m[i], a.v[i] = float32(m), float32(v)
			w[i] = float32(float64(w[i]) - rate*(m/c1)/(math.Sqrt(v/c2)+epsilon))
		}
	})
}
