package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/queue"
	"github.com/crepe-llm/crepe/session"
)

type searchFlags struct {
	candidateFlags
	objective string
	sampler   string
	trials    int
	top       int
}

func newSearch(a *app) *cobra.Command {
	var f searchFlags
	c := &cobra.Command{
		Use:   "search MODEL [flags]",
		Short: "Find CRePE's coefficients for a model in minutes",
		Long: `Find the coefficients of --method crepe for MODEL (PHO; CRePE, section 4).

Stage 1 rates --trials candidates by --objective:

  perplexity    prune the whole model by the norms of inputs as the default coefficients
                leave them, gathered once for all candidates, and measure perplexity
                on ` + strconv.Itoa(pho.Few) + ` windows. It searches all of the score: α, β, γ, δ, the power, what
                compares, and α, β and the power of each kind of Linear.
  full          prune in full and measure on all windows; the paper's baseline.
  gini_pruned   the paper's proxy: the Gini coefficient of the scores of the weights
                pruned in the first query Linear. It searches the paper's α, β, γ. Like
                every proxy, it is held against perplexity on a dozen candidates first
                and not followed unless the two go together.

Stage 2 tries the --top best on more windows, and with them, always, the default
coefficients, Wanda, RIA and the built-in recipe of the nearest known model. The best
are pruned in full until the others cannot win with ` + fmt.Sprintf("%.4g %%", 100*pho.Confidence) + ` confidence. The best
candidate's recipe is written for crepe prune --recipe, for this or another model.

Perplexity is measured on windows of the calibration text that share no text with
the calibration sequences, or on --verify SOURCE. Verifying on a test set selects
on it, and the result says so.

Every result is kept in the --study file: run the same command again to continue an
interrupted search. With --store workers (crepe worker) measure, on any number of
machines; the result is that of one process.`,
		Example: `  crepe search demo
  crepe search ./llama-3.2-1b --pattern 2:4 --calibration c4
  crepe search demo --kernels 3,5,7,9,11 --trials 100 -o ./demo-pho
  crepe prune ./other --recipe ./demo-pho-50.recipe.yaml`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return a.search(c.Context(), args[0], &f, c.Flags()) },
	}
	f.add(c.Flags())
	a.addDevice(c)
	complete(c, map[string][]string{
		"objective": pho.Objectives(), "sampler": search.Names(), "compute": computeNames, "calibration": sourceNames, "verify": sourceNames,
	})
	return c
}

func (f *searchFlags) add(fl *pflag.FlagSet) {
	fl.SortFlags = false
	p := &f.prune
	f.addPattern(fl)
	fl.IntVar(&f.trials, "trials", pho.DefaultTrials, "candidates to rate")
	fl.StringVar(&f.objective, "objective", pho.Perplexity, "what candidates are rated by: "+strings.Join(pho.Objectives(), ", "))
	fl.IntVar(&f.top, "top", 0, fmt.Sprintf("candidates to verify, beside those that always are (default %d, of a proxy %d)", pho.TopOf(pho.Perplexity), pho.TopOf(pho.GiniPruned)))
	fl.StringVar(&f.sampler, "sampler", "", fmt.Sprintf("%s (default %s, of a proxy %s)", strings.Join(search.Names(), ", "), pho.SamplerOf(pho.Perplexity), pho.SamplerOf(pho.GiniPruned)))
	fl.StringVar(&f.kernels, "kernels", strconv.Itoa(pho.DefaultKernel), "width of the neighbourhood; a list searches among several: "+widths.Allowed())
	fl.Uint64Var(&f.seed, "search-seed", 0, "seed for the sampler")
	fl.StringVar(&f.study, "study", "", "study file, which also names the recipe (default: MODEL's name with pho and sparsity, .study)")
	f.shared.add(fl, "measurements")
	fl.StringVarP(&p.output, "output", "o", "", "folder for the model pruned by the best candidate (default: write only the recipe)")
	f.addText(fl)
	fl.BoolVar(&p.overwrite, "overwrite", false, "replace the output folder and the recipe")
	fl.BoolVar(&p.json, "json", false, "print one JSON object on stdout, everything else on stderr")
	addReport(fl, &p.report)
}

// search runs the subcommand.
func (a *app) search(ctx context.Context, name string, f *searchFlags, fl *pflag.FlagSet) error {
	started := time.Now()
	if err := setThreads(f.prune.threads); err != nil {
		return err
	}
	opt, err := f.options(name, fl)
	if err != nil {
		return err
	}
	opt.Name, opt.Objective, opt.Trials = "search", f.objective, f.trials
	opt.Sampler, opt.Top = cmp.Or(f.sampler, pho.SamplerOf(f.objective)), f.top
	if !fl.Changed("top") {
		opt.Top = min(pho.TopOf(f.objective), f.trials)
	}
	if err := opt.Validate(); err != nil {
		return usageError{err}
	}
	if err := checkSeed(opt.Recipe.Calibration, fl.Changed); err != nil {
		return err
	}
	base, err := defaultOutput(name, recipe.Recipe{Method: "pho", Sparsity: opt.Recipe.Sparsity, Pattern: opt.Recipe.Pattern})
	if err != nil {
		return err
	}
	rep := searchReport{Study: cmp.Or(f.study, base+studySuffix), Output: f.prune.output}
	rep.Recipe = prune.RecipePath(cmp.Or(f.prune.output, strings.TrimSuffix(rep.Study, studySuffix)))
	if err := checkReport(f.prune.report, rep.Study, rep.Recipe, rep.Output); err != nil {
		return err
	}
	if f.shared.store == "" && exists(rep.Recipe) && !exists(rep.Study) && !f.prune.overwrite {
		return fmt.Errorf("recipe %s: exists already, and belongs to another study: replace it with --overwrite", rep.Recipe)
	}
	meter := a.startMeter()
	defer meter.finish()
	c, err := a.openCandidates(ctx, name, base, &f.candidateFlags, opt, func(o *session.Session) error { return a.checkSearch(o, &opt, f, base) })
	if err != nil {
		return err
	}
	defer c.Close()
	c.opt.Known = pho.Nearest(c.Model, opt.Recipe)
	c.opt.Leaders = a.startBoard(meter).leaders
	res, err := pho.Search(ctx, c.Model, c.opt)
	if err != nil {
		return a.stopped(ctx, err, c.path)
	}
	meter.finish()
	if err := a.finishSearch(ctx, c, meter, f, res, rep); err != nil {
		return err
	}
	rep.fill(res, c)
	rep.Study = c.path
	rep.Seconds = time.Since(started).Seconds()
	results := []string{rep.Study}
	if rep.Output != "" {
		results = append(results, rep.Output)
	}
	if err := finishReport(ctx, f.prune.report, results...); err != nil {
		return err
	}
	if f.prune.json {
		return json.NewEncoder(a.stdout).Encode(rep)
	}
	return a.showSearch(rep)
}

