package report

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// Build arranges items in a document.
func Build(title string, items []Item) *Document {
	d := newDocument(title)
	for _, s := range []Section{
		summary(items), linears(items), scores(items), allocation(items), searches(items), proxies(items), grids(items), texts(items), masks(items), provenances(items),
	} {
		if len(s.Figures) > 0 {
			d.Sections = append(d.Sections, s)
		}
	}
	return d
}

// figure adds a figure of item to s.
func (s *Section) figure(item *Item, f Figure) {
	if item != nil {
		f.Of = item.Name
	}
	f.ID = s.ID + "-" + strconv.Itoa(len(s.Figures))
	s.Figures = append(s.Figures, f)
}

var shareColumn = Column{Digits: 5, Share: true}

func share(name, hint string) Column {
	c := shareColumn
	c.Name, c.Hint = name, hint
	return c
}

var perplexityColumn = Column{Name: "perplexity", Digits: 6, Hint: "exp of the mean negative log-likelihood a token; lower is better", Best: "low"}

func named(c Column, name string) Column {
	c.Name = name
	return c
}

// summary is a line for each run and each evaluation.
func summary(items []Item) Section {
	sameTop := share("same top token", "share of positions at which both models find the same token likeliest; higher is better")
	sameTop.Best = "high"
	kl := Column{Name: "KL, mean", Unit: "nats", Digits: 4, Best: "low", Hint: "Kullback-Leibler divergence of the predictions from the dense model's: 0 where they are the same; lower is better"}
	s := Section{ID: "summary", Title: "Summary", Lead: "What was done, and what is left of the model. Perplexity says how surprised a model is by a text: lower is better, and pruning raises it. It compares only where text, windows and window length are the same."}
	var rows [][]any
	for i := range items {
		if r := items[i].Run; r != nil {
			rows = append(rows, runRow(&items[i], r))
		}
	}
	if rows != nil {
		const note = "KL and same top token are measured on the first 16 windows at most; crepe eval FOLDER --against DENSE --json measures them on any text, and a report takes that file too."
		s.figure(nil, Figure{Title: "Runs", Views: []View{{Rows: rows, Note: note}}, Columns: []Column{
			{Name: "run"}, {Name: "state"}, {Name: "model"}, {Name: "method", Hint: "with its steps"}, {Name: "pattern"},
			share("sparsity", "share of zeros over the pruned Linears, counted in what was written"), share("asked", "share of zeros that was asked for"),
			{Name: "dense perplexity", Digits: 6}, {Name: "perplexity", Digits: 6, Hint: "of the pruned model"}, {Name: "±", Digits: 3, Hint: "standard error of the perplexity over the windows"},
			kl, sameTop,
			{Name: "text"}, {Name: "windows"}, {Name: "window length", Unit: "tokens"},
			{Name: "size", Unit: "MB", Digits: 5, Hint: "of the weights on disk; zeros are stored as zeros"},
			{Name: "time", Unit: "s", Digits: 4, Hint: "of the process that finished the run"}, {Name: "peak memory", Unit: "MB", Digits: 4},
		}})
	}
	if rows := timeRows(items); rows != nil {
		c := newChart("bars")
		c.X, c.Stack = 0, true
		columns := timeColumns()
		for k := range columns[1:] {
			c.Y = append(c.Y, k+1)
		}
		s.figure(nil, Figure{Title: "Where the time went", Views: []View{{Rows: rows}}, Chart: c, Columns: columns})
	}
	var evals [][]any
	for _, i := range items {
		if e := i.Eval; e != nil && e.Windows > 0 {
			row := []any{i.Name, e.Model, perplexity(e.Perplexity), positive(e.Stderr), e.Data, e.Windows, e.SeqLen}
			if a := e.Against; a != nil {
				row = append(row, a.Name, perplexity(a.Dense.Perplexity), number(a.KL.Mean), number(a.KL.P50), number(a.KL.P90), number(a.KL.P99), number(a.KL.Max), a.SameTop)
			}
			evals = append(evals, pad(row, 14))
		}
	}
	if evals != nil {
		s.figure(nil, Figure{Title: "Evaluations", Views: []View{{Rows: evals}}, Columns: []Column{
			{Name: "file"}, {Name: "model"}, perplexityColumn, {Name: "±", Digits: 3, Hint: "standard error over the windows"}, {Name: "text"}, {Name: "windows"}, {Name: "window length", Unit: "tokens"},
			{Name: "against"}, named(perplexityColumn, "its perplexity"), kl,
			{Name: "KL, median", Unit: "nats", Digits: 4}, {Name: "KL, 90 %", Unit: "nats", Digits: 4, Hint: "nine of ten tokens are below"}, {Name: "KL, 99 %", Unit: "nats", Digits: 4}, {Name: "KL, highest", Unit: "nats", Digits: 4},
			sameTop,
		}})
	}
	for i := range items {
		if e := items[i].Eval; e != nil && e.Tasks != nil {
			s.figure(&items[i], accuracies(e.Model, e.Tasks.Results))
		}
	}
	return s
}

