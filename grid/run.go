package grid

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/windows"
)

// Model is one model of a grid, opened.
type Model struct {
	Name, Dir   string
	ID          string // identifies the weights: a hash
	Inv         *checkpoint.Inventory
	M           *model.Model
	Calibration *windows.Set // nil only if no row needs it
	Verify      *windows.Set // nil only if no row searches
	Evaluation  *windows.Set
}

// Options of a grid, for all its models.
type Options struct {
	Rows     []Row
	Patterns []string
	Base     recipe.Recipe // what is the same for all cells
	Tasks    []task.Set
	BOS      task.BOS
	Seed     uint64 // of searches

	Store   search.Store
	Scratch string // folder for pruned models until they are measured, beside the store
	Memory  int64  // budget in bytes; 0: what the system has to give
	Again   bool   // compute what is in the store once more

	// Frontier has every cell measured once more for each kind of stored values, in
	// packed form. A Store that is a search.Queue has none: speeds are of one machine.
	Frontier bool

	SameEngine bool // refuse cells of different engines; of a Store that is a search.Queue

	Progress progress.Func
	Warn     func(format string, args ...any)
	Done     func(c Cell)  // is called after each cell
	Point    func(p Point) // and after each point of a frontier; may be nil
}

type runner struct {
	Model
	opt     Options
	study   search.Study
	kept    map[string]map[string]string // by kind and key
	origins map[string][]origin          // of what an earlier run has kept, by kind
	program string                       // the beginning of its hash
	budget  int64                        // bytes; 0: not known
	tasks   []string                     // keys of opt.Tasks
	bos     bool                         // of tasks
	fresh   map[string]bool              // keys of what this run has computed itself
	points  []Point                      // of the frontier
}

func newRunner(m Model, opt Options) (*runner, error) {
	g := &runner{Model: m, opt: opt, budget: opt.Memory, kept: map[string]map[string]string{}, origins: map[string][]origin{}, fresh: map[string]bool{}}
	if g.budget == 0 {
		g.budget = sysinfo.Budget()
	}
	program, err := provenance.This()
	if err != nil {
		return nil, err
	}
	g.program = program.SHA256[:programDigits]
	return g, nil
}

// Run measures one model of a grid, or has others measure it if the Store is a
// search.Queue. A cell that its pattern or its shapes refuse says why; any other error
// ends the run, and what is finished is kept.
func Run(ctx context.Context, m Model, opt Options) (*ModelReport, error) {
	g, err := newRunner(m, opt)
	if err != nil {
		return nil, err
	}
	if q, ok := opt.Store.(search.Queue); ok {
		return g.share(ctx, q)
	}
	if opt.Frontier && slices.ContainsFunc(m.Inv.Tensors(), m.Inv.Packed) {
		return nil, fmt.Errorf("%s: packed already, want the plain model to pack for the frontier", m.Name)
	}
	if err := g.recall(ctx); err != nil {
		return nil, err
	}
	if err := g.warnOutdated(); err != nil {
		return nil, err
	}
	if err := g.sweep(time.Now()); err != nil {
		return nil, err
	}
	rep := g.report()
	if rep.Dense, err = g.dense(ctx); err != nil {
		return nil, fmt.Errorf("%s, dense: %w", m.Name, err)
	}
	for _, row := range opt.Rows {
		for _, p := range opt.Patterns {
			c, err := g.cell(ctx, row, p)
			if err != nil {
				return nil, fmt.Errorf("%s, %s at %s: %w", m.Name, row.Name, p, err)
			}
			rep.Cells = append(rep.Cells, c)
			opt.Done(c)
		}
	}
	rep.TasksBOS = g.bos
	Rank(g.points)
	rep.Frontier = g.points
	if err := fsys.Remove(opt.Scratch); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return nil, err // it is empty, and stays
	}
	return rep, nil
}

// dense measures the model as it came.
func (g *runner) dense(ctx context.Context) (Cell, error) {
	c := Cell{Method: Dense}
	rec, err := g.provenance()
	if err != nil {
		return c, err
	}
	if err := g.drop(ctx, key(rec)); err != nil {
		return c, err
	}
	from, open := origin{g.what(Row{Name: Dense}, ""), rec}, func() (*Model, func(), error) { return &g.Model, func() {}, nil }
	if err := g.measure(ctx, &c, from, open); err != nil {
		return c, err
	}
	folder := g.folder(key(rec))
	if err := g.frontier(ctx, &c, from, folder, open); err != nil {
		return c, err
	}
	return c, fsys.RemoveAll(folder)
}

