package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/permute"
	"github.com/crepe-llm/crepe/rebuild"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/rotate"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/update"
)

// Step is a part of a run that a method does: a recipe names one under Key.
type Step struct {
	Key  string // the recipe's key, and the flag
	Doc  string // what its methods do, in a line
	Kind string // what a method of it is, in errors

	// Field is where r names the method; empty: there is no such step.
	Field func(r *Recipe) *string

	methods func() []Method
}

// Method is what a recipe knows of a method of any kind.
type Method struct {
	Name, Doc, Cite string
	Params          []param.Spec
}

// steps are in the order in which Spec writes them. Their methods are the
// registries of their packages; but for updates, which can also be the method, no
// two have a name in common.
var steps = []Step{
	{"method", "how weights are scored; the lowest are pruned", "method", func(r *Recipe) *string { return &r.Method },
		func() []Method { return append(scores(), updates()...) }},
	{"rotate", "first turn the model's directions so that fewer weights matter; the dense model computes the same", "rotation", func(r *Recipe) *string { return &r.Rotate }, rotations},
	{"allocate", "give each block its own sparsity", "allocation", func(r *Recipe) *string { return &r.Allocate }, allocations},
	{"permute", "for N:M, reorder the columns of each Linear so that more of the scores is kept", "permutation", func(r *Recipe) *string { return &r.Permute }, permutations},
	{"refine", "then exchange pruned and kept weights, row by row", "refinement", func(r *Recipe) *string { return &r.Refine }, refinements},
	{"update", "then change the kept weights to compensate for the pruned ones", "update", func(r *Recipe) *string { return &r.Update }, updates},
	{"rebuild", "then optimise what the Linears of an attention or MLP keep, together", "rebuilding", func(r *Recipe) *string { return &r.Rebuild }, rebuilds},
}

func scores() []Method {
	return each(score.Methods(), func(m score.Method) Method { return Method{m.Name, m.Doc, m.Cite, m.Params} })
}

func allocations() []Method {
	return each(allocate.Methods(), func(m allocate.Method) Method { return Method{m.Name, m.Doc, m.Cite, m.Params} })
}

func permutations() []Method {
	return each(permute.Methods(), func(m permute.Method) Method { return Method{m.Name, m.Doc, m.Cite, m.Params} })
}

func refinements() []Method {
	return each(refine.Methods(), func(m refine.Method) Method { return Method{m.Name, m.Doc, m.Cite, m.Params} })
}

func updates() []Method {
	return each(update.Methods(), func(m update.Method) Method { return Method{m.Name, m.Doc, m.Cite, m.Params} })
}

func rebuilds() []Method {
	return each(rebuild.Methods(), func(m rebuild.Method) Method { return Method{m.Name, m.Doc, m.Cite, m.Params} })
}

func rotations() []Method {
	return each(rotate.Methods(), func(m rotate.Method) Method { return Method{m.Name, m.Doc, m.Cite, m.Params} })
}

func each[M any](all []M, f func(M) Method) []Method {
	var out []Method
	for _, m := range all {
		out = append(out, f(m))
	}
	return out
}

// Steps returns the steps there are.
func Steps() []Step { return slices.Clone(steps) }

// Methods returns the methods of the step.
func (s Step) Methods() []Method { return s.methods() }

// Names returns the names of its methods.
func (s Step) Names() []string {
	var names []string
	for _, m := range s.methods() {
		names = append(names, m.Name)
	}
	return names
}

// methodOf returns the method that r names for s; ok is false if there is none, or
// none of that name.
func (s Step) methodOf(r *Recipe) (m Method, ok bool) {
	all, name := s.methods(), *s.Field(r)
	i := slices.IndexFunc(all, func(m Method) bool { return m.Name == name })
	if i < 0 {
		return m, false
	}
	return all[i], true
}

// MethodNames returns what can be a recipe's method: scores, and updates that
// select by themselves.
func MethodNames() []string { return steps[0].Names() }

// StepNames returns what can follow a method in a spec.
func StepNames() []string {
	var names []string
	for _, s := range steps[1:] {
		names = append(names, s.Names()...)
	}
	return names
}

// WithMethod returns r with the method and the steps of spec: a method alone, or
// followed by steps, each after a "+", as in "crepe", "sparsegpt" or
// "crepe+sparsegpt"; a rotation may also come before the method, as in "denoise+sparsegpt". Steps that spec does not name are not taken. Whether they go
// together, and with r's pattern, is Resolve's to say.
func (r Recipe) WithMethod(spec string) (Recipe, error) {
	parts := strings.Split(spec, "+")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if len(parts) > 1 && slices.ContainsFunc(rotations(), func(m Method) bool { return m.Name == parts[0] }) {
		parts[0], parts[1] = parts[1], parts[0]
	}
	if !slices.Contains(MethodNames(), parts[0]) {
		return r, fmt.Errorf("unknown method %q in %q, want one of %s", parts[0], spec, strings.Join(MethodNames(), ", "))
	}
	r.Method = parts[0]
	after := steps[1:]
	for _, s := range after {
		*s.Field(&r) = ""
	}
	for _, part := range parts[1:] {
		i := slices.IndexFunc(after, func(s Step) bool { return slices.Contains(s.Names(), part) })
		if i < 0 {
			return r, fmt.Errorf("unknown step %q in %q, want one of %s", part, spec, strings.Join(StepNames(), ", "))
		}
		f := after[i].Field(&r)
		if *f != "" {
			return r, fmt.Errorf("%s: both %q and %q in %q, want one of them", after[i].Key, *f, part, spec)
		}
		*f = part
	}
	return r, nil
}

// Spec returns the spec of r's method and steps.
func (r Recipe) Spec() string {
	parts := []string{r.WithDefaults().Method}
	for _, s := range steps[1:] {
		if v := *s.Field(&r); v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, "+")
}
