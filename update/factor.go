package update

import (
	"github.com/crepe-llm/crepe/linalg"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Damping is the share of mean(diag H) that is added to its diagonal.
const Damping = 0.01

// dampings are tried in turn, until H is positive definite.
var dampings = [...]float64{Damping, 0.1}

// blockColumns is how many columns are selected together.
const blockColumns = 128

// Factor is what the updates of all Linears of an input share.
type Factor struct {
	*linalg.Factor
	Damping float64 // that was needed, as a share of mean(diag H)
	dead    []bool  // columns whose input is silent
}

// FactorBytes returns what the Factor of an input of width in holds.
func FactorBytes(in int) int64 {
	n := int64(in)
	return 4*n*n + 8*n*blockColumns
}

// Factorize returns the factor of g for pruning to p, which may be none: of H
// with H_jj = 1 where it is 0, and the damping added to its diagonal. It is a
// *linalg.NotPositiveDefiniteError if both dampings fail.
func Factorize(g *stats.Gram, p pattern.Pattern) (*Factor, error) {
	h := tensor.NewMatrix(g.N, g.N)
	f := &Factor{dead: make([]bool, g.N)}
	mean := 0.0
	for j := range g.N {
		d := g.At(j, j)
		if d == 0 {
			f.dead[j], d = true, 1
		}
		mean += d / float64(g.N)
	}
	var err error
	for _, f.Damping = range dampings {
		g.Upper(h)
		for j := range g.N {
			d := g.At(j, j)
			if f.dead[j] {
				d = 1
			}
			h.Data[j*g.N+j] = float32(d + f.Damping*mean)
		}
		if f.Factor, err = linalg.Factorize(h, blockOf(p)); err == nil {
			return f, nil
		}
		if e, ok := err.(*linalg.NotPositiveDefiniteError); ok {
			e.Damping = f.Damping
		}
	}
	return nil, err
}

// blockOf is blockColumns, or as near below it as whole groups of p come: what
// N:M selects does not depend on where blocks end.
func blockOf(p pattern.Pattern) int {
	if p.Of == 0 {
		return blockColumns
	}
	return max(blockColumns/p.Of, 1) * p.Of
}