// cell prunes and measures, or finds that done.
func (g *runner) cell(ctx context.Context, row Row, pattern string) (Cell, error) {
	c := Cell{Method: row.Name, Pattern: pattern}
	r := row.at(g.opt.Base, pattern)
	refused, err := g.check(r)
	if err != nil || refused != nil {
		c.Refused = fmt.Sprint(refused)
		return c, err
	}
	searched := 0.0
	if row.Budget != nil {
		f, err := g.search(ctx, row, pattern)
		if err != nil {
			return c, fmt.Errorf("search: %w", err)
		}
		c.Found, searched = &f.Best, f.Seconds
		r = f.Best.Coefficients.Of(r)
	}
	c.Recipe = &r
	rec, err := g.cellProvenance(r)
	if err != nil {
		return c, err
	}
	if err := g.drop(ctx, key(rec)); err != nil {
		return c, err
	}
	folder := g.folder(key(rec))
	from, open := origin{g.what(row, pattern), rec}, func() (*Model, func(), error) { return g.prune(ctx, r, folder) }
	if err := g.measure(ctx, &c, from, open); err != nil {
		return c, err
	}
	c.Seconds += searched
	if err := g.frontier(ctx, &c, from, folder, open); err != nil {
		return c, err
	}
	return c, fsys.RemoveAll(folder)
}

// check returns why a cell cannot be, if it cannot.
func (g *runner) check(r recipe.Recipe) (refused, err error) {
	if _, err := r.Resolve(); err != nil {
		return err, nil
	}
	_, err = prune.MakePlan(g.Inv, g.M, g.pruneOptions(r, "none"))
	if err == nil || errors.Is(err, prune.ErrMemory) {
		return nil, err
	}
	return err, nil
}

func (g *runner) pruneOptions(r recipe.Recipe, output string) prune.Options {
	return prune.Options{
		Recipe: r, Model: g.Name, Output: output, Calibration: g.Calibration,
		Memory: g.opt.Memory, Progress: g.opt.Progress, Warn: g.opt.Warn, Resume: true,
	}
}

// prune returns the model pruned by r, written to folder, or what an interrupted
// run has left of it.
func (g *runner) prune(ctx context.Context, r recipe.Recipe, folder string) (*Model, func(), error) {
	output := filepath.Join(folder, "model")
	if _, err := prune.ReadManifest(output); err != nil {
		if err := cmp.Or(fsys.MkdirAll(folder, 0o777), fsys.OwnDir(folder)); err != nil {
			return nil, nil, err
		}
		if _, err := prune.Run(ctx, g.Inv, g.M, g.pruneOptions(r, output)); err != nil {
			if part := (*prune.IncompleteError)(nil); errors.As(err, &part) {
				err = part.Err // this command goes on by itself
			}
			return nil, nil, err
		}
	}
	return g.open(output)
}

// measure fills in what c lacks; open makes the model, if anything is lacking.
func (g *runner) measure(ctx context.Context, c *Cell, from origin, open func() (*Model, func(), error)) error {
	started := time.Now()
	key := key(from.Provenance)
	var was measured
	have, err := get(g, perplexityKind, key, &was)
	if err != nil {
		return err
	}
	c.Tasks = make([]task.Result, len(g.opt.Tasks))
	var missing []int
	for i := range g.opt.Tasks {
		ok, err := get(g, taskKind, key+" "+g.tasks[i], &c.Tasks[i])
		if err != nil {
			return err
		}
		if !ok {
			missing = append(missing, i)
		}
	}
	if c.Kept = have && len(missing) == 0; !c.Kept {
		m, done, err := open()
		if err != nil {
			return err
		}
		defer done()
		seconds := time.Since(started).Seconds()
		fitted := *m
		fitted.M = g.within(m.M)
		m = &fitted
		if !have {
			was = measured{origin: from, Seconds: seconds}
			if c.Method != Dense {
				manifest, err := prune.ReadManifest(m.Dir)
				if err != nil {
					return err
				}
				was.Sparsity = manifest.Sparsity.Measured
			}
			if was.Result, err = g.perplexity(ctx, m); err != nil {
				return err
			}
			if err := g.put(ctx, perplexityKind, key, was); err != nil {
				return err
			}
		}
		for _, i := range missing {
			if c.Tasks[i], err = g.ask(ctx, m, g.opt.Tasks[i]); err != nil {
				return err
			}
			if err := g.put(ctx, taskKind, key+" "+g.tasks[i], c.Tasks[i]); err != nil {
				return err
			}
		}
	}
	c.Perplexity, c.Sparsity, c.Seconds = &was.Result, was.Sparsity, was.Seconds
	return nil
}