// pad appends nil up to n+1 cells.
func pad(row []any, n int) []any {
	for len(row) <= n {
		row = append(row, nil)
	}
	return row
}

const megabyte = 1e6

func runRow(item *Item, r *Run) []any {
	row := []any{item.Name, "finished"}
	if u := r.UnderWay; u != nil {
		field := u.Provenance.Value
		row[1] = fmt.Sprintf("blocks pruned: %d", u.Blocks)
		amount := cmp.Or(field("recipe pattern"), field("recipe sparsity"))
		row = append(row, nil, field("recipe method"), amount, nil, nil)
		row = append(row, results(u.Dense, u.Pruned)...)
		row = append(row, apart(u.Diverged)...)
		row = append(row, cmp.Or(field("recipe eval source"), "–"))
		return pad(append(row, windows(u.Dense)...), 17)
	}
	m := r.Manifest
	model := any(nil)
	if r.Record != nil {
		model = r.Record.Model
	}
	row = append(row, model, m.Recipe.Spec(), amount(m.Recipe), m.Sparsity.Measured, m.Sparsity.Target)
	row = append(row, results(m.Dense, m.Pruned)...)
	row = append(row, apart(m.Diverged)...)
	text := any(nil)
	if m.Evaluation != nil {
		text = m.Evaluation.Source
	}
	row = append(row, text)
	row = append(row, windows(m.Pruned)...)
	row = append(row, positive(float64(r.Bytes)/megabyte))
	if r.Record != nil {
		row = append(row, r.Record.Seconds.Total, positive(float64(r.Record.PeakRSS)/megabyte))
	}
	return pad(row, 17)
}

// apart are the cells of how far predictions are from the dense model's.
func apart(d *eval.Divergence) []any {
	if d == nil {
		return []any{nil, nil}
	}
	return []any{number(d.KL.Mean), d.SameTop}
}

// results are the cells of dense and pruned perplexity.
func results(dense, pruned *eval.Result) []any {
	row := []any{nil, nil, nil}
	if dense != nil {
		row[0] = perplexity(dense.Perplexity)
	}
	if pruned != nil {
		row[1], row[2] = perplexity(pruned.Perplexity), positive(pruned.Stderr)
	}
	return row
}

func windows(r *eval.Result) []any {
	if r == nil {
		return []any{nil, nil}
	}
	return []any{r.Windows, r.SeqLen}
}

// amount is what a recipe asks for: a pattern or a sparsity.
func amount(r recipe.Recipe) string { return cmp.Or(r.Pattern, r.Sparsity, recipe.DefaultSparsity) }

// times are the parts of s by their names in JSON, without the total.
func times(s prune.Seconds) (names []string, seconds []float64) {
	v := reflect.ValueOf(s)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Tag.Get("json"); name != "total" {
			names, seconds = append(names, name), append(seconds, v.Field(i).Float())
		}
	}
	return names, seconds
}

func timeColumns() []Column {
	columns := []Column{{Name: "run"}}
	names, _ := times(prune.Seconds{})
	for _, name := range names {
		columns = append(columns, Column{Name: name, Unit: "s", Digits: 3})
	}
	return columns
}

