package grid

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
)

// study is the name of a grid in its store.
const study = "grid"

// The kinds of its records. A key is that of what the value depends on.
const (
	perplexityKind = "perplexity" // value: measured
	taskKind       = "task"       // value: a task.Result
	searchKind     = "search"     // value: found
)

// origin is what is kept with a result to tell whether it is the one asked for.
type origin struct {
	What       string            `json:"what"` // for people
	Provenance provenance.Record `json:"provenance"`
}

// measured is what is kept of a cell.
type measured struct {
	origin
	Result   eval.Result `json:"result"`
	Sparsity float64     `json:"sparsity"`
	Seconds  float64     `json:"seconds"`
}

// found is what is kept of a search.
type found struct {
	origin
	Best    pho.Candidate `json:"best"`
	Seconds float64       `json:"seconds"`
}

// recall reads what an earlier run has finished.
func (g *runner) recall(ctx context.Context) error {
	var err error
	if g.study, err = g.opt.Store.Study(ctx, study, nil); err != nil {
		return err
	}
	for _, kind := range []string{perplexityKind, taskKind, searchKind, pointKind, speedKind} {
		records, err := g.study.Records(ctx, kind)
		if err != nil {
			return err
		}
		g.kept[kind] = map[string]string{}
		for _, r := range records {
			g.kept[kind][r.Key] = r.Value
			var o origin
			if json.Unmarshal([]byte(r.Value), &o) == nil { // what is damaged is refused when it is asked for
				g.origins[kind] = append(g.origins[kind], o)
			}
		}
	}
	if len(g.opt.Tasks) == 0 {
		return nil
	}
	return g.keyTasks()
}

// keyTasks fills in the keys of tasks: of their documents, and of the tokens that
// this model's tokenizer makes of them.
func (g *runner) keyTasks() error {
	e, err := task.NewEncoder(g.M, g.Inv.Config(), g.Inv.ReadFile, g.Dir, g.opt.BOS)
	if err != nil {
		return err
	}
	g.bos = e.BOS()
	for _, s := range g.opt.Tasks {
		text, err := json.Marshal(s.Documents)
		if err != nil {
			return err
		}
		tokens, err := e.Hash(g.M, s)
		if err != nil {
			return err
		}
		g.tasks = append(g.tasks, key(provenance.Record{
			{Name: "task", Value: s.Task.Name}, {Name: "documents", Value: string(text)}, {Name: "tokens", Value: tokens},
		}))
	}
	return nil
}

// keyDigits of a Record's key are enough for a file of studies.
const keyDigits = 24

func key(r provenance.Record) string { return r.Key()[:keyDigits] }

// record is what a cell of the store holds.
type record interface {
	*measured | *task.Result | *found | *stored | *raced
}

// get reads the record of a kind and key into v, if there is one that counts.
func get[R record](g *runner, kind, key string, v R) (bool, error) {
	text, ok := g.kept[kind][key]
	if !ok {
		return false, nil
	}
	err := json.Unmarshal([]byte(text), v)
	if err == nil {
		err = damaged(v)
	}
	if err != nil {
		return false, fmt.Errorf("%s of cell %s: %w", kind, key, err)
	}
	return true, nil
}

// damaged returns an error if v cannot have been written by a grid.
func damaged[R record](v R) error {
	share := func(x float64) bool { return x >= 0 && x <= 1 }
	ok := false
	switch v := any(v).(type) {
	case *measured:
		ok = v.Result.Valid() && share(v.Sparsity) && v.Seconds >= 0
	case *task.Result:
		ok = v.Task != "" && v.Documents > 0 && share(v.Acc) && share(v.AccNorm)
	case *found:
		c := v.Best.Coefficients
		ok = v.Seconds >= 0 && c.Valid() == nil
	case *stored:
		ok = v.valid()
	case *raced:
		ok = v.valid()
	}
	if !ok {
		return errors.New("it cannot have been measured: the store is damaged; name another with --study, or compute it --again")
	}
	return nil
}

