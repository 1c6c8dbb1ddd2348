package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/grid"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
)

type compareFlags struct {
	candidateFlags
	taskFlags
	methods, patterns      string
	recipes                []string
	objective, trials, top string
	frontier, again        bool
	shared                 sharedFlags
	format                 string
	sameEngine             bool
}

func newCompare(a *app) *cobra.Command {
	var f compareFlags
	c := &cobra.Command{
		Use:   "compare MODEL... [flags]",
		Short: "Compare methods and patterns on one or several models",
		Long: `Prune every MODEL with every method at every pattern, and print a table of
perplexities, and of zero-shot accuracies with --tasks.

--methods takes the names of crepe prune's --method, with steps after "+": in
"crepe+sparsegpt", SparseGPT updates the weights of crepe's mask. The steps are

  ` + strings.Join(recipe.StepNames(), ", ") + `

"pho" is crepe with the coefficients that crepe search finds, without steps, for the
model and the pattern. --trials and --top are the search's budget; lists of both
make a row for each pair. --kernels makes a row for each width of the neighbourhood,
for every method that has one. --recipe FILE adds a row: the file sets method, steps
and parameters, the grid sets pattern, texts and --compute.

A method that fits none of the patterns is refused before work begins. One that fits
some of them has "–" for the others, and the reason below the table.

--frontier packs every model as crepe pack does, with values of bf16 (the weights' own
type), int8 and int4, the dense model too, and prints their size, tokens a second, perplexity
and KL divergence from the dense model, sorted by size. Rows that no other dominates are
marked. The dense model runs in turn with each, so that a busy machine harms both.

With --store the cells are computed by workers (crepe worker), on any number of
machines. This command may be ended and begun again, also elsewhere.

Every finished cell is kept in the --study file. This build of crepe, at this
instruction level, does not compute it again, in this grid or another, unless --again
asks for it. So run the same command again to continue an interrupted grid; another
--format costs nothing. Each pruned model is written beside the study file, measured,
and removed.`,
		Example: `  crepe compare demo
  crepe compare demo --methods ria,crepe,pho --patterns 50%,2:4
  crepe compare ./llama-2-7b ./llama-3-8b --methods wanda,sparsegpt,crepe+sparsegpt --patterns 2:4
  crepe compare demo --methods crepe --kernels 3,5,7,9,11 --patterns 50%
  crepe compare demo --methods pho --trials 60,30 --top 10,5 --patterns 50% --format csv
  crepe compare ./llama-3.2-1b --methods crepe --frontier
  crepe compare ./model --methods crepe --recipe ./found.recipe.yaml --tasks rte,boolq`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("no MODEL, want %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return a.compare(c.Context(), args, &f, c.Flags()) },
	}
	f.add(c.Flags())
	a.addDevice(c)
	complete(c, map[string][]string{
		"compute": computeNames, "calibration": sourceNames, "verify": sourceNames, "eval": sourceNames, "format": grid.Formats,
	})
	return c
}

func (f *compareFlags) add(fl *pflag.FlagSet) {
	fl.SortFlags = false
	p := &f.prune
	fl.StringVar(&f.methods, "methods", "magnitude,wanda,ria,crepe", "methods, with steps: wanda,crepe+sparsegpt,pho (with --recipe, no default)")
	fl.StringVar(&f.patterns, "patterns", "50%,60%,70%,2:4,4:8", "sparsities and N:M (with --frontier "+frontierPatterns+")")
	fl.BoolVar(&f.frontier, "frontier", false, "measure size, speed, perplexity and KL divergence of every model, the dense one too, with bf16, int8 and int4 values in packed form")
	fl.StringArrayVar(&f.recipes, "recipe", nil, "recipe file that adds a row; may be repeated")
	fl.StringVar(&f.kernels, "kernels", "", "widths of the neighbourhood, a row for each: "+widths.Allowed()+" (default: the method's own)")
	fl.StringVar(&f.trials, "trials", strconv.Itoa(pho.DefaultTrials), "pho: candidates to rate; a list makes several rows")
	fl.StringVar(&f.top, "top", "", fmt.Sprintf("pho: candidates to verify; a list needs as many numbers as --trials (default %d, of a proxy %d)", pho.TopOf(pho.Perplexity), pho.TopOf(pho.GiniPruned)))
	fl.StringVar(&f.objective, "objective", pho.Perplexity, "pho: what candidates are rated by, a list makes several rows: "+strings.Join(pho.Objectives(), ", "))
	fl.StringVar(&f.verify, "verify", "", "pho: SOURCE to verify candidates on (default: held-out windows of the calibration text)")

	fl.StringVar(&p.eval, "eval", "", `SOURCE to measure perplexity on (default "demo" for the demo model, otherwise "wikitext2")`)
	fl.IntVar(&p.windows, "windows", 0, "evaluate on the first N windows (default: all; 64 for the demo text)")
	fl.StringVar(&f.tasks, "tasks", "", "tasks to measure accuracy on too, such as rte,boolq")
	fl.StringVar(&f.dir, "tasks-data", "", "folder with the tasks' data (default: the datasets on the hub, cached)")
	fl.IntVar(&f.limit, "limit", 0, "use only the first N documents of each task (0: all)")
	fl.StringVar(&f.bos, "bos", task.Auto.String(), "begin the tasks' texts with the BOS token: on, off, or auto (as the tokenizer does)")

	fl.StringVar(&p.calibration, "calibration", "", `SOURCE of calibration text (default "demo" for the demo model, otherwise "c4")`)
	fl.IntVar(&p.samples, "samples", recipe.DefaultSamples, "calibration sequences")
	fl.IntVar(&p.seqLen, "seqlen", recipe.DefaultSeqLen, "tokens per calibration sequence and per evaluation window, at most the model's maximum")
	fl.Int64Var(&p.seed, "seed", 0, "seed for sampling calibration sequences")
	fl.StringVar(&p.r.Fused, "fused", recipe.DefaultFused, "score fused matrices (qkv_proj, gate_up_proj) whole, or split as in models that do not fuse")
	fl.StringVar(&p.r.Skip, "skip", "", "regular expression: Linears whose name it matches stay dense")

	fl.StringVar(&f.study, "study", "crepe-compare"+studySuffix, "file that keeps finished cells")
	fl.BoolVar(&f.again, "again", false, "compute the cells of this grid again")
	f.shared.add(fl, "cells")
	fl.BoolVar(&f.sameEngine, "same-engine", false, "--store: refuse a grid whose cells come from different engines or programs")
	f.addMachine(fl)
	fl.StringVar(&f.format, "format", grid.Formats[0], strings.Join(grid.Formats, ", "))
	fl.BoolVar(&p.json, "json", false, "--format json: one JSON object on stdout")
	addReport(fl, &p.report)
}

// frontierPatterns are the default of --patterns with --frontier.
const frontierPatterns = "30%,40%,50%,60%,70%"

// compareWindows are those that searches verify on.
const compareWindows = session.DemoWindows

// options returns the grid that the flags describe, without texts and store. Of
// models the first names the defaults of texts.
func (f *compareFlags) options(given func(string) bool) (grid.Options, error) {
	opt := grid.Options{Frontier: f.frontier, Again: f.again, SameEngine: f.sameEngine, Memory: int64(f.prune.memory)}
	if err := f.shared.check(given, f.prune.report); err != nil {
		return opt, err
	}
	if f.frontier {
		switch {
		case f.shared.store != "":
			return opt, errors.New("--frontier: not with --store, as speeds are of one machine")
		case given("tasks"):
			return opt, errors.New("--frontier: not with --tasks; crepe eval --tasks measures a packed folder")
		case !given("patterns"):
			f.patterns = frontierPatterns
		}
	}
	if f.prune.json {
		if given("format") && f.format != "json" {
			return opt, fmt.Errorf("--json and --format %s: want one of the two", f.format)
		}
		f.format = "json"
	}
	if !slices.Contains(grid.Formats, f.format) {
		return opt, fmt.Errorf("--format: %q, want one of %s", f.format, strings.Join(grid.Formats, ", "))
	}
	var kernels []int
	if f.kernels != "" {
		var err error
		if kernels, err = parseKernels(f.kernels); err != nil {
			return opt, err
		}
	}
	budgets, err := parseBudgets(f.objective, f.trials, f.top)
	if err != nil {
		return opt, err
	}
	if given("methods") || len(f.recipes) == 0 {
		if opt.Rows, err = grid.ParseRows(strings.Split(f.methods, ","), kernels, budgets); err != nil {
			return opt, fmt.Errorf("--methods: %w", err)
		}
	} else if err := noEffect(given, "there are no --methods, and a recipe says its own", "kernels"); err != nil {
		return opt, err
	}
	for i, path := range f.recipes {
		if slices.Contains(f.recipes[:i], path) {
			return opt, fmt.Errorf("--recipe: %s: listed twice", path)
		}
		r, err := recipe.Read(path)
		if err != nil {
			return opt, fmt.Errorf("--recipe: %w", err)
		}
		name := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".yaml"), ".recipe")
		if slices.ContainsFunc(f.recipes, func(other string) bool { return other != path && filepath.Base(other) == filepath.Base(path) }) {
			name = path
		}
		opt.Rows = append(opt.Rows, grid.Row{Name: name + " (" + r.Spec() + ")", Recipe: r})
	}
	if !searches(opt.Rows) {
		if err := noEffect(given, "no method of the grid is "+grid.PHOName, "trials", "top", "objective", "verify"); err != nil {
			return opt, err
		}
	}
	if opt.Patterns, err = grid.ParsePatterns(strings.Split(f.patterns, ",")); err != nil {
		return opt, fmt.Errorf("--patterns: %w", err)
	}
	if opt.BOS, err = task.ParseBOS(f.bos); err != nil {
		return opt, fmt.Errorf("--bos: %w", err)
	}
	return opt, nil
}