func timeRows(items []Item) (rows [][]any) {
	for _, i := range items {
		if i.Run == nil || i.Run.Record == nil {
			continue
		}
		row := []any{i.Name}
		_, seconds := times(i.Run.Record.Seconds)
		for _, v := range seconds {
			row = append(row, v)
		}
		rows = append(rows, row)
	}
	return rows
}

// place splits the name of a Linear, model.layers.3.self_attn.q_proj, into its block
// and the rest.
func place(name string) (block int, kind string) {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		if n, err := strconv.Atoi(p); err == nil && i+1 < len(parts) {
			return n, strings.Join(parts[i+1:], ".")
		}
	}
	return 0, name
}

// done returns the Linears of a run and what was measured of them.
func (r *Run) done() ([]prune.LinearReport, map[string]prune.LinearMeasure) {
	list, measures := []prune.LinearReport(nil), []prune.LinearMeasure(nil)
	if r.UnderWay != nil {
		list, measures = r.UnderWay.Linears, r.UnderWay.Measures
	} else {
		list = r.Manifest.Linears
		if r.Measures != nil {
			measures = r.Measures.Linears
		}
	}
	by := map[string]prune.LinearMeasure{}
	for _, m := range measures {
		by[m.Name] = m
	}
	return list, by
}

// linears are the heat maps over blocks × Linears.
func linears(items []Item) Section {
	s := Section{ID: "linears", Title: "Blocks and Linears", Lead: "Where the model loses most. Each cell is a Linear: a row is a block, a column its place in the block. The stronger the colour, the higher the number, which is also in the cell, in the table, and shown when you point at the cell."}
	columns := []Column{
		{Name: "block"}, {Name: "Linear"},
		share("output error", "how far the pruned Linear's output is from the dense one's on the calibration text: ‖X·W'ᵀ − X·Wᵀ‖ / ‖X·Wᵀ‖"),
		share("energy lost", "share of Σ W²·‖X‖² that the pruned weights had"),
		share("sparsity", "share of zeros, counted"), {Name: "sampled", Unit: "tokens", Hint: "that the output error is measured on"},
		{Name: "out"}, {Name: "in"}, {Name: "zeros"},
	}
	all := make([][][]any, len(items))
	for i := range items {
		all[i] = items[i].linearRows()
	}
	for _, value := range []int{2, 3, 4} { // the same of all runs side by side
		for i, rows := range all {
			if !slices.ContainsFunc(rows, func(r []any) bool { return r[value] != nil }) {
				continue
			}
			c := newChart("heatmap")
			c.X, c.Y, c.Value, c.Scale = 1, []int{0}, value, columns[value].Name
			s.figure(&items[i], Figure{Title: strings.ToUpper(columns[value].Name[:1]) + columns[value].Name[1:], Columns: columns, Views: []View{{Rows: rows}}, Chart: c})
		}
	}
	return s
}

// linearRows are a row for each Linear of a run.
func (i *Item) linearRows() (rows [][]any) {
	if i.Run == nil {
		return nil
	}
	list, measures := i.Run.done()
	for _, l := range list {
		block, kind := place(l.Name)
		m := measures[l.Name]
		row := []any{block, kind, nil, optional(m.EnergyLost), l.Sparsity, nil, l.Rows, l.Cols, l.Zeros}
		if m.Output != nil {
			row[2], row[5] = number(m.Output.Relative), m.Output.Tokens
		}
		rows = append(rows, row)
	}
	return rows
}

// mostSpreads is how many matrices' scores a document shows: those of a mixture of
// experts would take hundreds of MB.
const mostSpreads = 1024

