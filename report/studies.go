package report

import (
	"cmp"
	"fmt"
	"maps"
	"math"
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
	{Name: "α", Digits: 4, Hint: "weight of the row term, |w| over the sum of its row; α, β and γ are scaled to a sum of 1"},
	{Name: "β", Digits: 4, Hint: "weight of the column term, |w| over the sum of its column"},
	{Name: "γ", Digits: 4, Hint: "weight of the neighbourhood term, |w| over the sum around it"},
	{Name: "δ", Digits: 4, Hint: "weight of |w| itself"},
	{Name: "kernel", Hint: "width of the neighbourhood, in weights"},
	{Name: "power", Digits: 4, Hint: "exponent of the norm of the weight's input"},
	{Name: "compares within", Hint: "which weights compete for the places that are kept"},
	{Name: "depth slope", Digits: 4, Hint: "how much more the last block is pruned than the middle one, in log-odds (+1 makes 73 % of 50 %); – for all blocks alike"},
	{Name: "depth curve", Digits: 4, Hint: "how much more both ends are pruned than the middle, in log-odds"},
	{Name: "depth first", Digits: 4, Hint: "how much more the first block is pruned beside that, in log-odds"},
	{Name: "own kinds", Hint: "kinds of Linear that have an α, β and power of their own"},
}

func coefficients(c pho.Coefficients) []any {
	n := c.Normalized()
	row := []any{n.Alpha, n.Beta, n.Gamma, n.Delta, nil, n.Power, cmp.Or(n.Compare, "matrix"), nil, nil, nil, len(n.Kinds)}
	if n.Alpha+n.Beta+n.Gamma == 0 { // δ alone, of which every multiple is the same
		row[0], row[1], row[2] = nil, nil, nil
	}
	if n.Gamma > 0 {
		row[4] = n.Kernel
	}
	if d := n.Depth; d != nil {
		row[7], row[8], row[9] = d.Slope, d.Curve, d.First
	}
	return row
}

// candidateColumns are columns with those of a candidate behind them.
func candidateColumns(columns ...Column) []Column { return append(columns, coefficientColumns...) }

// searches show what each search tried and found.
func searches(items []Item) Section {
	s := Section{ID: "search", Title: "Search", Lead: "A search for the parameters of CRePE's score. Stage 1 rates many candidates quickly: by perplexity on a few windows of text, or by a proxy that needs no pass of the model. Stage 2 is a race of the best, and of candidates that always take part: each is tried on more windows, and those that may still win are pruned in full and measured. The lowest perplexity wins."}
	for i := range items {
		h := items[i].History
		if h == nil {
			continue
		}
		name := " at " + cmp.Or(items[i].Pattern, items[i].Name)
		if h.Stage2 != nil {
			stage2(&s, &items[i], name, h)
		}
		stage1(&s, &items[i], name, h)
		if len(h.Checked) > 0 {
			proxyCheck(&s, &items[i], h)
		}
	}
	return s
}

// ratingColumn is what stage 1 minimised, and rating its cell.
func ratingColumn(h *pho.History) Column {
	if h.Measured() {
		return Column{Name: "perplexity on a few windows", Digits: 6, Best: "low", Hint: "what stage 1 minimises: of the model pruned by the norms that the default coefficients leave, on the first windows of the held-out text"}
	}
	name := h.Trials[0].Objective
	return Column{Name: cmp.Or(proxyTitles[name], name), Digits: 7, Best: "low", Hint: "the proxy that stage 1 minimises, of the scores of the first Linear"}
}

func rating(v float64, measured bool) any {
	if measured {
		return perplexity(eval.Number(math.Exp(v)))
	}
	return number(v)
}

