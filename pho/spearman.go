package pho

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mathext"
)

// Correlation is Spearman's ρ of two samples: Pearson's correlation of their
// ranks, equal values sharing the mean of theirs. P is the two-sided p-value of
// ρ = 0 by Student's t with n − 2 degrees of freedom, as scipy's spearmanr has
// it; from some ten pairs on it can be relied on. Low and High bound ρ with 95 %
// confidence:
//
//	tanh(artanh ρ ± 1.96·√((1 + ρ²/2)/(n − 3)))
//
// (Bonett & Wright 2000, Psychometrika 65, 23–28); −1 and 1 for three pairs.
type Correlation struct {
	Rho  float64 `json:"rho"`
	P    float64 `json:"p"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Spearman correlates x with y, which are finite and as long, 3 at least. ok is
// false if one of them is constant: then there is no correlation.
func Spearman(x, y []float64) (c Correlation, ok bool) {
	n := len(x)
	if len(y) != n || n < 3 {
		panic(fmt.Sprintf("pho: Spearman: %d and %d values, want as many, 3 at least", n, len(y)))
	}
	a, b := ranks(x), ranks(y)
	middle := float64(n+1) / 2
	var xx, yy, xy float64 // of multiples of 1/4: exact
	for i := range a {
		u, v := a[i]-middle, b[i]-middle
		xx, yy, xy = xx+u*u, yy+v*v, xy+u*v
	}
	if xx == 0 || yy == 0 {
		return c, false
	}
	c.Rho = min(max(xy/math.Sqrt(xx*yy), -1), 1)
	// t² = ρ²·f/(1 − ρ²), and P(|T| > t) = I_{f/(f+t²)}(f/2, 1/2) = I_{1−ρ²}(f/2, 1/2).
	c.P = mathext.RegIncBeta(float64(n-2)/2, 0.5, 1-c.Rho*c.Rho)
	c.Low, c.High = interval(c.Rho, n)
	return c, true
}

func interval(rho float64, n int) (low, high float64) {
	const normal = 1.959963984540054 // 97.5th percentile
	switch {
	case n <= 3:
		return -1, 1
	case math.Abs(rho) == 1:
		return rho, rho
	}
	z, half := math.Atanh(rho), normal*math.Sqrt((1+rho*rho/2)/float64(n-3))
	return math.Tanh(z - half), math.Tanh(z + half)
}

// ranks returns the ranks of x from 1.
func ranks(x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	r := make([]float64, len(x))
	for lo := 0; lo < len(order); {
		hi := lo + 1
		for hi < len(order) && x[order[hi]] == x[order[lo]] {
			hi++
		}
		for _, i := range order[lo:hi] {
			r[i] = float64(lo+hi+1) / 2
		}
		lo = hi
	}
	return r
}
