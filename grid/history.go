package grid

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/search"
)

// SavedCell is a cell as a store holds it.
type SavedCell struct {
	Model, Method, Pattern string // Pattern is empty of the dense model
	Result                 eval.Result
	Tasks                  []task.Result
	Sparsity, Seconds      float64
	Provenance             provenance.Record // nil: made by a crepe that did not note it
}

// ReadCells returns the finished cells of a study in the order in which they were
// measured; none of a study that is no grid. A cell that several programs or engines
// have computed comes several times.
func ReadCells(s *search.Saved) ([]SavedCell, error) {
	var cells []SavedCell
	at := map[string]int{}
	for _, r := range s.Records {
		switch r.Kind {
		case perplexityKind:
			var m measured
			if err := json.Unmarshal([]byte(r.Value), &m); err != nil {
				return nil, fmt.Errorf("%s of cell %s: %w", r.Kind, r.Key, err)
			}
			c := SavedCell{Result: m.Result, Sparsity: m.Sparsity, Seconds: m.Seconds, Provenance: m.Provenance}
			c.Model, c.Method, c.Pattern = parseWhat(m.What)
			at[r.Key] = len(cells)
			cells = append(cells, c)
		case CellKind:
			var a answer
			if err := json.Unmarshal([]byte(r.Value), &a); err != nil || a.Cell.Perplexity == nil {
				return nil, fmt.Errorf("%s %s is %.100q, want a measured one", r.Kind, r.Key, r.Value)
			}
			c := SavedCell{Result: *a.Cell.Perplexity, Tasks: a.Cell.Tasks, Sparsity: a.Cell.Sparsity, Seconds: a.Cell.Seconds, Provenance: a.Cell.Provenance}
			c.Model, c.Method, c.Pattern = parseWhat(a.What)
			cells = append(cells, c)
		case taskKind:
			var t task.Result
			if err := json.Unmarshal([]byte(r.Value), &t); err != nil {
				return nil, fmt.Errorf("%s of cell %s: %w", r.Kind, r.Key, err)
			}
			cell, _, _ := strings.Cut(r.Key, " ")
			if i, ok := at[cell]; ok {
				cells[i].Tasks = append(cells[i].Tasks, t)
			}
		}
	}
	return cells, nil
}

// parseWhat reads what runner.what writes. A method's name may have commas, a model's
// hardly.
func parseWhat(what string) (model, method, pattern string) {
	model, method, _ = strings.Cut(what, ", ")
	if i := strings.LastIndex(method, " at "); i >= 0 {
		method, pattern = method[:i], method[i+len(" at "):]
	}
	return model, method, pattern
}
