package grid

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/windows"
)

// CellKind is that of a grid's orders and of the records that answer them. A key is
// that of what is asked for, whoever computes it; the value is an answer.
const CellKind = "cell"

// Work is what an order for a cell asks for.
type Work struct {
	Row         Row           `json:"row"` // Dense's has no recipe
	Pattern     string        `json:"pattern,omitempty"`
	Base        recipe.Recipe `json:"base"`
	Tasks       []taskRef     `json:"tasks,omitempty"`
	BOS         string        `json:"bos"`
	Seed        uint64        `json:"seed,omitempty"`
	Calibration *windows.Ref  `json:"calibration,omitempty"`
	Verify      *windows.Ref  `json:"verify,omitempty"`
	Evaluation  *windows.Ref  `json:"evaluation"`
}

// taskRef is a task whose documents are found by the hash of their JSON.
type taskRef struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// answer is what is kept of a cell in a store that many work for.
type answer struct {
	What     string `json:"what"` // for people
	Compute  string `json:"compute"`
	TasksBOS bool   `json:"tasks_bos,omitempty"`
	Cell     Cell   `json:"cell"`
}

// damaged returns an error if a cannot be a worker's.
func (a *answer) damaged(w *Work) error {
	c := &a.Cell
	ok := (w.Row.Budget != nil) == (c.Found != nil) && (c.Found == nil || c.Found.Coefficients.Valid() == nil) && c.Refused == "" && c.Perplexity != nil && c.Perplexity.Valid() && c.Sparsity >= 0 && c.Sparsity <= 1 && c.Seconds >= 0 && len(c.Tasks) == len(w.Tasks) &&
		c.Method == w.Row.Name && c.Pattern == w.Pattern
	for i := range c.Tasks {
		ok = ok && damaged(&c.Tasks[i]) == nil
	}
	if !ok {
		return errors.New("it cannot have been measured: the store is damaged; compute it --again")
	}
	return nil
}

// share has all cells computed by those who work for q.
func (g *runner) share(ctx context.Context, q search.Queue) (*ModelReport, error) {
	if len(g.opt.Tasks) > 0 {
		if err := g.keyTasks(); err != nil {
			return nil, err
		}
	}
	base, err := g.work(ctx, q)
	if err != nil {
		return nil, err
	}
	rep := g.report()
	var orders []search.Order
	var works []*Work
	var into []*Cell
	place := func(row Row, pattern string, c *Cell) error {
		w := *base
		w.Row, w.Pattern = row, pattern
		o, err := g.order(&w)
		if err == nil {
			orders, works, into = append(orders, o), append(works, &w), append(into, c)
		}
		return err
	}
	if err := place(Row{Name: Dense}, "", &rep.Dense); err != nil {
		return nil, err
	}
	rep.Cells = make([]Cell, 0, len(g.opt.Rows)*len(g.opt.Patterns)) // whose elements stay where they are
	for _, row := range g.opt.Rows {
		for _, p := range g.opt.Patterns {
			rep.Cells = append(rep.Cells, Cell{Method: row.Name, Pattern: p})
			c := &rep.Cells[len(rep.Cells)-1]
			refused, err := g.check(row.at(g.opt.Base, p))
			if err != nil && !errors.Is(err, prune.ErrMemory) { // which is the worker's
				return nil, fmt.Errorf("%s: %w", g.what(row, p), err)
			}
			if refused != nil {
				c.Refused = refused.Error()
				g.opt.Done(*c)
				continue
			}
			if err := place(row, p, c); err != nil {
				return nil, fmt.Errorf("%s: %w", g.what(row, p), err)
			}
		}
	}
	if g.opt.Again {
		if err := g.forget(ctx, q, orders); err != nil {
			return nil, err
		}
	}
	bar := g.opt.Progress.Start("cells of "+g.Name, int64(len(orders)), "cells")
	var computes []string
	err = q.Ask(ctx, orders, func(i int, value string) error {
		var a answer
		err := json.Unmarshal([]byte(value), &a)
		if err == nil {
			err = a.damaged(works[i])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", orders[i].What, err)
		}
		*into[i] = works[i].recipe(a.Cell)
		computes = appendNew(computes, a.Compute)
		rep.TasksBOS = a.TasksBOS
		if g.opt.SameEngine {
			if err := rep.sameEngine(); err != nil {
				return err
			}
		}
		bar.Add(1)
		if into[i] != &rep.Dense {
			g.opt.Done(a.Cell)
		}
		return nil
	})
	rep.Compute = strings.Join(computes, " and ")
	return rep, err
}