// stage1 shows the trials in their order, in the triangle, and by each parameter.
func stage1(s *Section, item *Item, name string, h *pho.History) {
	if len(h.Trials) == 0 {
		return
	}
	measured := h.Measured()
	columns := candidateColumns(Column{Name: "trial"}, ratingColumn(h))
	middle := median(h.Trials)
	better, all := View{Label: "the better half"}, View{Label: "all"}
	for n, t := range h.Trials {
		row := append([]any{n + 1, rating(t.Value, measured)}, coefficients(t.Coefficients)...)
		all.Rows = append(all.Rows, row)
		if t.Value <= middle {
			better.Rows = append(better.Rows, row)
		}
	}
	c := newChart("scatter")
	c.X, c.Y = 0, []int{1}
	s.figure(item, Figure{Title: "Stage 1: trials" + name, Choice: "trials", Columns: columns, Views: []View{better, all}, Chart: c})
	better.Note, all.Note = triangleNote, triangleNote
	triangle(s, item, Figure{Title: "Stage 1: α, β and γ by " + columns[1].Name, Choice: "trials", Columns: columns, Views: []View{better, all}}, 2, 1)
	if views := parameterViews(h, middle); views != nil {
		c = newChart("scatter")
		c.X, c.Y = 0, []int{1}
		s.figure(item, Figure{Title: "Stage 1: one parameter at a time", Choice: "parameter", Columns: []Column{{Name: "value", Digits: 4, Hint: "of the chosen parameter"}, columns[1], {Name: "trial"}}, Views: views, Chart: c})
	}
}

// triangle adds f with its chart of column value over α and the two columns after it,
// unless all candidates lie at one point.
func triangle(s *Section, item *Item, f Figure, alpha, value int) {
	var first []any
	for _, row := range f.Views[len(f.Views)-1].Rows { // all
		at := row[alpha : alpha+3]
		if row[value] == nil || at[0] == nil {
			continue
		}
		if first == nil {
			first = at
		}
		if !slices.Equal(at, first) {
			f.Chart = newChart("triangle")
			f.Chart.Y, f.Chart.Value = []int{alpha, alpha + 1, alpha + 2}, value
			s.figure(item, f)
			return
		}
	}
}

const triangleNote = "A corner is a candidate of one term only; in the middle all three weigh alike."

