package recipe

import (
	"maps"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/score"
)

// WithDefaults returns r with every field that has a default filled in, the
// parameters of its methods among them: what it says then is all that a run
// depends on, whatever becomes of the defaults. Sources and numbers of windows
// have none here: they depend on the model.
func (r Recipe) WithDefaults() Recipe {
	r.Version = Version
	if r.Sparsity == "" && r.Pattern == "" {
		r.Sparsity = DefaultSparsity
	}
	if r.Allocate == allocate.Uniform.Name {
		r.Allocate = ""
	}
	fill(&r.Method, DefaultMethod)
	fill(&r.Calibration.Samples, DefaultSamples)
	fill(&r.Calibration.SeqLen, DefaultSeqLen)
	fill(&r.Eval.SeqLen, DefaultSeqLen)
	fill(&r.Fused, DefaultFused)
	fill(&r.Compute, DefaultCompute)
	if m, err := score.Lookup(r.Method); err == nil && r.Pattern == "" {
		fill(&r.Compare, m.Group.String())
	}
	r.fillParams()
	return r
}

// fill sets a field that is zero.
func fill[T comparable](field *T, v T) {
	if *field == *new(T) {
		*field = v
	}
}

// WithoutDefaults returns r without what WithDefaults would say for its methods:
// what is left was chosen, and stays where another method or target is put in.
func (r Recipe) WithoutDefaults() Recipe {
	d := r
	d.Compare, d.Params = "", nil
	d = d.WithDefaults()
	if r.Compare == d.Compare {
		r.Compare = ""
	}
	r.normalize()
	maps.DeleteFunc(r.Params, func(name string, v any) bool { return d.Params[name] == v })
	return r
}
