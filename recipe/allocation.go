package recipe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/allocate"
)

// allocation returns how the sparsity is spread over the blocks; nil: evenly.
func (r Recipe) allocation() (*allocate.Method, allocate.Params, error) {
	m, err := allocate.Uniform, error(nil)
	if r.Allocate != "" {
		if m, err = allocate.Lookup(r.Allocate); err != nil {
			return nil, allocate.Params{}, fmt.Errorf("allocate: %w", err)
		}
		if r.Pattern != "" {
			return nil, allocate.Params{}, fmt.Errorf("allocate: %s, beside pattern %s: N:M fixes the share of every block", m.Name, r.Pattern)
		}
	}
	p := m.Defaults
	for _, c := range []struct {
		field, of, name string
		dst, v          *float64
	}{
		{"owl_lambda", allocate.OWL.Name, "lambda", &p.Lambda, r.OWLLambda},
		{"owl_m", allocate.OWL.Name, "m", &p.M, r.OWLM},
		{"dlp_alpha", allocate.DLP.Name, "alpha", &p.Alpha, r.DLPAlpha},
		{"alphapruning_epsilon", allocate.AlphaPruning.Name, "epsilon", &p.Epsilon, r.AlphaPruningEpsilon},
	} {
		if c.v == nil {
			continue
		}
		if err := reads(m, c.field, c.of, c.name); err != nil {
			return nil, p, err
		}
		*c.dst = *c.v
	}
	if r.DLPCenter != "" {
		if err := reads(m, "dlp_center", allocate.DLP.Name, "center"); err != nil {
			return nil, p, err
		}
		p.Center = r.DLPCenter
	}
	if err := m.Check(p); err != nil {
		return nil, p, fmt.Errorf("%s_%w", m.Name, err)
	}
	if r.Allocate == "" {
		return nil, p, nil
	}
	return &m, p, nil
}

// reads returns an error if field, a parameter of another allocation, stands
// beside m.
func reads(m allocate.Method, field, of, name string) error {
	switch {
	case m.Name == of && slices.Contains(m.Params, name):
		return nil
	case len(m.Params) == 0:
		return fmt.Errorf("%s: allocation %s has no parameters", field, m.Name)
	}
	return fmt.Errorf("%s: allocation %s does not read it; it reads %s", field, m.Name, strings.Join(prefixed(m), ", "))
}

// prefixed returns the parameters of m as a recipe names them.
func prefixed(m allocate.Method) []string {
	var names []string
	for _, p := range m.Params {
		names = append(names, m.Name+"_"+p)
	}
	return names
}