// searches reports whether coefficients are to be searched for.
func searches(rows []grid.Row) bool {
	return slices.ContainsFunc(rows, func(r grid.Row) bool { return r.Budget != nil })
}

// parseBudgets reads "60,30" and "10,5" as pairs, for each objective.
func parseBudgets(objectives, trials, top string) ([]grid.Budget, error) {
	var out []grid.Budget
	for _, objective := range strings.Split(objectives, ",") {
		objective = strings.TrimSpace(objective)
		if !slices.Contains(pho.Objectives(), objective) {
			return nil, fmt.Errorf("--objective %s: unknown objective %q, want some of %s", objectives, objective, strings.Join(pho.Objectives(), ", "))
		}
		a, b := strings.Split(trials, ","), strings.Split(top, ",")
		if top != "" && len(a) != len(b) {
			return nil, fmt.Errorf("--trials and --top: %d and %d numbers, want equally many: each pair makes a row", len(a), len(b))
		}
		for i := range a {
			n, err := strconv.Atoi(strings.TrimSpace(a[i]))
			k := min(pho.TopOf(objective), n)
			if err == nil && top != "" {
				k, err = strconv.Atoi(strings.TrimSpace(b[i]))
			}
			if err != nil || k < 1 || n < k {
				return nil, fmt.Errorf("--trials %s --top %s: want whole numbers, --top at least 1 and --trials at least --top", trials, top)
			}
			out = append(out, grid.Budget{Objective: objective, Trials: n, Top: k})
		}
	}
	return out, nil
}