// median is the value that half of the trials do not exceed: the others can be so bad that
// a chart of all shows nothing else.
func median(trials []pho.Rated) float64 {
	var values []float64
	for _, t := range trials {
		values = append(values, t.Value)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// parameterViews are the trials that do not exceed middle, by each parameter that was not
// the same in all of them.
func parameterViews(h *pho.History, middle float64) (views []View) {
	add := func(name string, value func(c pho.Coefficients) any) {
		v := View{Label: name, Note: "The better half of the trials."}
		for n, t := range h.Trials {
			if x := value(t.Coefficients.Normalized()); x != nil && t.Value <= middle {
				v.Rows = append(v.Rows, []any{x, rating(t.Value, h.Measured()), n + 1})
			}
		}
		if slices.ContainsFunc(v.Rows, func(r []any) bool { return r[0] != v.Rows[0][0] }) {
			views = append(views, v)
		}
	}
	some := slices.ContainsFunc(h.Trials, func(t pho.Rated) bool { return t.Depth != nil })
	for k, column := range coefficientColumns {
		if column.Digits > 0 {
			add(column.Name, func(c pho.Coefficients) any {
				if some && c.Depth == nil {
					c.Depth = &pho.Depth{} // all blocks alike
				}
				return coefficients(c)[k]
			})
		}
	}
	kinds := map[string]bool{}
	for _, t := range h.Trials {
		for name := range t.Kinds {
			kinds[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		add(name+": power", func(c pho.Coefficients) any { return c.Kind(name).Power })
		add(name+": β's share of α + β", func(c pho.Coefficients) any { return c.Kind(name).Share() })
	}
	return views
}

// stage2 shows the candidates of the race, how it went, and what the winner is.
func stage2(s *Section, item *Item, name string, h *pho.History) {
	r, names := h.Stage2, candidateNames(h)
	note := fmt.Sprintf("On %d windows of held-out text.", r.Windows)
	if r.Dense > 0 && !r.Dense.Infinite() {
		note += fmt.Sprintf(" Dense: %.6g.", float64(r.Dense))
	}
	if !r.Over {
		note += " The race is not over: candidates without an outcome wait for theirs."
	}
	columns := candidateColumns(Column{Name: "candidate"}, Column{Name: "outcome"},
		Column{Name: "perplexity", Digits: 6, Best: "low", Hint: "of the model pruned in full, on all windows"},
		Column{Name: "tried at", Digits: 6, Hint: "perplexity of the model pruned by the norms that the default coefficients leave; compares with what was tried on as many windows"},
		Column{Name: "windows", Hint: "that it was tried on"},
		Column{Name: "chance", Digits: 2, Share: true, Hint: "probability that it would have the lowest perplexity if all were pruned in full, as far as the measurements tell"},
		Column{Name: "last step", Hint: "number of the last measurement of it in stage 2: of a candidate that was given up, what it was given up after"})
	last := map[int]int{}
	for n, step := range r.Steps {
		last[step.Candidate] = n + 1
	}
	best := r.Best()
	var rows [][]any
	for i, c := range r.Candidates {
		row := []any{names[i], nil, nil, nil, nil, nil, nil}
		if t := c.Screened; t != nil {
			row[3], row[4] = perplexity(t.Perplexity), t.Windows
			if c.Perplexity == 0 && best >= 0 {
				row[5] = number(t.Chance)
			}
		}
		switch {
		case c.Perplexity > 0:
			row[1], row[2] = "pruned in full", perplexity(c.Perplexity)
			if i == best && r.Over {
				row[1] = "won"
			}
		case c.GivenUp:
			row[1] = fmt.Sprintf("given up after %d windows", c.Screened.Windows)
		}
		if n := last[i]; n > 0 {
			row[6] = n
		}
		rows = append(rows, append(row, coefficients(c.Coefficients)...))
	}
	slices.SortStableFunc(rows, func(a, b []any) int { return cmp.Compare(rank(a[2]), rank(b[2])) })
	s.figure(item, Figure{Title: "Stage 2: who took part" + name, Columns: columns, Views: []View{{Rows: rows, Note: note}}})
	race(s, item, r, names, last)
	triangle(s, item, Figure{Title: "Stage 2: α, β and γ by perplexity", Columns: columns, Views: []View{{Rows: rows, Note: triangleNote + " Those pruned in full."}}}, 7, 2)
	firsts(s, item, h, names)
	winner(s, item, r, names)
}

// firsts shows, of candidates that were pruned in full, what was measured of them before.
func firsts(s *Section, item *Item, h *pho.History, names []string) {
	f := Figure{Title: "Stage 2: first values against perplexity in full", Choice: "first value", Columns: []Column{
		{Name: "first value", Digits: 6, Hint: "what was known of the candidate before it was pruned in full"}, named(perplexityColumn, "perplexity"), {Name: "candidate"},
	}, Chart: newChart("scatter")}
	f.Chart.X, f.Chart.Y, f.Chart.Label = 0, []int{1}, 2
	add := func(label string, candidate int, value any) {
		c := h.Stage2.Candidates[candidate]
		if c.Perplexity == 0 {
			return
		}
		k := slices.IndexFunc(f.Views, func(v View) bool { return v.Label == label })
		if k < 0 {
			k = len(f.Views)
			f.Views = append(f.Views, View{Label: label, Note: "If points rise from left to right, the first value tells which candidate is better in full."})
		}
		f.Views[k].Rows = append(f.Views[k].Rows, []any{value, perplexity(c.Perplexity), names[candidate]})
	}
	for i, c := range h.Stage2.Candidates {
		if c.Rating != 0 && len(h.Trials) > 0 && h.Trials[0].Objective != pho.Full {
			add("stage 1, "+ratingColumn(h).Name, i, rating(c.Rating, h.Measured()))
		}
	}
	for _, step := range h.Stage2.Steps {
		if !step.Full {
			add(fmt.Sprintf("perplexity, tried on %d windows", step.Windows), step.Candidate, perplexity(step.Perplexity))
		}
	}
	f.Views = slices.DeleteFunc(f.Views, func(v View) bool { return len(v.Rows) < 2 }) // nothing to compare
	if len(f.Views) > 0 {
		s.figure(item, f)
	}
}

// rank orders what was measured before what was not.
func rank(v any) float64 {
	if x, ok := v.(float64); ok {
		return x
	}
	return math.Inf(1)
}

// candidateNames tell the candidates of a race apart.
func candidateNames(h *pho.History) []string {
	trial := map[string]int{}
	for n, t := range slices.Backward(h.Trials) {
		trial[t.Key()] = n + 1
	}
	var names []string
	for i, c := range h.Stage2.Candidates {
		name := c.Name
		if n := trial[c.Key()]; name == "" && n > 0 {
			name = fmt.Sprintf("trial %d", n)
		}
		names = append(names, cmp.Or(name, fmt.Sprintf("candidate %d", i+1)))
	}
	return names
}

// race shows the measurements of stage 2 in their order, and what they left of each
// candidate's chance.
func race(s *Section, item *Item, r *pho.Stage2, names []string, last map[int]int) {
	var steps, chances [][]any
	inFull := make([]bool, len(names))
	for n, step := range r.Steps {
		state := fmt.Sprintf("tried on %d", step.Windows)
		switch {
		case step.Full:
			state, inFull[step.Candidate] = "pruned in full", true
		case r.Candidates[step.Candidate].GivenUp && last[step.Candidate] == n+1:
			state = fmt.Sprintf("given up after %d", step.Windows)
		}
		steps = append(steps, []any{n + 1, state, perplexity(step.Perplexity), names[step.Candidate]})
		for i, chance := range step.Chances {
			if !inFull[i] {
				chances = append(chances, []any{n + 1, names[i], number(chance)})
			}
		}
	}
	step := Column{Name: "step", Hint: "number of the measurement"}
	if steps != nil {
		c := newChart("scatter")
		c.X, c.Y, c.Group, c.Label = 0, []int{2}, 1, 3
		s.figure(item, Figure{
			Title: "Stage 2: step by step", Columns: []Column{step, {Name: "what was done", Hint: "the number is of windows of text"}, named(perplexityColumn, "perplexity"), {Name: "candidate"}}, Chart: c,
			Views: []View{{Rows: steps, Note: "What was tried compares only with what was tried on as many windows."}},
		})
	}
	if chances != nil {
		c := newChart("lines")
		c.X, c.Y, c.Group = 0, []int{2}, 1
		s.figure(item, Figure{
			Title: "Stage 2: chance of winning after each step", Columns: []Column{step, {Name: "candidate"}, {Name: "chance", Digits: 3, Share: true, Hint: "of having the lowest perplexity, if all were pruned in full"}}, Chart: c,
			Views: []View{{Rows: chances, Note: fmt.Sprintf("A line ends where its candidate is pruned in full, which settles it. When the chances of all others add up to at most %.3g %%, these are given up.", 100*pho.GiveUp)}},
		})
	}
}

// winner shows the candidates that were pruned in full, the best first: their parameters
// by kind of Linear, and their sparsity over depth.
func winner(s *Section, item *Item, r *pho.Stage2, names []string) {
	var order []int
	for i, c := range r.Candidates {
		if c.Perplexity > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(r.Candidates[a].Perplexity, r.Candidates[b].Perplexity)
	})
	own := false
	var views []View
	var depth [][]any
	for _, i := range order {
		label := names[i]
		if i == order[0] {
			label += ", the lowest"
		}
		c := r.Candidates[i].Normalized()
		own = own || len(c.Kinds) > 0
		views = append(views, kindsView(label, c))
		for b, share := range r.Candidates[i].Blocks {
			depth = append(depth, []any{b, names[i], number(share)})
		}
	}
	if own {
		c := newChart("bars")
		c.X, c.Y = 0, []int{1, 2}
		s.figure(item, Figure{Title: "Parameters by kind of Linear", Choice: "candidate", Views: views, Chart: c, Columns: []Column{
			{Name: "kind"}, {Name: "β's share of α + β", Digits: 4, Hint: "0: the row term alone; 1: the column term alone"}, {Name: "power", Digits: 4, Hint: "exponent of the norm of the weight's input"},
			{Name: "α", Digits: 4}, {Name: "β", Digits: 4},
		}})
	}
	if slices.ContainsFunc(depth, func(r []any) bool { return math.Abs(rank(r[2])-rank(depth[0][2])) > 1e-3 }) {
		c := newChart("lines")
		c.X, c.Y, c.Group = 0, []int{2}, 1
		s.figure(item, Figure{Title: "Sparsity over depth", Chart: c, Columns: []Column{{Name: "block"}, {Name: "candidate"}, share("sparsity", "share of the block's weights that the candidate prunes")},
			Views: []View{{Rows: depth, Note: "Of the candidates that were pruned in full. All prune the same share of the whole model."}}})
	}
}

// kindsView has a row for each kind of Linear with parameters of its own, and one for the
// others.
func kindsView(name string, c pho.Coefficients) View {
	v := View{Label: name, Note: fmt.Sprintf("For all kinds: γ %.4g, δ %.4g, weights compete within the %s.", c.Gamma, c.Delta, cmp.Or(c.Compare, "matrix"))}
	rest := "any other"
	if len(c.Kinds) == 0 {
		rest = "every kind"
	}
	for _, kind := range append(slices.Sorted(maps.Keys(c.Kinds)), "") {
		k := c.Kind(kind)
		row := []any{cmp.Or(kind, rest), k.Share(), k.Power, k.Alpha, k.Beta}
		if k.Alpha+k.Beta == 0 {
			row[1] = nil
		}
		v.Rows = append(v.Rows, row)
	}
	return v
}

// proxyCheck shows how the proxy that was asked for goes with perplexity.
func proxyCheck(s *Section, item *Item, h *pho.History) {
	name := h.Checked[0].Objective
	var rows [][]any
	for n, c := range h.Checked {
		rows = append(rows, append([]any{number(c.Value), perplexity(c.Perplexity), n + 1}, coefficients(c.Coefficients)...))
	}
	note := "The check is at work."
	if c := h.Check; c != nil {
		note = fmt.Sprintf("The proxy is the same for all %d candidates: the search follows perplexity in its place.", c.Candidates)
		if c.Correlation != nil {
			does := "the search follows it"
			if !c.Followed {
				does = "too little: the search follows perplexity in its place"
			}
			note = fmt.Sprintf("Spearman's ρ %+.2f over %d candidates (1: the same order, 0: none): %s.", c.Rho, c.Candidates, does)
		}
	}
	c := newChart("scatter")
	c.X, c.Y = 0, []int{1}
	s.figure(item, Figure{
		Title: "Does the proxy go with perplexity?", Chart: c, Views: []View{{Rows: rows, Note: note}},
		Columns: candidateColumns(Column{Name: cmp.Or(proxyTitles[name], name), Digits: 6, Hint: "the proxy's value at the first Linear"}, named(perplexityColumn, "perplexity on a few windows"), Column{Name: "candidate"}),
	})
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
			frontier(&s, &items[i], m)
		}
	}
	return s
}

// points are those of a model's frontier, of an item; of several measurements of one the
// newest.
func (i *Item) points(model string) []grid.Point {
	var all []grid.Point
	if i.Table != nil {
		for _, m := range i.Table.Models {
			if m.Model == model {
				all = slices.Clone(m.Frontier)
			}
		}
	}
	for _, p := range i.Points {
		if p.Model != model {
			continue
		}
		k := slices.IndexFunc(all, func(q grid.Point) bool { return q.Name() == p.Name() && q.Values == p.Values })
		if k < 0 {
			all = append(all, p.Point)
		} else {
			all[k] = p.Point
		}
	}
	grid.Rank(all)
	return all
}

// frontier shows the points of a model's frontier by size, and by speed.
func frontier(s *Section, item *Item, model string) {
	points := item.points(model)
	if len(points) == 0 {
		return
	}
	columns := []Column{
		{Name: "model"}, {Name: "values"}, {Name: "size", Unit: "bytes", Hint: "of all tensors, in files"}, {Name: "tokens a second", Digits: 4, Hint: "after a prompt, when it was measured"},
		{Name: "speed", Digits: 3, Hint: "next to the dense model's, which ran in turn with it"}, perplexityColumn,
		{Name: "KL divergence", Unit: "nats", Digits: 4, Best: "low", Hint: "from the dense model, on the first windows"}, {Name: "frontier", Hint: "named again if no other is at least as good in size, speed and KL divergence, and better in one"},
		{Name: "kind"},
	}
	var rows [][]any
	for _, p := range points {
		mark, kind := "", p.Values
		if p.Frontier {
			mark = p.Name()
		}
		if p.Method == grid.Dense {
			kind = "dense, " + kind
		}
		rows = append(rows, []any{p.Name(), p.Values, p.Bytes, number(p.Decode), number(p.Ratio()), perplexity(p.Perplexity.Perplexity), number(float64(p.KL)), mark, kind})
	}
	for _, by := range []struct {
		x    int
		name string
	}{{2, "size"}, {4, "speed"}} {
		c := newChart("scatter")
		c.X, c.Y, c.Group, c.Label = by.x, []int{6}, 8, 7
		s.figure(item, Figure{Title: "KL divergence by " + by.name + ", " + model, Columns: columns, Chart: c, Views: []View{{Rows: rows, Note: "Every model with each kind of stored values, packed."}}})
	}
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

// taskTable is a row for each method and a column for each task at every pattern, without
// the dense model, which stands in a note.
func taskTable(model string, patterns, methods []string, find func(method, pattern string) *cell) Figure {
	f := Figure{Title: "Zero-shot accuracy of " + model, Choice: "pattern", Columns: []Column{{Name: "method"}}}
	var names []string
	for _, p := range patterns {
		for _, method := range methods {
			if c := find(method, p); c != nil {
				for _, r := range c.tasks {
					if !slices.Contains(names, r.Task) {
						names = append(names, r.Task)
						column := accuracyColumn
						column.Name = r.Task
						f.Columns = append(f.Columns, column)
					}
				}
			}
		}
	}
	for _, p := range patterns {
		v := View{Label: p, Note: "★ marks the best of a column."}
		for _, method := range methods {
			c := find(method, p)
			if c == nil || len(c.tasks) == 0 {
				continue
			}
			row := pad([]any{method}, len(names))
			for _, r := range c.tasks {
				row[1+slices.Index(names, r.Task)] = number(r.Acc)
			}
			if method == grid.Dense {
				v.Note = "Dense:" + taskNote(c.tasks) + ". " + v.Note
				continue
			}
			v.Rows = append(v.Rows, row)
		}
		if v.Rows != nil {
			f.Views = append(f.Views, v)
		}
	}
	return f
}

// taskNote is the accuracies as a text.
func taskNote(tasks []task.Result) string {
	var b strings.Builder
	for i, r := range tasks {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, " %s %.4g %%", r.Task, 100*r.Acc)
	}
	return b.String()
}

// gridTasks adds the accuracies, if there are any.
func gridTasks(s *Section, item *Item, model string, patterns, methods []string, find func(method, pattern string) *cell) {
	if t := taskTable(model, patterns, methods, find); t.Views != nil {
		s.figure(item, t)
	}
	f := Figure{Title: "Zero-shot accuracy of " + model + ", with errors", Choice: "pattern", Columns: taskColumns}
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

var accuracyColumn = Column{Name: "accuracy", Digits: 4, Share: true, Best: "high", Hint: "share of documents whose right answer is the likeliest; higher is better"}

var taskColumns = []Column{
	{Name: "model"}, {Name: "task"}, {Name: "accuracy", Digits: 4, Share: true, Hint: accuracyColumn.Hint}, {Name: "±", Digits: 2, Share: true, Hint: "standard error"},
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
