package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/grid"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/pho"
)

// The columns of a candidate.
var coefficientColumns = []Column{
	{Name: "α", Digits: 4, Hint: "of the row term"}, {Name: "β", Digits: 4, Hint: "of the column term"}, {Name: "γ", Digits: 4, Hint: "of the neighbourhood term"}, {Name: "kernel", Hint: "width of the neighbourhood"},
	{Name: "δ", Digits: 4, Hint: "of the weight itself"}, {Name: "power", Digits: 4, Hint: "of the activation norm"}, {Name: "compares within", Hint: "what the weights compete in"}, {Name: "own kinds", Hint: "kinds of Linear with parameters of their own"},
}

func coefficients(c pho.Coefficients) []any {
	n := c.Normalized()
	return []any{n.Alpha, n.Beta, n.Gamma, n.Kernel, n.Delta, n.Power, cmp.Or(n.Compare, "matrix"), len(n.Kinds)}
}

// searches show what each search tried.
func searches(items []Item) Section {
	s := Section{ID: "search", Title: "Search", Lead: "A search for CRePE's coefficients. Stage 1 rates many candidates, by perplexity on a few windows of the model pruned by the dense model's norms, or by a proxy; stage 2 tries the best on more windows, prunes in full, and measures perplexity. A corner of the triangle is a candidate of one term only, its middle has all three alike."}
	for i := range items {
		h := items[i].History
		if h == nil || len(h.Trials)+len(h.Measured) == 0 {
			continue
		}
		name := "of " + cmp.Or(items[i].Pattern, items[i].Name)
		if len(h.Trials) > 0 {
			rating := Column{Name: h.Rating(), Digits: 7, Hint: "what stage 1 minimises"}
			var rows [][]any
			for n, t := range h.Trials {
				rows = append(rows, append([]any{n + 1, number(t.Value)}, coefficients(t.Coefficients)...))
			}
			columns := append([]Column{{Name: "trial"}, rating}, coefficientColumns...)
			c := newChart("scatter")
			c.X, c.Y = 0, []int{1}
			s.figure(&items[i], Figure{Title: "Trials " + name, Columns: columns, Views: []View{{Rows: rows}}, Chart: c})
			c = newChart("triangle")
			c.Y, c.Value = []int{2, 3, 4}, 1
			s.figure(&items[i], Figure{Title: "Candidates by " + rating.Name, Columns: columns, Views: []View{{Rows: rows}}, Chart: c})
		}
		full, race := raceRows(h)
		if full != nil {
			c := newChart("triangle")
			c.Y, c.Value = []int{1, 2, 3}, 0
			s.figure(&items[i], Figure{Title: "Candidates by perplexity", Columns: append([]Column{perplexityColumn}, coefficientColumns...), Views: []View{{Rows: full, Note: "Those pruned in full, on the held-out windows."}}, Chart: c})
		}
		if race != nil {
			c := newChart("scatter")
			c.X, c.Y, c.Group = 0, []int{2}, 1
			s.figure(&items[i], Figure{
				Title: "Stage 2, in the order of measuring", Chart: c,
				Columns: append([]Column{{Name: "measurement"}, {Name: "state"}, named(perplexityColumn, "perplexity"), {Name: "windows"}}, coefficientColumns...),
				Views:   []View{{Rows: race, Note: "The last trial of a candidate that was never pruned in full is where it was given up; while a search is at work, such a candidate may be waiting. What was tried compares only with what was tried on as many windows."}},
			})
		}
	}
	return s
}

// raceRows returns the candidates that were pruned in full, and all measurements.
func raceRows(h *pho.History) (full, race [][]any) {
	inFull := map[string]bool{}
	last := map[string]int{}
	for n, m := range h.Measured {
		if m.Full {
			inFull[m.Key()] = true
			full = append(full, append([]any{perplexity(m.Perplexity)}, coefficients(m.Coefficients)...))
		}
		last[m.Key()] = n
	}
	for n, m := range h.Measured {
		state := "tried"
		switch {
		case m.Full:
			state = "pruned in full"
		case !inFull[m.Key()] && last[m.Key()] == n:
			state = "given up, or waiting"
		}
		race = append(race, append([]any{n + 1, state, perplexity(m.Perplexity), m.Windows}, coefficients(m.Coefficients)...))
	}
	return full, race
}

// proxyTitles name pho.ProxyNames for people.
var proxyTitles = map[string]string{
	"outliers_all": "share of outliers, all weights", "outliers_retained": "share of outliers, kept", "outliers_pruned": "share of outliers, pruned",
	"gini_retained": "Gini, kept", "gini_pruned": "Gini, pruned",
}

