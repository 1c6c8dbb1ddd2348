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
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// Method is a way to update.
type Method struct {
	Name      string
	Doc       string // what it does, in a line
	Cite      string // its source
	NeedsGram bool   // reads a stats.Gram

	// Run prunes w to t and updates what stays. A nil kept lets the method
	// select; otherwise exactly what kept prunes is zero. work is memory for
	// out·in values. A kept weight that does not fit in w's type is an error
	// that names its position.
	Run func(w *tensor.Weight, f *Factor, kept *mask.Mask, t pattern.Target, work []float32) error
}

// Methods returns all methods.
func Methods() []Method { return []Method{SparseGPT} }

// Names returns the names of all methods, in their order.
func Names() []string {
	var names []string
	for _, m := range Methods() {
		names = append(names, m.Name)
	}
	return names
}

// Lookup returns the method called name.
func Lookup(name string) (Method, error) {
	for _, m := range Methods() {
		if m.Name == name {
			return m, nil
		}
	}
	return Method{}, fmt.Errorf("unknown update %q, want one of %s", name, strings.Join(Names(), ", "))
}