// recipe returns c with its recipe as this program writes it: JSON leaves out what says
// nothing new.
func (w *Work) recipe(c Cell) Cell {
	if w.Row.Name == Dense {
		return c
	}
	r := w.Row.at(w.Base, w.Pattern)
	if c.Found != nil {
		r = c.Found.Coefficients.Of(r)
	}
	c.Recipe = &r
	return c
}

func appendNew(list []string, s string) []string {
	for _, have := range list {
		if have == s {
			return list
		}
	}
	return append(list, s)
}

// work is what all orders of the grid have in common; texts are kept where workers
// find them.
func (g *runner) work(ctx context.Context, q search.Queue) (*Work, error) {
	w := &Work{Base: g.opt.Base, BOS: g.opt.BOS.String(), Seed: g.opt.Seed}
	for _, s := range []struct {
		set *windows.Set
		ref **windows.Ref
	}{{g.Calibration, &w.Calibration}, {g.Verify, &w.Verify}, {g.Evaluation, &w.Evaluation}} {
		if s.set == nil {
			continue
		}
		r := s.set.Ref()
		*s.ref = &r
		if err := q.Keep(ctx, r.SHA256, s.set.Bytes()); err != nil {
			return nil, err
		}
	}
	for _, t := range g.opt.Tasks {
		text, err := json.Marshal(t.Documents)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(text)
		ref := taskRef{t.Task.Name, hex.EncodeToString(sum[:])}
		if err := q.Keep(ctx, ref.SHA256, text); err != nil {
			return nil, err
		}
		w.Tasks = append(w.Tasks, ref)
	}
	return w, nil
}

// order asks for a cell.
func (g *runner) order(w *Work) (search.Order, error) {
	rec, err := g.asked(w)
	if err != nil {
		return search.Order{}, err
	}
	for i, t := range w.Tasks {
		rec = append(rec, provenance.Field{Name: "task " + t.Name, Value: g.tasks[i]})
	}
	args, err := json.Marshal(w)
	return search.Order{
		Study: study, Kind: CellKind, Key: key(rec), What: g.what(w.Row, w.Pattern), Args: args,
		Model: search.Weights{Name: g.Name, ID: g.ID, Bytes: g.Inv.WeightBytes()},
	}, err
}

// asked is what a cell depends on, but for who computes it. Of a search, its
// coefficients are not known yet.
func (g *runner) asked(w *Work) (provenance.Record, error) {
	if w.Row.Name == Dense {
		rec, err := g.provenance()
		return rec.Asked(), err
	}
	rec, err := g.cellProvenance(w.Row.at(g.opt.Base, w.Pattern))
	if err != nil || w.Row.Budget == nil {
		return rec.Asked(), err
	}
	_, found, err := g.searchOptions(w.Row, w.Pattern)
	for _, f := range found.Asked() {
		rec = append(rec, provenance.Field{Name: "search " + f.Name, Value: f.Value})
	}
	return rec.Asked(), err
}

// forget removes the answers to orders, once in a run: models may share cells.
func (g *runner) forget(ctx context.Context, q search.Queue, orders []search.Order) error {
	s, err := q.Study(ctx, study, nil)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if err := s.Remove(ctx, o.Kind, o.Key); err != nil {
			return err
		}
	}
	return nil
}

// ParseWork reads the arguments of an order.
func ParseWork(args json.RawMessage) (*Work, error) {
	var w Work
	if err := json.Unmarshal(args, &w); err != nil {
		return nil, fmt.Errorf("order for a cell: %w", err)
	}
	return &w, nil
}