// put keeps v, also when ctx has ended.
func (g *runner) put(ctx context.Context, kind, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if g.study == nil { // a worker's: the cell as a whole is kept
		g.kept[kind][key], g.fresh[key] = string(text), true
		return nil
	}
	if err := g.study.Add(context.WithoutCancel(ctx), kind, search.Record{Key: key, Value: string(text)}); err != nil {
		return err
	}
	g.kept[kind][key], g.fresh[key] = string(text), true
	return nil
}

// drop forgets what a cell has, if it is to be computed again.
func (g *runner) drop(ctx context.Context, key string) error {
	if !g.opt.Again || g.fresh[key] {
		return nil
	}
	keys := map[string][]string{perplexityKind: {key}}
	for _, t := range g.tasks {
		keys[taskKind] = append(keys[taskKind], key+" "+t)
	}
	for kind, all := range keys {
		for _, k := range all {
			if err := g.study.Remove(ctx, kind, k); err != nil {
				return err
			}
			delete(g.kept[kind], k)
		}
	}
	return nil
}

// provenance is what the dense model's perplexity depends on.
func (g *runner) provenance() (provenance.Record, error) {
	rec, err := provenance.New(g.M.Engine().ID())
	return append(rec, provenance.Record{{Name: "model", Value: g.ID}, {Name: "windows evaluation", Value: g.Evaluation.SHA256()}}...), err
}

// cellProvenance is what a cell of recipe r depends on.
func (g *runner) cellProvenance(r recipe.Recipe) (provenance.Record, error) {
	rec, err := g.provenance()
	if err != nil {
		return nil, err
	}
	resolved, err := r.Resolve()
	if err != nil {
		return nil, err
	}
	if resolved.Method.NeedsData {
		rec = append(rec, provenance.Field{Name: "windows calibration", Value: g.Calibration.SHA256()})
	}
	used, err := r.Provenance()
	return append(rec, used.Without("recipe calibration", "recipe eval")...), err // the windows are above
}

// warnOutdated says how many cells are computed anew although another program or
// engine has computed them, and what differs.
func (g *runner) warnOutdated() error {
	if g.opt.Again {
		return nil
	}
	cells, reasons := 1, map[string]int{}
	count := func(kind, what string, rec provenance.Record) {
		if was := g.outdated(kind, what, rec); was != nil {
			reasons[provenance.Differences(was, rec)]++
		}
	}
	rec, err := g.provenance()
	if err != nil {
		return err
	}
	count(perplexityKind, g.what(Row{Name: Dense}, ""), rec)
	for _, row := range g.opt.Rows {
		for _, pattern := range g.opt.Patterns {
			r := row.at(g.opt.Base, pattern)
			if refused, err := g.check(r); err != nil || refused != nil {
				continue // it has its own error, or its own reason
			}
			cells++
			kind, rec, err := perplexityKind, provenance.Record(nil), error(nil)
			if row.Budget != nil {
				kind = searchKind
				_, rec, err = g.searchOptions(row, pattern)
			} else {
				rec, err = g.cellProvenance(r)
			}
			if err != nil {
				return err
			}
			count(kind, g.what(row, pattern), rec)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(reasons)) {
		g.opt.Warn("%s: another program or engine has computed %d of %d cells; they are computed anew: %s", g.Name, reasons[why], cells, why)
	}
	return nil
}

// outdated returns what a kept result depends on that answers what rec asks for,
// but is another program's or engine's; nil if rec's own is kept, or none.
func (g *runner) outdated(kind, what string, rec provenance.Record) provenance.Record {
	if _, ok := g.kept[kind][key(rec)]; ok {
		return nil
	}
	var all []provenance.Record
	for _, o := range g.origins[kind] {
		switch {
		case o.Provenance != nil:
			all = append(all, o.Provenance)
		case o.What == what: // an older crepe's: more is not known of it
			all = append(all, provenance.Record{})
		}
	}
	return provenance.Nearest(all, rec)
}

// what names a cell for people.
func (g *runner) what(row Row, pattern string) string {
	if row.Name == Dense {
		return g.Name + ", " + Dense
	}
	return fmt.Sprintf("%s, %s at %s", g.Name, row.Name, pattern)
}