// scores are the histogram and the Lorenz curve of each matrix.
func scores(items []Item) Section {
	s := Section{ID: "scores", Title: "Scores of a Linear", Lead: "A method scores every weight and prunes the lowest. The histogram shows how many weights of each score are kept and pruned, and where the threshold lies. The Lorenz curve shows how unequal the pruned scores are: on the diagonal all are equal; the Gini coefficient is twice the area between curve and diagonal."}
	for i := range items {
		if items[i].Run == nil {
			continue
		}
		list, measures := items[i].Run.done()
		var spread, curves []View
		left := 0
		for _, l := range list {
			for _, sc := range measures[l.Name].Scores {
				if len(spread) == mostSpreads {
					left++
					continue
				}
				label := l.Name
				if sc.Part != "" {
					label += ", " + sc.Part
				}
				spread = append(spread, spreadView(label, sc))
				curves = append(curves, curveView(label, sc))
			}
		}
		if spread == nil {
			continue
		}
		if left > 0 {
			spread[0].Note += fmt.Sprintf(" %d more matrices are not shown.", left)
		}
		c := newChart("histogram")
		c.X, c.Until, c.Y, c.LogX = 0, 1, []int{2, 3}, true
		s.figure(&items[i], Figure{Title: "Kept and pruned scores", Choice: "Linear", Views: spread, Chart: c, Columns: []Column{
			{Name: "score from", Digits: 5}, {Name: "to below", Digits: 5}, {Name: "kept", Unit: "weights"}, {Name: "pruned", Unit: "weights"},
		}})
		c = newChart("area")
		c.X, c.Y = 0, []int{1}
		s.figure(&items[i], Figure{Title: "Lorenz curve of the pruned scores", Choice: "Linear", Views: curves, Chart: c, Columns: []Column{
			share("share of the pruned weights", "the lowest scores first"), share("share of their scores' sum", ""),
		}})
	}
	return s
}

func spreadView(label string, sc prune.Scores) View {
	v := View{Label: label}
	for k := range sc.Kept {
		v.Rows = append(v.Rows, []any{sc.Edges[k], sc.Edges[k+1], sc.Kept[k], sc.Pruned[k]})
	}
	switch t := sc.Threshold; {
	case t == nil:
		v.Note = "N:M: every group of M weights has its own threshold."
	case t.Group == "row":
		v.Note = fmt.Sprintf("Each row has its own threshold: from %.5g, median %.5g, to %.5g.", t.Low, t.Median, t.High)
		v.Marks = []Mark{{Label: "lowest", Value: float64(t.Low)}, {Label: "median threshold", Value: float64(t.Median)}, {Label: "highest", Value: float64(t.High)}}
	default:
		v.Note = fmt.Sprintf("Threshold %.5g.", t.High)
		v.Marks = []Mark{{Label: "threshold", Value: float64(t.High)}}
	}
	return v
}

func curveView(label string, sc prune.Scores) View {
	v := View{Label: label, Note: fmt.Sprintf("Gini coefficient %.4f.", sc.Gini), Rows: [][]any{}}
	for _, p := range sc.Lorenz {
		v.Rows = append(v.Rows, []any{p[0], p[1]})
	}
	return v
}

// allocation is how the sparsity was spread over the blocks.
func allocation(items []Item) Section {
	s := Section{ID: "allocation", Title: "Allocation over blocks", Lead: "An allocation prunes blocks that seem to matter less by more, and keeps the total as asked for."}
	for i := range items {
		if items[i].Run == nil || items[i].Run.Manifest == nil || items[i].Run.Manifest.Allocation == nil {
			continue
		}
		a := items[i].Run.Manifest.Allocation
		var rows [][]any
		for b, of := range a.Blocks {
			rows = append(rows, []any{b, of.Sparsity, number(of.Measure), of.Weights})
		}
		columns := []Column{{Name: "block"}, share("sparsity", "that the block was given"), {Name: "measure", Digits: 5, Hint: "what the method found in the dense block"}, {Name: "weights", Hint: "that may be pruned"}}
		bars := newChart("bars")
		bars.X, bars.Y = 0, []int{1}
		s.figure(&items[i], Figure{Title: "Sparsity by " + a.Method, Columns: columns, Views: []View{{Rows: rows}}, Chart: bars})
		lines := newChart("lines")
		lines.X, lines.Y = 0, []int{2}
		s.figure(&items[i], Figure{Title: "What " + a.Method + " measured", Columns: columns, Views: []View{{Rows: rows}}, Chart: lines})
	}
	return s
}

