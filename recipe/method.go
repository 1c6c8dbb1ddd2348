package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/permute"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/update"
)

// step is one that a spec can name after the method.
type step struct {
	name  string // the recipe's field
	known func() []string
	field func(r *Recipe) *string
}

// steps are in the order in which Spec writes them. Their names are the registries
// of their packages, and no two have a name in common.
var steps = []step{
	{"allocate", allocate.Names, func(r *Recipe) *string { return &r.Allocate }},
	{"permute", permute.Names, func(r *Recipe) *string { return &r.Permute }},
	{"refine", refine.Names, func(r *Recipe) *string { return &r.Refine }},
	{"update", update.Names, func(r *Recipe) *string { return &r.Update }},
}

// MethodNames returns what can be a recipe's method: scores, and updates that
// select by themselves.
func MethodNames() []string { return append(score.Names(), update.Names()...) }

// StepNames returns what can follow a method in a spec.
func StepNames() []string {
	var names []string
	for _, s := range steps {
		names = append(names, s.known()...)
	}
	return names
}

// WithMethod returns r with the method and the steps of spec: a method alone, or
// followed by steps, each after a "+", as in "crepe", "sparsegpt" or
// "crepe+sparsegpt". Steps that spec does not name are not taken. Whether they go
// together, and with r's pattern, is Resolve's to say.
func (r Recipe) WithMethod(spec string) (Recipe, error) {
	parts := strings.Split(spec, "+")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if !slices.Contains(MethodNames(), parts[0]) {
		return r, fmt.Errorf("method %q of %q is not built in, want one of %s", parts[0], spec, strings.Join(MethodNames(), ", "))
	}
	r.Method = parts[0]
	for _, s := range steps {
		*s.field(&r) = ""
	}
	for _, part := range parts[1:] {
		i := slices.IndexFunc(steps, func(s step) bool { return slices.Contains(s.known(), part) })
		if i < 0 {
			return r, fmt.Errorf("step %q of %q is not built in, want one of %s", part, spec, strings.Join(StepNames(), ", "))
		}
		f := steps[i].field(&r)
		if *f != "" {
			return r, fmt.Errorf("%s: %q and %q of %q, want one of the two", steps[i].name, *f, part, spec)
		}
		*f = part
	}
	return r, nil
}

// Spec returns the spec of r's method and steps.
func (r Recipe) Spec() string {
	parts := []string{r.WithDefaults().Method}
	for _, s := range steps {
		if v := *s.field(&r); v != "" {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, "+")
}
