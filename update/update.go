// Package update changes the weights that stay, so that the Linear's output
// changes less when the others go.
//
// The letters of all files here:
//
//	W   out × in weight as it came
//	H   in × in Gram matrix of the input (stats.Gram), damped
//	U   upper Cholesky factor of H⁻¹ = UᵀU; d_j = U_jj
//	R   U⁻¹, so that H = R·Rᵀ (linalg.Factor)
//	Q   the weight that results; D = W − Q
package update

import (
	"context"

	"github.com/crepe-llm/crepe/internal/registry"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Method is a way to update.
type Method struct {
	Name      string
	Doc       string // what it does, in a line
	Cite      string // its source
	NeedsGram bool   // reads a stats.Gram

	Params []param.Spec // the parameters it reads

	// Prepare does what all Linears of an input share; to may be none. It is a
	// *linalg.NotPositiveDefiniteError if the Gram matrix allows no update.
	Prepare func(g *stats.Gram, to pattern.Pattern, p param.Values) (Prepared, error)

	// Bytes returns what a Prepared of an input of width in holds, and RunBytes
	// what a Run for out rows takes besides; selects: no mask is given.
	Bytes    func(in int, selects bool) int64
	RunBytes func(out, in int, selects bool) int64

	// FLOP returns the operations of what an input of width in shares, and RunFLOP
	// those of a Run, where their number is not known of a usual one.
	FLOP    func(in int, selects bool) float64
	RunFLOP func(out, in int, selects bool) float64
}

// Prepared is a method at work on the Linears of one input.
type Prepared interface {
	// Run prunes w to t and updates what stays. A nil kept lets the method
	// select; otherwise exactly what kept prunes is zero. work is memory for
	// out·in values. A kept weight that does not fit in w's type is an error
	// that names its position. An end of ctx is noticed within seconds, and
	// leaves w undefined, as every error does.
	Run(ctx context.Context, w *tensor.Weight, kept *mask.Mask, t pattern.Target, work []float32) error

	// Damped returns the share of mean(diag H) that was added to its diagonal.
	Damped() float64
}

// methods are all methods.
var methods = registry.New("update", func(m Method) string { return m.Name },
	SparseGPT,
	ADMM,
)

// Methods returns all methods.
func Methods() []Method { return methods.All() }

// Names returns the names of all methods, in their order.
func Names() []string { return methods.Names() }

// Lookup returns the method called want.
func Lookup(want string) (Method, error) { return methods.Lookup(want) }

// Register makes m known to recipes until remove is called. It is for programs
// that bring an update of their own.
func Register(m Method) (remove func()) { return methods.Add(m) }