// Do computes the cell that an order asks for, of m without its texts, which q has.
// Of opt it reads Scratch, Memory, Progress and Warn.
func (w *Work) Do(ctx context.Context, q search.Queue, m Model, opt Options) (string, error) {
	var err error
	for _, s := range []struct {
		ref *windows.Ref
		set **windows.Set
	}{{w.Calibration, &m.Calibration}, {w.Verify, &m.Verify}, {w.Evaluation, &m.Evaluation}} {
		if s.ref == nil {
			continue
		}
		text, err := q.Text(ctx, s.ref.SHA256)
		if err != nil {
			return "", err
		}
		if *s.set, err = s.ref.Set(text, m.M.Config.Vocab); err != nil {
			return "", err
		}
	}
	if m.Evaluation == nil {
		return "", errors.New("the order names no text to measure perplexity on")
	}
	opt.Rows, opt.Patterns, opt.Base, opt.Seed = []Row{w.Row}, []string{w.Pattern}, w.Base, w.Seed
	opt.Store = search.Local{Store: q} // a search within the cell is part of it
	if opt.BOS, err = task.ParseBOS(w.BOS); err != nil {
		return "", err
	}
	if opt.Tasks, err = w.tasks(ctx, q); err != nil {
		return "", err
	}
	g, err := newRunner(m, opt)
	if err != nil {
		return "", err
	}
	for _, kind := range []string{perplexityKind, taskKind, searchKind} {
		g.kept[kind] = map[string]string{}
	}
	if len(opt.Tasks) > 0 {
		if err := g.keyTasks(); err != nil {
			return "", err
		}
	}
	a := answer{What: g.what(w.Row, w.Pattern), Compute: m.M.Engine().Compute().String(), TasksBOS: g.bos}
	if w.Row.Name == Dense {
		if a.Cell, err = g.dense(ctx); err == nil {
			a.Cell.Provenance, err = g.provenance()
		}
	} else if a.Cell, err = g.cell(ctx, w.Row, w.Pattern); err == nil {
		if a.Cell.Refused != "" { // whoever ordered has a crepe that does not
			return "", errors.New(a.Cell.Refused)
		}
		a.Cell.Provenance, err = g.cellProvenance(*a.Cell.Recipe)
	}
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(a)
	return string(text), err
}

// tasks reads the tasks of w.
func (w *Work) tasks(ctx context.Context, q search.Queue) ([]task.Set, error) {
	var sets []task.Set
	for _, ref := range w.Tasks {
		tasks, err := task.Parse(ref.Name)
		if err != nil {
			return nil, err
		}
		text, err := q.Text(ctx, ref.SHA256)
		if err != nil {
			return nil, err
		}
		set := task.Set{Task: tasks[0]}
		if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != ref.SHA256 {
			return nil, fmt.Errorf("task %s: the documents have hash %x, want %s", ref.Name, sum, ref.SHA256)
		}
		if err := json.Unmarshal(text, &set.Documents); err != nil {
			return nil, fmt.Errorf("task %s: %w", ref.Name, err)
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// engines returns who has computed cells of r, and which, in the order of the table.
// Cells of this program's own grids do not say.
func (r *ModelReport) engines() (by []string, cells map[string][]string) {
	cells = map[string][]string{}
	for _, c := range append([]Cell{r.Dense}, r.Cells...) {
		if c.Provenance == nil {
			continue
		}
		name := Dense
		if c.Method != Dense {
			name = fmt.Sprintf("%s at %s", c.Method, c.Pattern)
		}
		who := c.Provenance.By()
		by = appendNew(by, who)
		cells[who] = append(cells[who], name)
	}
	return by, cells
}

// sameEngine returns an error if cells come from different engines or programs.
func (r *ModelReport) sameEngine() error {
	by, cells := r.engines()
	if len(by) < 2 {
		return nil
	}
	var parts []string
	for _, who := range by {
		parts = append(parts, fmt.Sprintf("%s (%s)", who, strings.Join(cells[who], ", ")))
	}
	return fmt.Errorf("%s: cells come from different engines or programs: %s; have all computed by one with --again and workers of one kind, or leave out --same-engine", r.Model, strings.Join(parts, "; "))
}

// report is what is known before a cell is.
func (g *runner) report() *ModelReport {
	rep := &ModelReport{
		Model: g.Name, Architecture: g.M.Config.Architecture, Compute: g.M.Engine().Compute().String(),
		Data: g.Evaluation.Source, Windows: len(g.Evaluation.Tokens), SeqLen: g.Evaluation.SeqLen, BOS: g.Evaluation.BOS,
	}
	if g.Verify != nil {
		rep.Verification = g.Verify.Source
	}
	return rep
}
