// Package grid compares methods of pruning: perplexity, and accuracy on tasks, of
// models × methods × patterns. A finished cell is kept in a store and not computed
// again.
package grid

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
)

// PHOName is the method of a spec whose coefficients are searched for.
const PHOName = "pho"

// Row is a method of a grid.
type Row struct {
	Name   string
	Recipe recipe.Recipe // method, steps and parameters; the rest is the grid's
	Budget *Budget       // not nil: crepe with coefficients found for each model and pattern
}

// Budget is that of a search for coefficients, and what it rates candidates by.
type Budget struct {
	Objective   string
	Trials, Top int
}

// ParseRows reads specs such as "wanda", "crepe+sparsegpt" or "pho". A spec whose
// method reads a kernel makes a row for each of kernels, and pho one for each
// budget. Of kernels nil means the method's own; of budgets there is at least one.
func ParseRows(specs []string, kernels []int, budgets []Budget) ([]Row, error) {
	var rows []Row
	kernelRead := false
	for _, spec := range specs {
		spec = strings.TrimSpace(spec)
		plain, search := spec, false
		if head, steps, _ := strings.Cut(spec, "+"); strings.TrimSpace(head) == PHOName {
			plain, search = "crepe"+strings.TrimPrefix(spec, head), true
			_ = steps
		}
		r, err := recipe.Recipe{}.WithMethod(plain)
		if err != nil {
			if search {
				return nil, err
			}
			return nil, fmt.Errorf("%w, %s", err, PHOName)
		}
		row := Row{Name: spec, Recipe: r}
		each := []Row{row}
		if search {
			each = nil
			for _, b := range budgets {
				row := row
				row.Budget = &b
				if len(budgets) > 1 {
					row.Name = fmt.Sprintf("%s (%s, %d, %d)", spec, b.Objective, b.Trials, b.Top)
				}
				each = append(each, row)
			}
		}
		if reads(r, "kernel") && kernels != nil {
			kernelRead = true
			each = withKernels(each, kernels)
		}
		rows = append(rows, each...)
	}
	if kernels != nil && !kernelRead {
		return nil, errors.New("kernels: no method of the grid has this parameter")
	}
	for i, r := range rows {
		if slices.ContainsFunc(rows[:i], func(o Row) bool { return o.Name == r.Name }) {
			return nil, fmt.Errorf("method %s: listed twice", r.Name)
		}
	}
	return rows, nil
}

// reads reports whether r's method reads a parameter.
func reads(r recipe.Recipe, parameter string) bool {
	m, err := score.Lookup(r.Method)
	if err != nil {
		return false
	}
	_, ok := param.Declared(m.Params, parameter)
	return ok
}

func withKernels(rows []Row, kernels []int) []Row {
	var out []Row
	for _, row := range rows {
		for _, k := range kernels {
			row := row
			row.Name = fmt.Sprintf("%s, kernel %d", row.Name, k)
			row.Recipe = row.Recipe.With("kernel", k)
			out = append(out, row)
		}
	}
	return out
}

// ParsePatterns reads "50%,0.6,2:4" as "50%", "60%", "2:4".
func ParsePatterns(list []string) ([]string, error) {
	var out []string
	for _, s := range list {
		s = strings.TrimSpace(s)
		if strings.Contains(s, ":") {
			p, err := pattern.ParsePattern(s)
			if err != nil {
				return nil, err
			}
			s = p.String()
		} else {
			p, err := pattern.ParseSparsity(s)
			if err != nil {
				return nil, err
			}
			s = p.String()
		}
		if slices.Contains(out, s) {
			return nil, fmt.Errorf("pattern %s: listed twice", s)
		}
		out = append(out, s)
	}
	return out, nil
}

// at returns the recipe of a row's cell; of a search, without what it finds. Of
// base it takes what is the same for the whole grid.
func (r Row) at(base recipe.Recipe, pattern string) recipe.Recipe {
	c := r.Recipe.WithoutDefaults()
	c.Sparsity, c.Pattern = pattern, ""
	if strings.Contains(pattern, ":") {
		c.Sparsity, c.Pattern = "", pattern
	}
	if c.Skip == "" {
		c.Skip = base.Skip
	}
	if c.Fused == "" {
		c.Fused = base.Fused
	}
	c.Calibration, c.Compute, c.Eval = base.Calibration, base.Compute, recipe.Eval{Source: "none"}
	return c.WithDefaults()
}

// Check refuses a row that goes with none of the patterns. One that goes with some
// has cells without a number for the others.
func Check(rows []Row, base recipe.Recipe, patterns []string) error {
	for _, r := range rows {
		var first error
		for _, p := range patterns {
			_, err := r.at(base, p).Resolve()
			if err == nil {
				first = nil
				break
			}
			if first == nil {
				first = fmt.Errorf("%s at %s: %w", r.Name, p, err)
			}
		}
		if first != nil {
			return first
		}
	}
	return nil
}

// Dense is the method of the cell of a model that is not pruned.
const Dense = "dense"

// Cell is what became of one model, method and pattern.
type Cell struct {
	Method     string         `json:"method"`
	Pattern    string         `json:"pattern,omitempty"`
	Perplexity *eval.Result   `json:"perplexity,omitempty"` // nil: refused, or not measured
	Tasks      []task.Result  `json:"tasks,omitempty"`
	Sparsity   float64        `json:"sparsity"` // measured, of the pruned Linears
	Seconds    float64        `json:"seconds"`  // that pruning, and the search before it, took
	Recipe     *recipe.Recipe `json:"recipe,omitempty"`
	Found      *pho.Candidate `json:"found,omitempty"`   // by a search
	Refused    string         `json:"refused,omitempty"` // why there is no number
	Kept       bool           `json:"kept,omitempty"`    // all of it was in the store

	// Provenance says who computed it, where others than this program may have.
	Provenance provenance.Record `json:"provenance,omitempty"`
}

// ModelReport is the part of a grid that is one model's.
type ModelReport struct {
	Model        string `json:"model"`
	Architecture string `json:"architecture"`
	Compute      string `json:"compute"`
	Data         string `json:"data"` // that perplexity is measured on
	Windows      int    `json:"windows"`
	SeqLen       int    `json:"seqlen"`
	BOS          bool   `json:"bos"`
	Verification string `json:"verification,omitempty"` // that searches verify on
	TasksBOS     bool   `json:"tasks_bos,omitempty"`
	Dense        Cell   `json:"dense"`
	Cells        []Cell `json:"cells"`

	Frontier []Point `json:"frontier,omitempty"` // the smallest first
}

// Report is a finished grid.
type Report struct {
	Methods  []string      `json:"methods"`
	Patterns []string      `json:"patterns"`
	Models   []ModelReport `json:"models"`
}

// NeedsData reports whether a cell of the grid reads a calibration text.
func NeedsData(rows []Row, base recipe.Recipe, patterns []string) bool {
	for _, r := range rows {
		for _, p := range patterns {
			if resolved, err := r.at(base, p).Resolve(); err == nil && resolved.Method.NeedsData {
				return true
			}
		}
	}
	return false
}
