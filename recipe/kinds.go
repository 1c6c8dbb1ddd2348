package recipe

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/score"
)

// Kind returns the kind of the Linear of that name: its last part, "q_proj" of
// "model.layers.3.self_attn.q_proj".
func Kind(linear string) string { return linear[strings.LastIndexByte(linear, '.')+1:] }

// WithKind returns r with a parameter of its method set to a value for one kind of
// Linear.
func (r Recipe) WithKind(kind, name string, value any) Recipe {
	r.Kinds = maps.Clone(r.Kinds)
	if r.Kinds == nil {
		r.Kinds = map[string]param.Values{}
	}
	r.Kinds[kind] = r.Kinds[kind].With(name, value)
	return r
}

// normalizeKinds is normalize for the parameters by kind. What says the same as the
// parameters of all kinds is taken out.
func (r *Recipe) normalizeKinds() {
	specs := r.scored()
	kinds := map[string]param.Values{}
	for kind, values := range r.Kinds {
		own := param.Values{}
		for name, v := range values {
			if s, ok := param.Declared(specs, name); ok {
				if c, err := s.Convert(v); err == nil {
					v = c
				}
				if all, ok := r.Params[name]; ok && all == v {
					continue
				}
			}
			own[name] = v
		}
		if len(own) > 0 {
			kinds[kind] = own
		}
	}
	r.Kinds = nil
	if len(kinds) > 0 {
		r.Kinds = kinds
	}
}

// scored returns the parameters of r's score; none where an update selects.
func (r *Recipe) scored() []param.Spec {
	m, err := score.Lookup(r.Method)
	if err != nil {
		return nil
	}
	return m.Params
}

// resolveKinds returns all parameters of each kind that has some of its own.
func (r Recipe) resolveKinds(m score.Method) (map[string]param.Values, error) {
	if len(r.Kinds) == 0 {
		return nil, nil
	}
	all := map[string]param.Values{}
	for _, kind := range slices.Sorted(maps.Keys(r.Kinds)) {
		p := r.Params
		for _, name := range slices.Sorted(maps.Keys(r.Kinds[kind])) {
			if _, ok := param.Declared(m.Params, name); !ok {
				return nil, fmt.Errorf("kinds: %s: %s: method %s does not read it%s", kind, name, r.Method, reads(m.Params))
			}
			p = p.With(name, r.Kinds[kind][name])
		}
		if kind == "" || strings.ContainsRune(kind, '.') {
			return nil, fmt.Errorf("kinds: %q, want the last part of a Linear's name, such as q_proj", kind)
		}
		if err := m.Check(p); err != nil {
			return nil, fmt.Errorf("kinds: %s: %w", kind, err)
		}
		all[kind] = p
	}
	return all, nil
}

// reads lists parameters for an error.
func reads(specs []param.Spec) string {
	if len(specs) == 0 {
		return ", nor anything else"
	}
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
	}
	return "; it reads " + strings.Join(names, ", ")
}

// ParamsOf returns the parameters of the method for the Linear of that name.
func (r Resolved) ParamsOf(linear string) param.Values {
	if p, ok := r.Kinds[Kind(linear)]; ok {
		return p
	}
	return r.Params
}
