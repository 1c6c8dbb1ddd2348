package grid

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/crepe-llm/crepe/eval/task"
)

// Formats are those that a report can be written in.
var Formats = []string{"markdown", "csv", "json"}

// Write writes r in one of Formats.
func (r *Report) Write(w io.Writer, format string) error {
	switch format {
	case "markdown":
		_, err := io.WriteString(w, r.markdown())
		return err
	case "csv":
		return r.csv(w)
	case "json":
		return json.NewEncoder(w).Encode(r)
	}
	panic(fmt.Sprintf("grid: Write: format %q, want one of %v", format, Formats))
}

// cell returns the cell of a method and pattern.
func (m *ModelReport) cell(method, pattern string) Cell {
	if method == Dense {
		return m.Dense
	}
	i := slices.IndexFunc(m.Cells, func(c Cell) bool { return c.Method == method && c.Pattern == pattern })
	return m.Cells[i]
}

// csv writes a line for every number, or for every point of a frontier.
func (r *Report) csv(w io.Writer) error {
	out := csv.NewWriter(w)
	if len(r.Models) > 0 && len(r.Models[0].Frontier) > 0 {
		return out.WriteAll(r.frontierLines())
	}
	lines := [][]string{{"model", "method", "pattern", "measure", "value", "stderr", "n", "sparsity", "seconds", "refused", "computed_by"}}
	for _, m := range r.Models {
		for _, c := range append([]Cell{m.Dense}, m.Cells...) {
			line := func(measure, value, stderr, n string) {
				lines = append(lines, []string{m.Model, c.Method, c.Pattern, measure, value, stderr, n, number(c.Sparsity), number(c.Seconds), c.Refused, computedBy(c)})
			}
			if c.Perplexity == nil {
				line("perplexity", "", "", "")
				continue
			}
			line("perplexity", number(float64(c.Perplexity.Perplexity)), "", strconv.Itoa(c.Perplexity.Windows))
			for _, t := range c.Tasks {
				n := strconv.Itoa(t.Documents)
				line(t.Task+" acc", number(t.Acc), optional(t.AccStderr), n)
				line(t.Task+" acc_norm", number(t.AccNorm), optional(t.AccNormStderr), n)
			}
		}
	}
	return out.WriteAll(lines)
}

// computedBy is who computed a cell, where that is not this program for certain.
func computedBy(c Cell) string {
	if c.Provenance == nil {
		return ""
	}
	return c.Provenance.By()
}

// number is v as briefly as it can be read back.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func optional(v *float64) string {
	if v == nil {
		return ""
	}
	return number(*v)
}

// markdown is a table method × pattern for each model, or method × model if there
// is one pattern only, or the table of a frontier for each model; then accuracies, and what is to be said of cells.
func (r *Report) markdown() string {
	var b strings.Builder
	frontier := len(r.Models) > 0 && len(r.Models[0].Frontier) > 0
	across := len(r.Models) > 1 && len(r.Patterns) == 1 && !frontier
	if across {
		r.acrossModels(&b)
	}
	for i := range r.Models {
		m := &r.Models[i]
		if len(r.Models) > 1 {
			fmt.Fprintf(&b, "## %s\n\n", inline(m.Model))
		}
		fmt.Fprintf(&b, "Perplexity of %s (%s) on %s, %d windows of %d tokens, %s, %s; dense %s.\n\n",
			inline(m.Model), m.Architecture, inline(m.Data), m.Windows, m.SeqLen, bos(m.BOS), m.Compute, perplexity(m.Dense))
		switch {
		case frontier:
			m.frontierTable(&b)
		case !across:
			rows := [][]string{append([]string{"method"}, r.Patterns...)}
			for _, method := range r.Methods {
				row := []string{method}
				for _, p := range r.Patterns {
					row = append(row, perplexity(m.cell(method, p)))
				}
				rows = append(rows, row)
			}
			table(&b, rows)
		}
		m.accuracies(&b, r)
		m.notes(&b)
	}
	return b.String()
}