// proxies show how each proxy goes with perplexity.
func proxies(items []Item) Section {
	s := Section{ID: "proxies", Title: "Proxies and perplexity", Lead: "Each point is the model pruned with random coefficients. If a proxy is good, the points lie along a line: what the proxy calls better has the lower perplexity. Spearman's ρ is 1 or −1 if the order is the same or the reverse, 0 if there is none; p is the probability of as strong a ρ by chance."}
	for i := range items {
		h := items[i].History
		if h == nil || len(h.Configs) == 0 {
			continue
		}
		if h.Proxies != nil {
			var rows [][]any
			for _, p := range h.Proxies {
				row := []any{proxyTitles[p.Proxy]}
				if c := p.Correlation; c != nil {
					row = append(row, c.Rho, c.Low, c.High, c.P)
				}
				rows = append(rows, pad(row, 4))
			}
			s.figure(&items[i], Figure{Title: "Correlation with perplexity", Columns: []Column{
				{Name: "proxy"}, {Name: "ρ", Digits: 3}, {Name: "from", Digits: 3, Hint: "95 % interval of ρ"}, {Name: "to", Digits: 3}, {Name: "p", Digits: 2},
			}, Views: []View{{Rows: rows, Note: fmt.Sprintf("%d configurations. Without ρ the proxy is the same for all.", len(h.Configs))}}})
		}
		f := Figure{Title: "Perplexity against a proxy", Choice: "proxy", Columns: append([]Column{{Name: "proxy's value", Digits: 6}, perplexityColumn}, coefficientColumns...)}
		for k, name := range pho.ProxyNames {
			v := View{Label: proxyTitles[name]}
			for _, c := range h.Configs {
				v.Rows = append(v.Rows, append([]any{number(c.Proxies.List()[k]), perplexity(c.Perplexity)}, coefficients(c.Coefficients)...))
			}
			if h.Proxies != nil && h.Proxies[k].Correlation != nil {
				c := h.Proxies[k]
				v.Note = fmt.Sprintf("ρ = %+.3f (95 %%: %+.3f to %+.3f), p = %.2g.", c.Rho, c.Low, c.High, c.P)
			}
			f.Views = append(f.Views, v)
		}
		slices.Reverse(f.Views) // the search's own proxy first
		f.Chart = newChart("scatter")
		f.Chart.X, f.Chart.Y = 0, []int{1}
		s.figure(&items[i], f)
	}
	return s
}

// cell is one number of a grid, from a file of studies or a table.
type cell struct {
	model, method, pattern string
	result                 *eval.Result
	tasks                  []task.Result
	sparsity, seconds      float64
	refused                string
}

// cells are those of an item; of several results of one cell the newest.
func (i *Item) cells() []cell {
	var all []cell
	if i.Table != nil {
		for _, m := range i.Table.Models {
			for _, c := range append([]grid.Cell{m.Dense}, m.Cells...) {
				all = append(all, cell{m.Model, c.Method, c.Pattern, c.Perplexity, c.Tasks, c.Sparsity, c.Seconds, c.Refused})
			}
		}
		return all
	}
	at := map[[3]string]int{}
	for _, c := range i.Grid {
		key := [3]string{c.Model, c.Method, c.Pattern}
		now := cell{c.Model, c.Method, c.Pattern, &c.Result, c.Tasks, c.Sparsity, c.Seconds, ""}
		if k, ok := at[key]; ok {
			all[k] = now
			continue
		}
		at[key] = len(all)
		all = append(all, now)
	}
	return all
}

// grids show tables of methods and patterns.
func grids(items []Item) Section {
	s := Section{ID: "grid", Title: "Methods compared", Lead: "Perplexity of every method at every pattern, on the same text. N:M keeps N of every M weights, which hardware can use; the same share without that rule loses less."}
	for i := range items {
		all := items[i].cells()
		var models []string
		for _, c := range all {
			if !slices.Contains(models, c.model) {
				models = append(models, c.model)
			}
		}
		for _, m := range models {
			gridOf(&s, &items[i], m, slices.DeleteFunc(slices.Clone(all), func(c cell) bool { return c.model != m }))
		}
	}
	return s
}

