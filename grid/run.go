package grid

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pho"
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

	Progress progress.Func
	Warn     func(format string, args ...any)
	Done     func(c Cell) // is called after each cell
}

// study is the name of a grid in its store.
const study = "grid"

// The kinds of its records.
const (
	perplexityKind = "perplexity" // value: measured
	taskKind       = "task"       // value: a task.Result
	searchKind     = "search"     // value: found
)

// measured is what is kept of a cell.
type measured struct {
	What     string      `json:"what"` // for people
	Result   eval.Result `json:"result"`
	Sparsity float64     `json:"sparsity"`
	Seconds  float64     `json:"seconds"`
}

// found is what is kept of a search.
type found struct {
	Best    pho.Candidate `json:"best"`
	Seconds float64       `json:"seconds"`
}

type runner struct {
	Model
	opt    Options
	study  search.Study
	kept   map[string]map[string]string // by kind and key
	budget int64                        // bytes; 0: not known
	tasks  []string                     // keys of opt.Tasks
	bos    bool                         // of tasks
	fresh  map[string]bool              // keys of what this run has computed itself
}

// Run measures one model of a grid. A cell that its pattern or its shapes refuse
// says why; any other error ends the run, and what is finished is kept.
func Run(ctx context.Context, m Model, opt Options) (*ModelReport, error) {
	g := &runner{Model: m, opt: opt, budget: opt.Memory, kept: map[string]map[string]string{}, fresh: map[string]bool{}}
	if g.budget == 0 {
		g.budget = sysinfo.Budget()
	}
	if err := g.recall(ctx); err != nil {
		return nil, err
	}
	rep := &ModelReport{
		Model: m.Name, Architecture: m.M.Config.Architecture, Compute: m.M.Compute.String(),
		Data: m.Evaluation.Source, Windows: len(m.Evaluation.Tokens), SeqLen: m.Evaluation.SeqLen, BOS: m.Evaluation.BOS,
	}
	if m.Verify != nil {
		rep.Verification = m.Verify.Source
	}
	var err error
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
	_ = os.Remove(opt.Scratch) // if it is empty
	return rep, nil
}

// recall reads what an earlier run has finished.
func (g *runner) recall(ctx context.Context) error {
	var err error
	if g.study, err = g.opt.Store.Study(ctx, study, nil); err != nil {
		return err
	}
	for _, kind := range []string{perplexityKind, taskKind, searchKind} {
		records, err := g.study.Records(ctx, kind)
		if err != nil {
			return err
		}
		g.kept[kind] = map[string]string{}
		for _, r := range records {
			g.kept[kind][r.Key] = r.Value
		}
	}
	for _, s := range g.opt.Tasks {
		text, err := json.Marshal(s.Documents)
		if err != nil {
			return err
		}
		g.tasks = append(g.tasks, hash(s.Task.Name, g.opt.BOS.String(), string(text)))
	}
	if len(g.opt.Tasks) > 0 {
		e, err := task.NewEncoder(g.M, g.Inv.Config(), g.Dir, g.opt.BOS)
		if err != nil {
			return err
		}
		g.bos = e.BOS()
	}
	return nil
}

// hash identifies parts.
func hash(parts ...string) string {
	text, err := json.Marshal(parts)
	if err != nil {
		panic(fmt.Sprintf("grid: hash: %v", err))
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])[:24]
}

// get reads the record of a kind and key into v, if there is one that counts.
func (g *runner) get(kind, key string, v any) (bool, error) {
	text, ok := g.kept[kind][key]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal([]byte(text), v); err != nil {
		return false, fmt.Errorf("%s of cell %s: %w", kind, key, err)
	}
	return true, nil
}

