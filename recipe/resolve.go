package recipe

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/update"
)

// Resolve checks r, with its defaults filled in, and returns what it means.
// Every error names the field.
func (r Recipe) Resolve() (Resolved, error) {
	r = r.WithDefaults()
	var out Resolved
	var err error
	if out.Method, out.Update, err = r.methods(); err != nil {
		return out, err
	}
	if out.Refine, err = r.refinement(out.Method); err != nil {
		return out, err
	}
	if out.Refine != nil {
		out.Method.NeedsData = true
	}
	if out.Params, err = r.params(out.Method); err != nil {
		return out, err
	}
	if out.Target, err = r.target(out.Method); err != nil {
		return out, err
	}
	out.Observes = out.Method.NeedsData
	if out.Allocate, out.AllocateParams, err = r.allocation(); err != nil {
		return out, err
	}
	if out.Allocate != nil && out.Allocate.NeedsData() {
		out.Method.NeedsData = true
	}
	if out.Permute, err = r.permutation(); err != nil {
		return out, err
	}
	out.LSAFast = r.LSAFast
	switch r.Fused {
	case "whole":
	case "split":
		out.Split = true
	default:
		return out, fmt.Errorf("fused: %q, want whole or split", r.Fused)
	}
	if r.Skip != "" {
		if out.Skip, err = regexp.Compile(r.Skip); err != nil {
			return out, fmt.Errorf("skip: %w", err)
		}
	}
	if r.Compute != "auto" {
		if _, err := model.ParseCompute(r.Compute); err != nil {
			return out, fmt.Errorf("compute: %q, want f32, bf16 or auto", r.Compute)
		}
	}
	return out, r.checkNumbers()
}

// methods returns what selects the weights that go, and what changes those that
// stay.
func (r Recipe) methods() (score.Method, *update.Method, error) {
	if u, err := update.Lookup(r.Method); err == nil {
		switch {
		case r.Update != "":
			return score.Method{}, nil, fmt.Errorf("update: %s, beside method %s, which updates by itself", r.Update, r.Method)
		case r.Compare != "":
			return score.Method{}, nil, fmt.Errorf("compare: %s, but method %s decides by itself what it compares", r.Compare, r.Method)
		}
		return score.Method{Name: u.Name, Doc: u.Doc, Cite: u.Cite, NeedsData: true}, &u, nil
	}
	m, err := score.Lookup(r.Method)
	if err != nil {
		return m, nil, fmt.Errorf("%w, %s", err, strings.Join(update.Names(), ", "))
	}
	if r.Update == "" {
		return m, nil, nil
	}
	u, err := update.Lookup(r.Update)
	if err != nil {
		return m, nil, fmt.Errorf("update: %w", err)
	}
	m.NeedsData = true
	return m, &u, nil
}

// refinement returns how the mask that m selects is refined, nil if it is not.
func (r Recipe) refinement(m score.Method) (*Refinement, error) {
	if r.Refine == "" {
		switch {
		case r.RefineLayers != "":
			return nil, fmt.Errorf("refine layers: %s, but nothing is refined; want a refinement (%s) too", r.RefineLayers, strings.Join(refine.Names(), ", "))
		case r.RefineCycles != 0:
			return nil, fmt.Errorf("refine cycles: %d, but nothing is refined; want a refinement (%s) too", r.RefineCycles, strings.Join(refine.Names(), ", "))
		}
		return nil, nil
	}
	method, err := refine.Lookup(r.Refine)
	if err != nil {
		return nil, fmt.Errorf("refine: %w", err)
	}
	if m.Score == nil {
		return nil, fmt.Errorf("refine: %s, beside method %s, which changes weights as it selects: there is no mask to refine before", r.Refine, m.Name)
	}
	layers, err := refine.ParseLayers(r.RefineLayers)
	if err != nil {
		return nil, fmt.Errorf("refine layers: %w", err)
	}
	if r.RefineCycles < 1 {
		return nil, fmt.Errorf("refine cycles: %d, want at least 1", r.RefineCycles)
	}
	return &Refinement{Method: method, Layers: layers, Cycles: r.RefineCycles}, nil
}

func (r Recipe) params(m score.Method) (score.Params, error) {
	p := m.Defaults
	set := func(name string, dst *float64, v *float64) error {
		if v == nil {
			return nil
		}
		if !slices.Contains(m.Params, name) {
			return notRead(name, m)
		}
		if math.IsNaN(*v) || math.IsInf(*v, 0) || *v < 0 {
			return fmt.Errorf("%s: %v, want a finite number of at least 0", name, *v)
		}
		*dst = *v
		return nil
	}
	err := errors.Join(
		set("alpha", &p.Alpha, r.Alpha), set("beta", &p.Beta, r.Beta),
		set("gamma", &p.Gamma, r.Gamma), set("power", &p.Power, r.Power))
	if err != nil {
		return p, err
	}
	if r.Kernel != nil {
		if !slices.Contains(m.Params, "kernel") {
			return p, notRead("kernel", m)
		}
		p.Kernel = *r.Kernel
	}
	return p, m.Check(p)
}

func notRead(name string, m score.Method) error {
	if len(m.Params) == 0 {
		return fmt.Errorf("%s: method %s has no parameters", name, m.Name)
	}
	return fmt.Errorf("%s: method %s does not read it; it reads %s", name, m.Name, strings.Join(m.Params, ", "))
}

func (r Recipe) target(m score.Method) (pattern.Target, error) {
	t := pattern.Target{Group: m.Group}
	if r.Pattern != "" {
		switch {
		case r.Sparsity != "":
			return t, fmt.Errorf("pattern: %s, beside sparsity %s; want one of the two", r.Pattern, r.Sparsity)
		case r.Compare != "":
			return t, fmt.Errorf("compare: %s, beside pattern %s, whose groups are fixed", r.Compare, r.Pattern)
		}
		p, err := pattern.ParsePattern(r.Pattern)
		if err != nil {
			return t, err
		}
		t.Pattern = p
		return t, nil
	}
	s, err := pattern.ParseSparsity(r.Sparsity)
	if err != nil {
		return t, err
	}
	t.Sparsity = s
	if r.Compare != "" {
		if t.Group, err = pattern.ParseGroup(r.Compare); err != nil {
			return t, fmt.Errorf("compare: %w", err)
		}
	}
	return t, nil
}

func (r Recipe) checkNumbers() error {
	for _, c := range []struct {
		name     string
		v, least int
	}{
		{"calibration samples", r.Calibration.Samples, 1},
		{"calibration seqlen", r.Calibration.SeqLen, 2},
		{"eval seqlen", r.Eval.SeqLen, 2},
		{"eval windows", r.Eval.Windows, 0},
	} {
		if c.v < c.least {
			return fmt.Errorf("%s: %d, want at least %d", c.name, c.v, c.least)
		}
	}
	if r.Calibration.Seed < 0 {
		return fmt.Errorf("calibration seed: %d, want at least 0", r.Calibration.Seed)
	}
	return nil
}