// compare runs the subcommand.
func (a *app) compare(ctx context.Context, models []string, f *compareFlags, fl *pflag.FlagSet) error {
	if err := cmp.Or(setThreads(f.prune.threads), f.taskFlags.check(fl.Changed), checkReport(f.prune.report, f.study)); err != nil {
		return err
	}
	opt, err := f.options(fl.Changed)
	if err != nil {
		return usageError{err}
	}
	bases := make([]recipe.Recipe, len(models)) // texts' defaults are a model's
	for i, name := range models {
		if slices.Contains(models[:i], name) {
			return usageError{fmt.Errorf("model %s: listed twice", name)}
		}
		if bases[i], err = f.prune.merge(name, fl); err != nil {
			return err
		}
		if bases[i].Eval.Source == "none" {
			return usageError{errors.New("--eval: none, want a text: compare measures perplexity")}
		}
		if err := grid.Check(opt.Rows, bases[i], opt.Patterns); err != nil {
			return usageError{err}
		}
		if searches(opt.Rows) || grid.NeedsData(opt.Rows, bases[i], opt.Patterns) {
			err = checkSeed(bases[i].Calibration, fl.Changed)
		} else {
			err = noEffect(fl.Changed, "no method of the grid reads a calibration text", "calibration", "samples", "seed")
		}
		if err != nil {
			return err
		}
	}
	meter := a.startMeter()
	defer meter.finish()
	if opt.Tasks, err = a.loadTasks(ctx, f.taskFlags); err != nil {
		return err
	}
	db, name, err := a.openStore(ctx, f.shared.store, f.study)
	if err != nil {
		return err
	}
	defer db.Close()
	opt.Store, opt.Scratch = db, strings.TrimSuffix(f.study, studySuffix)+".cells"
	opt.Progress, opt.Warn = meter.update, a.warn
	rep := grid.Report{Patterns: opt.Patterns}
	for _, r := range opt.Rows {
		rep.Methods = append(rep.Methods, r.Name)
	}
	all := make([]grid.Model, len(models)) // opened before the first is measured: what is missing is known early
	for i, name := range models {
		opt.Base = bases[i]
		o, err := a.open(ctx, name, a.options(bases[i].Compute, opt.Memory))
		if err != nil {
			return err
		}
		defer o.Close()
		if all[i], err = gridModel(ctx, o, f, opt); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	opened := make([]*model.Model, len(all))
	for i, m := range all {
		opened[i] = m.M
	}
	if err := checkFused(bases[0], fl.Changed, opened...); err != nil {
		return err
	}
	for i, m := range all {
		opt.Base, opt.Done, opt.Point = bases[i], a.cellDone(m.Name, meter), a.pointDone(m.Name, meter)
		r, err := grid.Run(ctx, m, opt)
		if err != nil {
			return a.stopped(ctx, err, name)
		}
		rep.Models = append(rep.Models, *r)
	}
	meter.finish()
	if err := finishReport(ctx, f.prune.report, f.study); err != nil {
		return err
	}
	out := a.stdout
	if f.format == grid.Formats[0] { // Markdown, for people
		out = a.text()
	}
	return rep.Write(out, f.format)
}

// gridModel is o with its texts.
func gridModel(ctx context.Context, o *session.Session, f *compareFlags, opt grid.Options) (grid.Model, error) {
	m := grid.Model{Name: o.Name, Dir: o.Dir, Inv: o.Inventory, M: o.Model}
	var err error
	if m.ID, err = digest(o); err != nil {
		return m, err
	}
	return m, gatherGrid(ctx, o, f, &m, opt)
}

// cellDone returns a function that prints the result of each cell of a model.
func (a *app) cellDone(model string, meter *meter) func(grid.Cell) {
	started := time.Now()
	return func(c grid.Cell) {
		meter.finish()
		took := fmt.Sprintf("%.1f s", time.Since(started).Seconds())
		switch {
		case c.Kept:
			took = "kept"
		case c.Provenance != nil:
			took = c.Provenance.By()
		}
		started = time.Now()
		if c.Refused != "" {
			a.note("%s, %s at %s: –, %s", model, c.Method, c.Pattern, c.Refused)
			return
		}
		a.note("%s, %s at %s: perplexity %s (%s)", model, c.Method, c.Pattern, c.Perplexity.Perplexity.Text(4), took)
	}
}

// pointDone returns a function that prints each point of a model's frontier.
func (a *app) pointDone(model string, meter *meter) func(grid.Point) {
	started := time.Now()
	return func(p grid.Point) {
		meter.finish()
		took := fmt.Sprintf("%.1f s", time.Since(started).Seconds())
		if p.Kept {
			took = "kept"
		}
		started = time.Now()
		a.note("%s, %s, %s: %s, %.4g tokens/s, %.2f of dense, KL %s (%s)", model, p.Name(), p.Values, formatBytes(p.Bytes), p.Decode, p.Ratio(), p.KL.Text(4), took)
	}
}

// gatherGrid loads the token windows that the grid reads.
func gatherGrid(ctx context.Context, o *session.Session, f *compareFlags, m *grid.Model, opt grid.Options) error {
	var err error
	if m.Evaluation, err = o.Loader().Evaluation(ctx, opt.Base.Eval); err != nil {
		return fmt.Errorf("--eval: %w", err)
	}
	switch {
	case searches(opt.Rows):
		of := f.candidateFlags
		of.prune.windows = compareWindows
		p := pho.Options{Recipe: opt.Base}
		if err := gatherSearch(ctx, o, &of, &p); err != nil {
			return err
		}
		m.Calibration, m.Verify = p.Calibration, p.Verify
	case grid.NeedsData(opt.Rows, opt.Base, opt.Patterns):
		if m.Calibration, err = o.Loader().Calibration(ctx, opt.Base.Calibration); err != nil {
			return fmt.Errorf("--calibration: %w", err)
		}
	}
	return nil
}