// put keeps v, whoever has lost patience meanwhile.
func (g *runner) put(ctx context.Context, kind, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
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

// dense measures the model as it came.
func (g *runner) dense(ctx context.Context) (Cell, error) {
	key := hash(prune.Version, cpu.Current().String(), g.M.Compute.String(), g.ID, g.Evaluation.SHA256())
	if err := g.drop(ctx, key); err != nil {
		return Cell{}, err
	}
	c := Cell{Method: Dense}
	return c, g.measure(ctx, &c, key, g.Name+", dense", func() (*Model, func(), error) { return &g.Model, func() {}, nil })
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
	key, err := g.key(r)
	if err != nil {
		return c, err
	}
	if err := g.drop(ctx, key); err != nil {
		return c, err
	}
	folder := filepath.Join(g.opt.Scratch, key)
	err = g.measure(ctx, &c, key, fmt.Sprintf("%s, %s at %s", g.Name, row.Name, pattern), func() (*Model, func(), error) {
		return g.prune(ctx, r, folder)
	})
	c.Seconds += searched
	if err == nil {
		err = os.RemoveAll(folder)
	}
	return c, err
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

// key identifies a cell by all that its numbers depend on.
func (g *runner) key(r recipe.Recipe) (string, error) {
	resolved, err := r.Resolve()
	if err != nil {
		return "", err
	}
	r.Compute = ""
	calibration := ""
	if resolved.Method.NeedsData {
		calibration = g.Calibration.SHA256()
	}
	r.Calibration = recipe.Calibration{}
	text, err := r.YAML()
	if err != nil {
		return "", err
	}
	return hash(prune.Version, cpu.Current().String(), g.M.Compute.String(), g.ID, string(text), calibration, g.Evaluation.SHA256()), nil
}

// prune returns the model pruned by r, written to folder, or what an interrupted
// run has left of it.
func (g *runner) prune(ctx context.Context, r recipe.Recipe, folder string) (*Model, func(), error) {
	output := filepath.Join(folder, "model")
	if _, err := prune.ReadManifest(output); err != nil {
		if err := os.MkdirAll(folder, 0o777); err != nil {
			return nil, nil, err
		}
		if _, err := prune.Run(ctx, g.Inv, g.M, g.pruneOptions(r, output)); err != nil {
			if part := (*prune.IncompleteError)(nil); errors.As(err, &part) {
				err = part.Err // this command goes on by itself
			}
			return nil, nil, err
		}
	}
	inv, err := checkpoint.Open(output)
	if err != nil {
		return nil, nil, err
	}
	m, err := model.Open(inv)
	if err != nil {
		inv.Close()
		return nil, nil, err
	}
	m.Compute = g.M.Compute
	pruned := g.Model
	pruned.Inv, pruned.M, pruned.Dir = inv, m, output
	return &pruned, func() { inv.Close() }, nil
}

// measure fills in what c lacks; open makes the model, if anything is lacking.
func (g *runner) measure(ctx context.Context, c *Cell, key, what string, open func() (*Model, func(), error)) error {
	started := time.Now()
	var was measured
	have, err := g.get(perplexityKind, key, &was)
	if err != nil {
		return err
	}
	c.Tasks = make([]task.Result, len(g.opt.Tasks))
	var missing []int
	for i := range g.opt.Tasks {
		ok, err := g.get(taskKind, key+" "+g.tasks[i], &c.Tasks[i])
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
		if g.budget > 0 {
			m.M.ExpertBytes, _ = m.M.FitBlocks(g.budget / 2)
		}
		if !have {
			was = measured{What: what, Seconds: seconds}
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
	if g.budget > 0 && hidden.Bytes(len(e.Tokens), e.SeqLen, m.M.Width()) > g.budget/2 {
		opt.SpillDir = filepath.Dir(g.opt.Scratch)
	}
	return eval.Perplexity(ctx, m.M, e.Tokens, opt)
}

func (g *runner) ask(ctx context.Context, m *Model, set task.Set) (task.Result, error) {
	e, err := task.NewEncoder(m.M, m.Inv.Config(), m.Dir, g.opt.BOS)
	if err != nil {
		return task.Result{}, err
	}
	answers, err := task.Run(ctx, m.M, e, []task.Set{set}, task.Options{Bytes: g.budget / 2, Progress: g.opt.Progress})
	if err != nil {
		return task.Result{}, err
	}
	return task.Summarize(set.Task.Name, answers[0]), nil
}

// search finds coefficients of crepe for a row at a pattern, without the row's
// steps.
func (g *runner) search(ctx context.Context, row Row, pattern string) (found, error) {
	started := time.Now()
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
		Recipe: base, Sampler: search.Names()[0], Trials: row.Budget.Trials, Top: row.Budget.Top, Kernels: []int{kernel}, Seed: g.opt.Seed,
		Calibration: g.Calibration, Verify: g.Verify, Store: g.opt.Store, Model: g.ID,
		Progress: g.opt.Progress, Warn: g.opt.Warn,
	}
	parts := []string{fmt.Sprint(*row.Budget)}
	for _, f := range opt.Fields(g.M.Compute) {
		parts = append(parts, f.Name, f.Value)
	}
	key := hash(parts...)
	opt.Name = "search " + key
	if g.opt.Again && !g.fresh[key] {
		if err := errors.Join(g.study.Remove(ctx, searchKind, key), g.opt.Store.Forget(ctx, opt.Name)); err != nil {
			return found{}, err
		}
		delete(g.kept[searchKind], key)
	}
	var f found
	if ok, err := g.get(searchKind, key, &f); ok || err != nil {
		return f, err
	}
	g.M.ExpertBytes = 0
	if err := opt.Fit(g.M, g.opt.Memory, filepath.Dir(g.opt.Scratch)); err != nil {
		return f, err
	}
	res, err := pho.Search(ctx, g.M, opt)
	if err != nil {
		return f, err
	}
	f = found{Best: res.Best, Seconds: time.Since(started).Seconds()}
	return f, g.put(ctx, searchKind, key, f)
}
