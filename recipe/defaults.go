package recipe

import (
	"slices"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/refine"
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
	if m, err := refine.Lookup(r.Refine); err == nil {
		fill(&r.RefineLayers, string(m.Layers))
		fill(&r.RefineCycles, m.Cycles)
	}
	if m, err := score.Lookup(r.Method); err == nil {
		if r.Pattern == "" {
			fill(&r.Compare, m.Group.String())
		}
		p := m.Defaults
		parameter(m.Params, "alpha", &r.Alpha, p.Alpha)
		parameter(m.Params, "beta", &r.Beta, p.Beta)
		parameter(m.Params, "gamma", &r.Gamma, p.Gamma)
		parameter(m.Params, "kernel", &r.Kernel, p.Kernel)
		parameter(m.Params, "power", &r.Power, p.Power)
	}
	if m, err := allocate.Lookup(r.Allocate); err == nil {
		p := m.Defaults
		switch m.Name {
		case allocate.OWL.Name:
			parameter(m.Params, "lambda", &r.OWLLambda, p.Lambda)
			parameter(m.Params, "m", &r.OWLM, p.M)
		case allocate.DLP.Name:
			parameter(m.Params, "alpha", &r.DLPAlpha, p.Alpha)
			fill(&r.DLPCenter, p.Center)
		case allocate.AlphaPruning.Name:
			parameter(m.Params, "epsilon", &r.AlphaPruningEpsilon, p.Epsilon)
		}
	}
	return r
}

// WithoutDefaults returns r without what WithDefaults would say for its methods:
// what is left was chosen, and stays where another method or target is put in.
func (r Recipe) WithoutDefaults() Recipe {
	d := r
	d.Compare, d.RefineLayers, d.RefineCycles, d.DLPCenter = "", "", 0, ""
	for _, c := range []*(*float64){&d.Alpha, &d.Beta, &d.Gamma, &d.Power, &d.OWLLambda, &d.OWLM, &d.DLPAlpha, &d.AlphaPruningEpsilon} {
		*c = nil
	}
	d.Kernel = nil
	d = d.WithDefaults()
	drop(&r.Compare, d.Compare)
	drop(&r.RefineLayers, d.RefineLayers)
	drop(&r.RefineCycles, d.RefineCycles)
	drop(&r.DLPCenter, d.DLPCenter)
	dropParameter(&r.Kernel, d.Kernel)
	for _, c := range []struct {
		p    **float64
		with *float64
	}{
		{&r.Alpha, d.Alpha}, {&r.Beta, d.Beta}, {&r.Gamma, d.Gamma}, {&r.Power, d.Power}, {&r.OWLLambda, d.OWLLambda},
		{&r.OWLM, d.OWLM}, {&r.DLPAlpha, d.DLPAlpha}, {&r.AlphaPruningEpsilon, d.AlphaPruningEpsilon},
	} {
		dropParameter(c.p, c.with)
	}
	return r
}

// fill sets a field that is zero.
func fill[T comparable](field *T, v T) {
	if *field == *new(T) {
		*field = v
	}
}

// drop clears a field that says v.
func drop[T comparable](field *T, v T) {
	if *field == v {
		*field = *new(T)
	}
}

// parameter sets one that a method with such parameters reads, if it is nil.
func parameter[T any](params []string, name string, field **T, v T) {
	if *field == nil && slices.Contains(params, name) {
		*field = &v
	}
}

func dropParameter[T comparable](field **T, v *T) {
	if *field != nil && v != nil && **field == *v {
		*field = nil
	}
}
