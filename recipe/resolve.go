package recipe

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/permute"
	"github.com/crepe-llm/crepe/rebuild"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/rotate"
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
	if r.Rebuild != "" {
		m, err := rebuild.Lookup(r.Rebuild)
		if err != nil {
			return out, fmt.Errorf("rebuild: %w", err)
		}
		out.Rebuild = &m
	}
	if out.Refine != nil || out.Rebuild != nil {
		out.Method.NeedsData = true
	}
	out.Observes = out.Method.NeedsData
	if out.Allocate, err = r.allocation(); err != nil {
		return out, err
	}
	if r.Rotate != "" {
		m, err := rotate.Lookup(r.Rotate)
		if err != nil {
			return out, fmt.Errorf("rotate: %w", err)
		}
		out.Rotate = &m
	}
	if out.Rotate != nil || out.Allocate != nil && out.Allocate.NeedsData() {
		out.Method.NeedsData = true
	}
	if out.Permute, err = r.permutation(); err != nil {
		return out, err
	}
	if err := r.checkParams(); err != nil {
		return out, err
	}
	out.Params, out.Fit = r.Params, fit.Of(r.Params)
	if err := out.Method.Check(out.Params); err != nil {
		return out, err
	}
	if out.Kinds, err = r.resolveKinds(out.Method); err != nil {
		return out, err
	}
	if out.Target, err = r.target(out.Method); err != nil {
		return out, err
	}
	switch r.Fused {
	case "whole":
	case "split":
		out.Split = true
	default:
		return out, fmt.Errorf("fused: %q, want whole or split", r.Fused)
	}
	if len(r.Skip) > maxSkip {
		return out, fmt.Errorf("skip: an expression of %d bytes, want at most %d", len(r.Skip), maxSkip)
	}
	if r.Skip != "" {
		if out.Skip, err = regexp.Compile(r.Skip); err != nil {
			var wrong *syntax.Error
			if errors.As(err, &wrong) {
				err = fmt.Errorf("%s: %.60q", wrong.Code, wrong.Expr)
			}
			return out, fmt.Errorf("skip: %.60q: %w", r.Skip, err)
		}
	}
	if r.Compute != "auto" {
		if _, err := engine.ParseCompute(r.Compute); err != nil {
			return out, fmt.Errorf("compute: %q, want f32, bf16 or auto", r.Compute)
		}
	}
	return out, r.checkNumbers()
}

// maxSkip bounds an expression for names of Linears.
const maxSkip = 4096 // bytes

// Skips reports whether r leaves the Linear of that name dense.
func (r *Resolved) Skips(linear string) bool { return r.Skip != nil && r.Skip.MatchString(linear) }

// methods returns what selects the weights that go, and what changes those that
// stay.
func (r Recipe) methods() (score.Method, *update.Method, error) {
	if u, err := update.Lookup(r.Method); err == nil {
		switch {
		case r.Update != "":
			return score.Method{}, nil, fmt.Errorf("update: %s with method %s, which updates the weights itself", r.Update, r.Method)
		case r.Compare != "":
			return score.Method{}, nil, fmt.Errorf("compare: %s with method %s, which defines itself what it compares", r.Compare, r.Method)
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
func (r Recipe) refinement(m score.Method) (*refine.Method, error) {
	if r.Refine == "" {
		return nil, nil
	}
	f, err := refine.Lookup(r.Refine)
	if err != nil {
		return nil, fmt.Errorf("refine: %w", err)
	}
	if m.Score == nil {
		return nil, fmt.Errorf("refine: %s with method %s, which changes weights while it selects: there is no mask to refine", r.Refine, m.Name)
	}
	return &f, nil
}

// allocation returns how the sparsity is spread over the blocks; nil: evenly.
func (r Recipe) allocation() (*allocate.Method, error) {
	if r.Allocate == "" {
		return nil, nil
	}
	m, err := allocate.Lookup(r.Allocate)
	if err != nil {
		return nil, fmt.Errorf("allocate: %w", err)
	}
	if r.Pattern != "" {
		return nil, fmt.Errorf("allocate: %s with pattern %s: N:M fixes the sparsity of every block", m.Name, r.Pattern)
	}
	return &m, nil
}

// permutation returns how columns are put in order for N:M; nil: they are not.
func (r Recipe) permutation() (*permute.Method, error) {
	if r.Permute == "" {
		return nil, nil
	}
	m, err := permute.Lookup(r.Permute)
	if err != nil {
		return nil, fmt.Errorf("permute: %w", err)
	}
	if r.Pattern == "" {
		return nil, errors.New("permute: " + m.Name + " without a pattern N:M: no order of the columns is better than another")
	}
	return &m, nil
}

func (r Recipe) target(m score.Method) (pattern.Target, error) {
	t := pattern.Target{Group: m.Group}
	if r.Pattern != "" {
		switch {
		case r.Sparsity != "":
			return t, fmt.Errorf("pattern: %s with sparsity %s: want one of the two", r.Pattern, r.Sparsity)
		case r.Compare != "":
			return t, fmt.Errorf("compare: %s with pattern %s, whose groups are fixed", r.Compare, r.Pattern)
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
		name           string
		v, least, most int
	}{
		{"calibration samples", r.Calibration.Samples, 1, MaxSamples},
		{"calibration seqlen", r.Calibration.SeqLen, 2, MaxSeqLen},
		{"eval seqlen", r.Eval.SeqLen, 2, MaxSeqLen},
		{"eval windows", r.Eval.Windows, 0, MaxWindows},
	} {
		switch {
		case c.v < c.least:
			return fmt.Errorf("%s: %d, want at least %d", c.name, c.v, c.least)
		case c.v > c.most:
			return fmt.Errorf("%s: %d, want at most %d", c.name, c.v, c.most)
		}
	}
	if r.Calibration.Seed < 0 {
		return fmt.Errorf("calibration seed: %d, want at least 0", r.Calibration.Seed)
	}
	return nil
}