// acrossModels is the table of one pattern, method × model.
func (r *Report) acrossModels(b *strings.Builder) {
	head := []string{r.Patterns[0]}
	for _, m := range r.Models {
		head = append(head, m.Model)
	}
	rows := [][]string{head}
	for _, method := range append([]string{Dense}, r.Methods...) {
		row := []string{method}
		for i := range r.Models {
			row = append(row, perplexity(r.Models[i].cell(method, r.Patterns[0])))
		}
		rows = append(rows, row)
	}
	table(b, rows)
}

func bos(b bool) string {
	if b {
		return "with BOS"
	}
	return "no BOS"
}

func perplexity(c Cell) string {
	switch {
	case c.Perplexity == nil:
		return "–"
	case c.Perplexity.Perplexity >= 1e5 && !c.Perplexity.Perplexity.Infinite():
		return fmt.Sprintf("%.3g", c.Perplexity.Perplexity)
	}
	return c.Perplexity.Perplexity.Text(2)
}

// accuracies are the tables method × task of every pattern.
func (m *ModelReport) accuracies(b *strings.Builder, r *Report) {
	if len(m.Dense.Tasks) == 0 {
		return
	}
	for _, p := range r.Patterns {
		fmt.Fprintf(b, "Zero-shot accuracy at %s, acc / acc_norm (%s).\n\n", p, bos(m.TasksBOS))
		head := []string{"method"}
		for _, t := range m.Dense.Tasks {
			head = append(head, t.Task)
		}
		rows := [][]string{append(head, "mean")}
		for _, method := range append([]string{Dense}, r.Methods...) {
			c := m.cell(method, p)
			row := []string{method}
			for i := range m.Dense.Tasks {
				if c.Perplexity == nil {
					row = append(row, "–")
					continue
				}
				row = append(row, fmt.Sprintf("%.4f / %.4f", c.Tasks[i].Acc, c.Tasks[i].AccNorm))
			}
			mean := "–"
			if c.Perplexity != nil {
				acc, norm := task.Mean(c.Tasks)
				mean = fmt.Sprintf("%.4f / %.4f", acc, norm)
			}
			rows = append(rows, append(row, mean))
		}
		table(b, rows)
	}
}

// notes say why a cell has no number, and what a search has found.
func (m *ModelReport) notes(b *strings.Builder) {
	var lines []string
	for _, c := range m.Cells {
		switch {
		case c.Refused != "":
			lines = append(lines, fmt.Sprintf("- %s at %s, –: %s", inline(c.Method), c.Pattern, inline(c.Refused)))
		case c.Found != nil:
			lines = append(lines, fmt.Sprintf("- %s at %s: %s, verified on %s", inline(c.Method), c.Pattern, c.Found.Coefficients.Normalized(), inline(m.Verification)))
		}
	}
	if by, cells := m.engines(); len(by) > 1 {
		lines = append(lines, "- Cells come from different engines or programs, whose last bits differ:")
		for _, who := range by {
			lines = append(lines, fmt.Sprintf("  - %s: %s", inline(who), inline(strings.Join(cells[who], ", "))))
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(b, "%s\n\n", strings.Join(lines, "\n"))
	}
}

// inline is a name as Markdown that is that name, on one line and in one cell: files may
// be called anything.
func inline(name string) string {
	return strings.NewReplacer("|", "&#124;", "<", "&lt;", "\n", " ", "\r", " ").Replace(name)
}

// table writes rows, the head first, numbers to the right.
func table(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		for _, cell := range row {
			fmt.Fprintf(b, "| %s ", inline(cell))
		}
		b.WriteString("|\n")
		if i == 0 {
			fmt.Fprintf(b, "|---|%s\n", strings.Repeat("---:|", len(row)-1))
		}
	}
	b.WriteString("\n")
}