func (g *runner) perplexity(ctx context.Context, m *Model) (eval.Result, error) {
	e := m.Evaluation
	opt := eval.Options{Progress: g.opt.Progress}
	opt.States = eval.PlaceFor(m.M, len(e.Tokens), e.SeqLen, 1, g.budget, filepath.Dir(g.opt.Scratch))
	return eval.Perplexity(ctx, m.M, e.Tokens, opt)
}

// within returns m with its blocks' weights held to what they may take, if that is known.
func (g *runner) within(m *model.Model) *model.Model {
	room := g.statesBytes(m)
	if g.budget > 0 {
		room = min(room, g.budget/2)
	}
	if room > 0 {
		return m.Within(room)
	}
	return m
}

// statesBytes returns what hidden states may take in the memory of m's engine.
func (g *runner) statesBytes(m *model.Model) int64 {
	if own, separate := engine.OwnMemory(m.Engine()); separate {
		return own / 2
	}
	return g.budget / 2
}

func (g *runner) ask(ctx context.Context, m *Model, set task.Set) (task.Result, error) {
	e, err := task.NewEncoder(m.M, m.Inv.Config(), m.Inv.ReadFile, m.Dir, g.opt.BOS)
	if err != nil {
		return task.Result{}, err
	}
	answers, err := task.Run(ctx, m.M, e, []task.Set{set}, task.Options{Bytes: g.statesBytes(m.M), Progress: g.opt.Progress})
	if err != nil {
		return task.Result{}, err
	}
	return task.Summarize(set.Task.Name, answers[0]), nil
}

// searchOptions returns the search of a row at a pattern, without the row's steps,
// and what it depends on.
func (g *runner) searchOptions(row Row, pattern string) (pho.Options, provenance.Record, error) {
	base := g.opt.Base.WithoutDefaults()
	base.Sparsity, base.Pattern = pattern, ""
	if strings.Contains(pattern, ":") {
		base.Sparsity, base.Pattern = "", pattern
	}
	kernel := pho.DefaultKernel
	if k, ok := row.Recipe.Params["kernel"]; ok {
		kernel = k.(int)
	}
	opt := pho.Options{
		Recipe: base, Objective: row.Budget.Objective, Sampler: pho.SamplerOf(row.Budget.Objective), Trials: row.Budget.Trials, Top: row.Budget.Top, Known: pho.Nearest(g.M, base), Kernels: []int{kernel}, Seed: g.opt.Seed,
		Calibration: g.Calibration, Verify: g.Verify, Store: g.opt.Store, Model: g.ID,
		Progress: g.opt.Progress, Warn: g.opt.Warn,
	}
	rec, err := opt.Provenance(g.M)
	rec = append(rec, provenance.Record{
		{Name: "trials", Value: strconv.Itoa(opt.Trials)}, {Name: "top", Value: strconv.Itoa(opt.Top)},
	}...)
	opt.Name = "search " + key(rec)
	return opt, rec, err
}

// search finds coefficients of crepe for a row at a pattern.
func (g *runner) search(ctx context.Context, row Row, pattern string) (found, error) {
	started := time.Now()
	opt, rec, err := g.searchOptions(row, pattern)
	if err != nil {
		return found{}, err
	}
	key := key(rec)
	if g.opt.Again && !g.fresh[key] {
		if err := errors.Join(g.study.Remove(ctx, searchKind, key), g.opt.Store.Forget(ctx, opt.Name)); err != nil {
			return found{}, err
		}
		delete(g.kept[searchKind], key)
	}
	var f found
	if ok, err := get(g, searchKind, key, &f); ok || err != nil {
		return f, err
	}
	if err := opt.Fit(g.M, g.opt.Memory, filepath.Dir(g.opt.Scratch)); err != nil {
		return f, err
	}
	res, err := pho.Search(ctx, g.M, opt)
	if err != nil {
		return f, err
	}
	f = found{origin: origin{g.what(row, pattern), rec}, Best: res.Best, Seconds: time.Since(started).Seconds()}
	return f, g.put(ctx, searchKind, key, f)
}
