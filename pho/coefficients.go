// Package pho finds CRePE's coefficients: PHO, proxy-based hyperparameter
// optimisation (CRePE, section 4).
//
// Stage 1 asks a sampler for candidates and rates them by a proxy that needs
// one Linear and no model pass: Gini_pruned (Proxy). Stage 2 measures perplexity
// on held-out text of the whole model pruned by the best of them; the lowest
// wins. Those that cannot win are told by a quick pruning (race). RIA and equal
// coefficients are always verified too, so that the winner is not above RIA on
// that text.
//
// Mask and Gini do not change when all coefficients are scaled, so candidates
// are points of the triangle α + β + γ = 1.
package pho

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
)

// Coefficients are a candidate.
type Coefficients struct {
	Alpha  float64 `json:"alpha"` // of the row term
	Beta   float64 `json:"beta"`  // of the column term
	Gamma  float64 `json:"gamma"` // of the neighbourhood term
	Kernel int     `json:"kernel"`
}

// RIA and Equal are always candidates.
func RIA(kernel int) Coefficients   { return Coefficients{Alpha: 1, Beta: 1, Kernel: kernel} }
func Equal(kernel int) Coefficients { return Coefficients{Alpha: 1, Beta: 1, Gamma: 1, Kernel: kernel} }

// At returns the point of the triangle that (u, v) of the unit square stands for:
//
//	α = 1 − √u,  β = √u·(1 − v),  γ = √u·v
//
// which is continuous and keeps areas, so that even points stay even. γ is 0 on
// the edge v = 0. Coefficients are multiples of 10⁻⁶: processors that round the
// sampler's arithmetic differently still propose the same candidates.
func At(u, v float64, kernel int) Coefficients {
	s := math.Sqrt(u)
	a, c := math.Round(steps*(1-s)), math.Round(steps*s*v)
	c = min(c, steps-a)
	return Coefficients{Alpha: a / steps, Beta: (steps - a - c) / steps, Gamma: c / steps, Kernel: kernel}
}

const steps = 1e6

// Start is where in the unit square α = β = γ.
var Start = []float64{4.0 / 9, 0.5}

// Normalized returns c with coefficients that sum to 1.
func (c Coefficients) Normalized() Coefficients {
	s := c.Alpha + c.Beta + c.Gamma
	return Coefficients{c.Alpha / s, c.Beta / s, c.Gamma / s, c.Kernel}
}

// resolution is how far two normalised candidates must differ in a coefficient
// to be verified both: a finer difference moves a hundredth of a score at most.
const resolution = 0.01

// Duplicates reports whether c and d are one candidate to stage 2. Without γ
// the kernel is not read.
func (c Coefficients) Duplicates(d Coefficients) bool {
	a, b := c.Normalized(), d.Normalized()
	near := math.Abs(a.Alpha-b.Alpha) < resolution && math.Abs(a.Beta-b.Beta) < resolution && math.Abs(a.Gamma-b.Gamma) < resolution
	return near && (a.Kernel == b.Kernel || a.Gamma == 0 && b.Gamma == 0)
}

// params returns the parameters of crepe with these coefficients.
func (c Coefficients) params(power float64) param.Values {
	return param.Values{"alpha": c.Alpha, "beta": c.Beta, "gamma": c.Gamma, "delta": 0., "kernel": c.Kernel, "power": power}
}

// Of returns r with method crepe and these coefficients.
func (c Coefficients) Of(r recipe.Recipe) recipe.Recipe {
	r.Method = score.CRePE.Name
	return r.With("alpha", c.Alpha).With("beta", c.Beta).With("gamma", c.Gamma).With("kernel", c.Kernel)
}

// String is "α 0.3 β 0.2 γ 0.5 kernel 9".
func (c Coefficients) String() string {
	return fmt.Sprintf("α %.6g β %.6g γ %.6g kernel %d", c.Alpha, c.Beta, c.Gamma, c.Kernel)
}
