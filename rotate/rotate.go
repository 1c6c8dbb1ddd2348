// Package rotate finds rotations of a space that concentrate what the weights which
// read it, or write to it, have of importance on few of their elements. A method that
// prunes by such a score then loses less of it.
package rotate

import (
	"github.com/crepe-llm/crepe/internal/registry"
	"github.com/crepe-llm/crepe/param"
)

// Method is a way to rotate.
type Method struct {
	Name   string
	Doc    string       // what it does, in a line
	Cite   string       // its source
	Params []param.Spec // the parameters it reads
}

// Denoise minimises what pruning would lose, or the entropy of importance.
var Denoise = Method{
	Name: "denoise",
	Doc:  "turns the residual stream and each head's values so that importance lies on fewer weights; the dense model computes the same",
	Cite: "Gu et al. 2025, arXiv:2505.23049; one rotation for the whole model, which leaves nothing to compute at run time",
	Params: []param.Spec{
		{Name: "rotate_what", Doc: "what is turned: the residual stream, the heads' values, or both", Default: Both, Choices: []any{Both, Stream, Values}},
		{Name: "rotate_for", Doc: "what is made small: the importance that pruning would take from each row and column, or its entropy", Default: Loss, Choices: []any{Loss, Entropy}},
		{Name: "rotate_steps", Doc: "steps of descent", Default: 100, Min: 1, Max: 1 << 16},
		{Name: "rotate_vectors", Doc: "rows and columns of weights that the stream's rotation is found on, evenly from all", Default: 1 << 14, Min: 1 << 8, Max: 1000000},
	},
}

// The values of rotate_what.
const (
	Both   = "both"
	Stream = "stream"
	Values = "values"
)

// The values of rotate_for.
const (
	Loss    = "loss"
	Entropy = "entropy"
)

// methods are all methods.
var methods = registry.New("rotation", func(m Method) string { return m.Name }, Denoise)

// Methods returns all methods.
func Methods() []Method { return methods.All() }

// Lookup returns the method called want.
func Lookup(want string) (Method, error) { return methods.Lookup(want) }

// Options are Denoise's parameters.
type Options struct {
	Stream, Values bool
	Steps, Vectors int
	Measure        Measure
}

// OptionsOf reads Denoise's parameters, for a run that prunes that share of the weights.
func OptionsOf(p param.Values, sparsity float64) Options {
	what := p.Text("rotate_what")
	if p.Text("rotate_for") == Entropy {
		sparsity = 0
	}
	return Options{
		Stream: what != Values, Values: what != Stream,
		Steps: p.Whole("rotate_steps"), Vectors: p.Whole("rotate_vectors"),
		Measure: Measure{Lost: sparsity},
	}
}