// checkSearch refuses what pruning by the winner would refuse in the end.
func (a *app) checkSearch(o *session.Session, opt *pho.Options, f *searchFlags, base string) error {
	p := a.pruneOptions(o, opt.RecipeOf(pho.Equal(opt.Kernels[0])), f, base)
	var err error
	if p.Calibration, _, err = o.Loader().Prospect(p.Recipe.Calibration, p.Recipe.Eval); err != nil {
		return err
	}
	plan, err := prune.MakePlan(o.Inventory, o.Model, p)
	if err != nil || f.prune.output == "" {
		return err
	}
	p.Overwrite = p.Overwrite || exists(prune.RecipePath(p.Output)) && !exists(p.Output) // this study's, as is known
	if p.Resume, err = checkpoint.Partial(p.Output); err != nil {                        // the search continues it in the end
		return err
	}
	if !p.Resume {
		p.Resume, err = madeByCandidate(p.Output, opt)
	}
	if err != nil {
		return err
	}
	return plan.Check(o.Inventory, p)
}

// madeByCandidate reports whether the folder output is a model that this program has
// pruned by a candidate of the search. Whether that is the best is known in the end.
func madeByCandidate(output string, opt *pho.Options) (bool, error) {
	m, err := prune.ReadManifest(output)
	if err != nil || m.Program == nil {
		return false, nil // what it is instead, the check of the output says
	}
	program, err := provenance.This()
	if err != nil || *m.Program != program {
		return false, err
	}
	made := m.Recipe
	c, err := pho.Of(made)
	if err != nil {
		return false, nil // of another method
	}
	candidate := opt.RecipeOf(c)
	candidate.Calibration, candidate.Eval, candidate.Compute = made.Calibration, made.Eval, made.Compute
	return made.Equal(candidate), nil
}

// pruneOptions are those that a recipe is carried out with. A search measures by
// itself.
func (a *app) pruneOptions(o *session.Session, r recipe.Recipe, f *searchFlags, base string) prune.Options {
	r.Eval.Source = "none"
	return prune.Options{
		Recipe: r, Model: o.Name, Output: cmp.Or(f.prune.output, base), Overwrite: f.prune.overwrite,
		Memory: int64(f.prune.memory), Warn: a.warn,
	}
}

// stopped is err of a study in the file at path.
func (a *app) stopped(ctx context.Context, err error, path string) error {
	if ctx.Err() != nil && queue.IsURL(path) {
		return interruptedError{context.Canceled, "the orders stay in " + path + ": run the same command again to see what becomes of them, or crepe store cancel to end them"}
	}
	if ctx.Err() != nil {
		return interruptedError{context.Canceled, "finished work is kept in " + path + ": run the same command again to continue"}
	}
	return err
}

// finishSearch writes the recipe, and the model if asked for.
func (a *app) finishSearch(ctx context.Context, c *candidates, meter *meter, f *searchFlags, res *pho.Result, rep searchReport) error {
	best := c.opt.RecipeOf(res.Best.Coefficients)
	yaml, err := best.YAML()
	if err != nil {
		return err
	}
	// The recipe beside a finished output says what the output was made by.
	if _, err := prune.ReadManifest(f.prune.output); f.prune.output == "" || f.prune.overwrite || err != nil {
		// A store does not say what an earlier run here has found.
		if was, err := recipe.Read(rep.Recipe); f.shared.store != "" && !f.prune.overwrite && exists(rep.Recipe) && (err != nil || !was.Equal(best)) {
			return fmt.Errorf("recipe %s: exists already, and is another than what the search has found: replace it with --overwrite; the results are kept in %s", rep.Recipe, c.path)
		}
		if err := fsys.WriteFile(rep.Recipe, yaml); err != nil {
			return fmt.Errorf("recipe: %w", err)
		}
	}
	if f.prune.output == "" {
		return nil
	}
	opt := a.pruneOptions(c.Session, best, f, "")
	opt.Calibration, opt.Progress = c.opt.Calibration, meter.update
	opt.Resume = true // the recipe there is the one just written
	_, err = prune.Run(ctx, c.Inventory, c.Model, opt)
	meter.finish()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return a.stopped(ctx, err, c.path)
	}
	return err
}
