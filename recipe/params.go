package recipe

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/crepe-llm/crepe/param"
)

// Parameter is a parameter that a recipe may set, and the methods that read it.
type Parameter struct {
	param.Spec // the default is the first reader's
	Step       Step
	Readers    []Reader
}

// Reader is a method that reads a parameter, and the default it has there.
type Reader struct {
	Method  string
	Default any
}

// Parameters returns the parameters of all methods, step by step.
func Parameters() []Parameter {
	var all []Parameter
	at := map[string]int{}
	for _, s := range steps {
		for _, m := range s.Methods() {
			for _, spec := range m.Params {
				i, ok := at[spec.Name]
				if !ok {
					i = len(all)
					at[spec.Name] = i
					all = append(all, Parameter{Spec: spec, Step: s})
				}
				if r := (Reader{m.Name, spec.Default}); !slices.Contains(all[i].Readers, r) { // an update is of two steps
					all[i].Readers = append(all[i].Readers, r)
				}
			}
		}
	}
	return all
}

// OneDefault reports whether all readers have the same default.
func (p Parameter) OneDefault() bool {
	return !slices.ContainsFunc(p.Readers, func(r Reader) bool { return r.Default != p.Default })
}

// With returns r with a parameter set to a value.
func (r Recipe) With(name string, value any) Recipe {
	r.Params = r.Params.With(name, value)
	return r
}

// Without returns r without a method at step s, and without what only that method
// reads.
func (r Recipe) Without(s Step) Recipe {
	gone := r.readsAt(s.Key)
	*s.Field(&r) = ""
	r.Params = maps.Clone(r.Params)
	still := r.reads()
	for _, p := range gone {
		if _, read := param.Declared(still, p.Name); !read {
			delete(r.Params, p.Name)
		}
	}
	return r
}

// reads returns the parameters that r's methods read.
func (r *Recipe) reads() []param.Spec {
	var specs []param.Spec
	for _, s := range steps {
		specs = append(specs, r.readsAt(s.Key)...)
	}
	return specs
}

// readsAt returns the parameters that r's method of one step reads.
func (r *Recipe) readsAt(step string) []param.Spec {
	i := slices.IndexFunc(steps, func(s Step) bool { return s.Key == step })
	if i < 0 {
		return nil
	}
	m, _ := steps[i].methodOf(r)
	return m.Params
}

// normalize puts the values of r's parameters into their types, and takes out what
// says nothing: null, empty text and a switch that is off. What is in no type that
// it could be stays, for check to name.
func (r *Recipe) normalize() {
	r.normalizeParams()
	r.normalizeKinds()
}

func (r *Recipe) normalizeParams() {
	known := Parameters()
	r.Params = maps.Clone(r.Params)
	for name, v := range r.Params {
		i := slices.IndexFunc(known, func(p Parameter) bool { return p.Name == name })
		if v == nil || v == "" || i >= 0 && v == false && known[i].Default == false {
			delete(r.Params, name)
		} else if i >= 0 {
			if c, err := known[i].Convert(v); err == nil {
				r.Params[name] = c
			}
		}
	}
	if len(r.Params) == 0 {
		r.Params = nil
	}
}

// fillParams sets the parameters that r's methods read and that are not set.
func (r *Recipe) fillParams() {
	r.normalizeParams()
	for _, s := range r.reads() {
		if _, ok := r.Params[s.Name]; !ok {
			r.Params = r.Params.With(s.Name, s.Default)
		}
	}
	r.normalizeKinds()
}

// checkParams returns an error if r sets a parameter that none of its methods
// reads, or to a value that is not allowed.
func (r *Recipe) checkParams() error {
	reads := r.reads()
	for _, name := range slices.Sorted(maps.Keys(r.Params)) {
		if _, ok := param.Declared(reads, name); !ok {
			return r.notRead(name)
		}
	}
	return param.Check(reads, r.Params)
}

// notRead says why r cannot set a parameter.
func (r *Recipe) notRead(name string) error {
	known := Parameters()
	i := slices.IndexFunc(known, func(p Parameter) bool { return p.Name == name })
	if i < 0 {
		return fmt.Errorf("unknown field %q", name)
	}
	s := known[i].Step
	m, ok := s.methodOf(r)
	switch {
	case !ok:
		return fmt.Errorf("%s: %v without %s: want %s %s too", name, r.Params[name], s.Kind, s.Key, strings.Join(names(known[i].Readers), " or "))
	case len(m.Params) == 0:
		return fmt.Errorf("%s: %s %s has no parameters", name, s.Kind, m.Name)
	}
	return fmt.Errorf("%s: %s %s does not read it%s", name, s.Kind, m.Name, reads(m.Params))
}

func names(readers []Reader) []string {
	var all []string
	for _, r := range readers {
		all = append(all, r.Method)
	}
	return all
}

// fields is a Recipe without methods.
type fields Recipe

// MarshalYAML writes each parameter after the step whose method reads it.
func (r Recipe) MarshalYAML() (any, error) {
	var n yaml.Node
	if err := n.Encode(fields(r)); err != nil {
		return nil, err
	}
	pairs := map[string][]*yaml.Node{}
	var order []string
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i].Value
		pairs[key] = n.Content[i : i+2]
		order = append(order, key)
	}
	var sorted []*yaml.Node
	take := func(key string) {
		sorted = append(sorted, pairs[key]...)
		delete(pairs, key)
	}
	for _, key := range order {
		if _, ok := r.Params[key]; ok {
			continue
		}
		take(key)
		for _, p := range r.readsAt(key) {
			take(p.Name)
		}
	}
	for _, key := range order { // what no method of r reads
		take(key)
	}
	n.Content = sorted
	return &n, nil
}

// MarshalJSON writes the parameters beside the other fields.
func (r Recipe) MarshalJSON() ([]byte, error) {
	text, err := json.Marshal(fields(r))
	if err != nil || len(r.Params) == 0 {
		return text, err
	}
	params, err := json.Marshal(r.Params)
	if err != nil {
		return nil, err
	}
	return append(append(text[:len(text)-1], ','), params[1:]...), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Recipe) UnmarshalJSON(text []byte) error {
	if err := json.Unmarshal(text, (*fields)(r)); err != nil {
		return err
	}
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	r.Params = nil
	for _, p := range Parameters() {
		if v, ok := all[p.Name]; ok {
			r.Params = r.Params.With(p.Name, v)
		}
	}
	r.normalize()
	return nil
}