// gridOf adds the figures of one model.
func gridOf(s *Section, item *Item, model string, all []cell) {
	var patterns, methods []string
	for _, c := range all {
		if c.pattern != "" && !slices.Contains(patterns, c.pattern) {
			patterns = append(patterns, c.pattern)
		}
		if c.pattern != "" && !slices.Contains(methods, c.method) {
			methods = append(methods, c.method)
		}
	}
	slices.SortStableFunc(patterns, comparePatterns)
	dense := []Mark(nil)
	for _, c := range all {
		if c.method == grid.Dense && c.result != nil && !c.result.Perplexity.Infinite() {
			dense = []Mark{{Label: "dense", Value: float64(c.result.Perplexity), OnY: true}}
		}
	}
	find := func(method, pattern string) *cell {
		k := slices.IndexFunc(all, func(c cell) bool { return c.method == method && c.pattern == pattern })
		if k < 0 {
			return nil
		}
		return &all[k]
	}
	table, columns := [][]any{}, []Column{{Name: "method"}}
	for _, p := range patterns {
		columns = append(columns, named(perplexityColumn, p))
	}
	var lines [][]any
	bars := Figure{Title: "Perplexity of " + model + " at one pattern", Choice: "pattern", Columns: []Column{{Name: "method"}, perplexityColumn, {Name: "±", Digits: 3, Hint: "standard error over the windows"}, {Name: "windows"}, share("sparsity", "measured"), {Name: "time", Unit: "s", Digits: 4, Hint: "of pruning, and of the search before it"}}}
	for _, method := range methods {
		row := []any{method}
		for _, p := range patterns {
			c := find(method, p)
			switch {
			case c == nil:
				row = append(row, nil)
			case c.result == nil:
				row = append(row, "– "+c.refused)
			default:
				row = append(row, perplexity(c.result.Perplexity))
				lines = append(lines, []any{p, method, perplexity(c.result.Perplexity)})
			}
		}
		table = append(table, row)
	}
	for _, p := range patterns {
		v := View{Label: p, Marks: dense}
		for _, method := range methods {
			if c := find(method, p); c != nil && c.result != nil {
				v.Rows = append(v.Rows, []any{method, perplexity(c.result.Perplexity), positive(c.result.Stderr), c.result.Windows, number(c.sparsity), number(c.seconds)})
			}
		}
		if v.Rows != nil {
			bars.Views = append(bars.Views, v)
		}
	}
	note := ""
	if dense != nil {
		note = fmt.Sprintf("Dense: %.6g. ", dense[0].Value)
	}
	s.figure(item, Figure{Title: "Perplexity of " + model, Columns: columns, Views: []View{{Rows: table, Note: note + "★ marks the best of a column."}}})
	if lines != nil {
		c := newChart("lines")
		c.X, c.Y, c.Group, c.LogY = 0, []int{2}, 1, true
		s.figure(item, Figure{Title: "Perplexity of " + model + " against sparsity", Chart: c, Columns: []Column{{Name: "pattern"}, {Name: "method"}, perplexityColumn}, Views: []View{{Rows: lines, Marks: dense}}})
	}
	if bars.Views != nil {
		bars.Chart = newChart("bars")
		bars.Chart.X, bars.Chart.Y, bars.Chart.Error = 0, []int{1}, 2
		s.figure(item, bars)
	}
	gridTasks(s, item, model, patterns, append([]string{grid.Dense}, methods...), func(method, p string) *cell {
		if method == grid.Dense {
			return find(method, "")
		}
		return find(method, p)
	})
}

// gridTasks adds the accuracies, if there are any.
func gridTasks(s *Section, item *Item, model string, patterns, methods []string, find func(method, pattern string) *cell) {
	f := Figure{Title: "Zero-shot accuracy of " + model, Choice: "pattern", Columns: taskColumns}
	for _, p := range patterns {
		v := View{Label: p}
		for _, method := range methods {
			if c := find(method, p); c != nil {
				v.Rows = append(v.Rows, taskRows(method, c.tasks)...)
			}
		}
		if v.Rows != nil {
			f.Views = append(f.Views, v)
		}
	}
	if f.Views != nil {
		f.Chart = taskChart()
		s.figure(item, f)
	}
}

var taskColumns = []Column{
	{Name: "model"}, {Name: "task"}, {Name: "accuracy", Digits: 4, Share: true, Hint: "share of documents whose right answer is the likeliest"}, {Name: "±", Digits: 2, Share: true, Hint: "standard error"},
	{Name: "normalised", Digits: 4, Share: true, Hint: "accuracy with likelihoods divided by the answers' lengths"}, {Name: "± of it", Digits: 2, Share: true}, {Name: "documents"},
}

func taskChart() *Chart {
	c := newChart("bars")
	c.X, c.Y, c.Error, c.Group = 1, []int{2}, 3, 0
	return c
}

func taskRows(who string, tasks []task.Result) (rows [][]any) {
	for _, t := range tasks {
		rows = append(rows, []any{who, t.Task, number(t.Acc), optional(t.AccStderr), number(t.AccNorm), optional(t.AccNormStderr), t.Documents})
	}
	return rows
}

// accuracies are those of one model.
func accuracies(model string, tasks []task.Result) Figure {
	return Figure{Title: "Zero-shot accuracy", Columns: taskColumns, Chart: taskChart(), Views: []View{{Rows: taskRows(model, tasks)}}}
}

// comparePatterns orders by sparsity, those of equal weights before N:M.
func comparePatterns(a, b string) int {
	value := func(s string) (float64, bool) {
		if strings.Contains(s, ":") {
			p, err := pattern.ParsePattern(s)
			if err != nil {
				return 2, true
			}
			return p.Sparsity().Float64(), true
		}
		v, err := pattern.ParseSparsity(s)
		if err != nil {
			return 2, false
		}
		return v.Float64(), false
	}
	x, nx := value(a)
	y, ny := value(b)
	if nx != ny {
		if nx {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
}