// texts lays continuations side by side.
func texts(items []Item) Section {
	s := Section{ID: "texts", Title: "Texts side by side", Lead: "How two models continue the same text. What perplexity and multiple choice hide shows here."}
	for i := range items {
		t := items[i].Texts
		if t == nil {
			continue
		}
		columns, row := []Column{{Name: "prompt"}, {Name: t.Model}}, []any{t.Prompt, t.Text}
		note := ""
		if t.Against != nil {
			columns, row = append(columns, Column{Name: t.Against.Model}), append(row, t.Against.Text)
			if t.Same != nil {
				note = fmt.Sprintf("The first %d of %d and %d tokens are the same.", *t.Same, len(t.IDs), len(t.Against.IDs))
			}
		}
		s.figure(&items[i], Figure{Title: "Continuation", Texts: true, Columns: columns, Views: []View{{Rows: [][]any{row}, Note: note}}})
	}
	return s
}

// masks compares which weights are zero.
func masks(items []Item) Section {
	s := Section{ID: "masks", Title: "Two masks", Lead: "Which weights two prunings of a model agree on: the share of weights that are zero in both or in neither. Two masks of 50 % that know nothing of each other agree on 50 %."}
	for i := range items {
		m := items[i].Masks
		if m == nil {
			continue
		}
		var rows [][]any
		for _, l := range m.Linears {
			if l.Difference == nil {
				continue
			}
			block, kind := place(l.Name)
			rows = append(rows, []any{block, kind, l.Equal, l.OnlyThis, l.OnlyOther})
		}
		columns := []Column{{Name: "block"}, {Name: "Linear"}, share("equal", "zero in both or in neither"), share("zero only in "+m.Model, ""), {}}
		f := Figure{Title: "Share of equal bits", Columns: columns, Views: []View{{Rows: rows}}}
		if a := m.Against; a != nil {
			columns[4] = share("zero only in "+a.Model, "")
			f.Views[0].Note = fmt.Sprintf("%s against %s: %.3f %% are equal over all Linears.", m.Model, a.Model, 100*a.Equal)
		}
		f.Chart = newChart("heatmap")
		f.Chart.X, f.Chart.Y, f.Chart.Value, f.Chart.Scale = 1, []int{0}, 2, "equal bits"
		s.figure(&items[i], f)
	}
	return s
}

// provenances tell what each run was made by and from.
func provenances(items []Item) Section {
	s := Section{ID: "provenance", Title: "Recipe and provenance", Lead: "What would give the same bytes again. Hashes are SHA-256."}
	for i := range items {
		var rows [][]any
		add := func(name, value string) {
			if value != "" {
				rows = append(rows, []any{name, value})
			}
		}
		switch r := items[i].Run; {
		case r == nil:
			continue
		case r.UnderWay != nil:
			for _, f := range r.UnderWay.Provenance {
				add(f.Name, f.Value)
			}
		default:
			m := r.Manifest
			if m.Program != nil {
				add("program", m.Program.String())
			}
			add("engine", m.Engine)
			add("compute", m.Compute)
			if yaml, err := m.Recipe.YAML(); err == nil {
				add("recipe", string(yaml))
			}
			for _, of := range []struct {
				what string
				text *prune.Text
			}{{"calibration", m.Calibration}, {"evaluation", m.Evaluation}} {
				if t := of.text; t != nil {
					add(of.what, fmt.Sprintf("%s, %d windows of %d tokens, sha256 %s", t.Source, t.Windows, t.SeqLen, t.SHA256))
				}
			}
			for _, name := range slices.Sorted(maps.Keys(m.Inputs)) {
				add("input "+name, m.Inputs[name])
			}
			for _, name := range slices.Sorted(maps.Keys(m.Files)) {
				add("output "+name, m.Files[name])
			}
			add("key", m.Provenance)
		}
		s.figure(&items[i], Figure{Title: "Provenance", Columns: []Column{{Name: "what"}, {Name: "value"}}, Views: []View{{Rows: rows}}})
	}
	return s
}
