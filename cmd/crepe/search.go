package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/store"
)

type searchFlags struct {
	prune   pruneFlags // of which those that a search has are declared
	sampler string
	trials  int
	top     int
	kernels string
	study   string
	verify  string
	seed    uint64
}

// searchReport is what crepe search --json prints.
type searchReport struct {
	pho.Result
	Verification string  `json:"verification"` // the text, and what it is
	Seconds      float64 `json:"seconds"`
	Recipe       string  `json:"recipe"`
	Output       string  `json:"output,omitempty"`
}

func newSearch(a *app) *cobra.Command {
	var f searchFlags
	c := &cobra.Command{
		Use:   "search MODEL [flags]",
		Short: "Find CRePE's coefficients for a model in minutes",
		Long: `Find the coefficients of --method crepe for MODEL (PHO; CRePE, section 4).

Stage 1 rates --trials candidates by the Gini coefficient of the scores of the
weights they prune in the first query Linear, which needs no model pass.
Stage 2 prunes the whole model with RIA, with equal coefficients and with the
--top best rated, and measures perplexity; a candidate that cannot win with
` + fmt.Sprintf("%.4g %%", 100*pho.Confidence) + ` confidence is given up early. The recipe of the best is written for
crepe prune --recipe, for this or another model.

Perplexity is measured on windows of the calibration text that share nothing
with those that calibrate, or on --verify SOURCE. To verify on a test set is to
select on it, and the result says so.

Every result is kept in the --study file: an interrupted search goes on with
the same command. --sampler hillclimb prunes the whole model in each trial.`,
		Example: `  crepe search demo
  crepe search ./llama-3.2-1b --pattern 2:4 --calibration c4
  crepe search demo --kernels 3,5,7,9,11 --trials 100 -o ./demo-pho
  crepe prune ./other --recipe ./demo-pho-50.recipe.yaml`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return a.search(c.Context(), args[0], &f, c.Flags()) },
	}
	f.add(c.Flags())
	return c
}

func (f *searchFlags) add(fl *pflag.FlagSet) {
	fl.SortFlags = false
	p := &f.prune
	fl.StringVar(&p.r.Sparsity, "sparsity", recipe.DefaultSparsity, "share of weights to prune: 50% or 0.5")
	fl.StringVar(&p.r.Pattern, "pattern", "", "N:M instead: N of every M weights along a row are kept (2:4, 4:8, …)")
	fl.IntVar(&f.trials, "trials", pho.DefaultTrials, "candidates to rate")
	fl.IntVar(&f.top, "top", pho.DefaultTop, "of them, to verify beside RIA and equal coefficients")
	fl.StringVar(&f.sampler, "sampler", search.Names()[0], strings.Join(search.Names(), ", "))
	fl.StringVar(&f.kernels, "kernels", strconv.Itoa(pho.DefaultKernel), "width of the neighbourhood; several to search among: 3,5,7,9,11")
	fl.Uint64Var(&f.seed, "search-seed", 0, "of the sampler")
	fl.StringVar(&f.study, "study", "", "file of the study (default MODEL's name with sparsity, .study)")
	fl.StringVar(&f.verify, "verify", "", "SOURCE that the best are verified on (default held-out windows of the calibration text)")
	fl.StringVarP(&p.output, "output", "o", "", "folder to write the model to, pruned by the best (default: only the recipe)")
	fl.StringVar(&p.r.Skip, "skip", "", "leave Linears dense whose name this regular expression matches")
	fl.StringVar(&p.calibration, "calibration", "", `SOURCE of calibration text (default "demo" for the demo model, else "c4")`)
	fl.IntVar(&p.samples, "samples", recipe.DefaultSamples, "calibration sequences")
	fl.IntVar(&p.seqLen, "seqlen", recipe.DefaultSeqLen, "tokens a sequence and a window; at most what the model takes")
	fl.Int64Var(&p.seed, "seed", 0, "of the drawing of calibration sequences")
	fl.IntVar(&p.windows, "windows", demoWindows, "windows to verify on")
	fl.StringVar(&p.r.Compute, "compute", recipe.DefaultCompute, "type of the products' inputs: f32, bf16, or auto (bf16 if checkpoint and processor have it)")
	fl.IntVar(&p.threads, "threads", 0, "cores to use (0: all); the result does not depend on it")
	fl.BoolVar(&p.overwrite, "overwrite", false, "replace the output folder")
	fl.BoolVar(&p.json, "json", false, "print one JSON object on stdout, everything else on stderr")
}

// options returns the search that the flags describe, without texts and store.
func (f *searchFlags) options(model string, fl *pflag.FlagSet) (pho.Options, error) {
	opt := pho.Options{Sampler: f.sampler, Trials: f.trials, Top: f.top, Seed: f.seed}
	for _, s := range strings.Split(f.kernels, ",") {
		k, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || slices.Contains(opt.Kernels, k) {
			return opt, usageError{fmt.Errorf("--kernels: %q, want different numbers among 3, 5, 7, 9 and 11", f.kernels)}
		}
		opt.Kernels = append(opt.Kernels, k)
	}
	slices.Sort(opt.Kernels)
	if err := atLeast("windows", f.prune.windows, 8); err != nil {
		return opt, err
	}
	var err error
	if opt.Recipe, err = f.prune.merge(model, fl); err != nil {
		return opt, err
	}
	if err := opt.Validate(); err != nil {
		return opt, usageError{err}
	}
	return opt, nil
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
	base, err := defaultOutput(name, recipe.Recipe{Method: "pho", Sparsity: opt.Recipe.Sparsity, Pattern: opt.Recipe.Pattern})
	if err != nil {
		return err
	}
	meter := a.startMeter()
	defer meter.finish()
	o, err := a.open(ctx, name, meter)
	if err != nil {
		return err
	}
	defer o.Close()
	if o.m.Compute, err = compute(opt.Recipe.Compute, o); err != nil {
		return err
	}
	if free := sysinfo.Memory() / 2; free > 0 {
		if experts, block := o.m.FitBlocks(free); experts > 0 {
			return fmt.Errorf("%w: a search holds a whole block, %s, want at most %s", prune.ErrMemory, formatBytes(block), formatBytes(free))
		}
	}
	if err := a.gatherSearch(ctx, o, meter, f, &opt); err != nil {
		return err
	}
	hashes, err := o.inv.Hashes(func(done, total int64) {})
	if err != nil {
		return err
	}
	opt.Model = digest(hashes)
	path := cmp.Or(f.study, base+".study")
	db, err := store.Open(ctx, path)
	if err != nil {
		return fmt.Errorf("--study: %w", err)
	}
	defer db.Close()
	opt.Store, opt.Progress, opt.Warn = db, meter.update, a.warn
	opt.Leaders = a.leaders(meter)
	res, err := pho.Search(ctx, o.m, opt)
	if err != nil {
		if ctx.Err() != nil {
			return interruptedError{context.Canceled, "what is done is kept in " + path + ": the same command goes on"}
		}
		return err
	}
	meter.finish()
	rep := searchReport{Result: *res, Verification: opt.Verify.Source, Recipe: base + ".recipe.yaml", Output: f.prune.output}
	best := opt.RecipeOf(res.Best.Coefficients)
	if err := a.finishSearch(ctx, o, meter, f, opt, best, rep); err != nil {
		return err
	}
	rep.Seconds = time.Since(started).Seconds()
	if f.prune.json {
		return json.NewEncoder(a.stdout).Encode(rep)
	}
	return a.showSearch(rep, o)
}

// gatherSearch loads the token windows.
func (a *app) gatherSearch(ctx context.Context, o *opened, meter *meter, f *searchFlags, opt *pho.Options) error {
	l := a.loader(o, meter)
	c := opt.Recipe.Calibration
	samples := c.Samples
	if f.verify == "" {
		const spare = 4 // times as many are drawn: some share text with the others
		c.Samples += spare * f.prune.windows
	}
	set, err := l.Calibration(ctx, c)
	if err != nil {
		return fmt.Errorf("--calibration: %w", err)
	}
	if f.verify == "" {
		opt.Calibration, opt.Verify, err = pho.HeldOut(set, samples, f.prune.windows)
		return err
	}
	opt.Calibration = set
	opt.Verify, err = l.Evaluation(ctx, recipe.Eval{Source: f.verify, SeqLen: f.prune.seqLen, Windows: f.prune.windows})
	if err != nil {
		return fmt.Errorf("--verify: %w", err)
	}
	if f.verify == "wikitext2" || f.verify == demoName {
		opt.Verify.Source += " (selection on the test set)"
	}
	return nil
}

// digest is one hash of many.
func digest(hashes map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		fmt.Fprintln(h, name, hashes[name])
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// leaders reports the state of a search now and then.
func (a *app) leaders(meter *meter) func(int, []pho.Candidate) {
	return func(stage int, c []pho.Candidate) {
		if stage == 1 {
			return // its progress is shown; a stage of seconds
		}
		meter.clearLine()
		b := c[0]
		a.warn("verified %d: best perplexity %.4f at %s", len(c), b.Perplexity, b.Normalized())
	}
}

// finishSearch writes the recipe, and the model if asked for.
func (a *app) finishSearch(ctx context.Context, o *opened, meter *meter, f *searchFlags, opt pho.Options, best recipe.Recipe, rep searchReport) error {
	yaml, err := best.YAML()
	if err != nil {
		return err
	}
	if err := os.WriteFile(rep.Recipe, yaml, 0o666); err != nil {
		return fmt.Errorf("recipe: %w", err)
	}
	if f.prune.output == "" {
		return nil
	}
	_, err = prune.Run(ctx, o.inv, o.m, prune.Options{
		Recipe: best, Model: o.name, Output: f.prune.output, Overwrite: f.prune.overwrite,
		Calibration: opt.Calibration, Progress: meter.update, Warn: a.warn,
	})
	meter.finish()
	return err
}

// showSearch prints the result for a person.
func (a *app) showSearch(rep searchReport, o *opened) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "perplexity\tα\tβ\tγ\tkernel\tGini\t\n")
	for _, c := range rep.Verified {
		showCandidate(w, c)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "\nbest        %.4f, RIA %.4f  (%s, %d windows, %s)\ntime        %.1f s, %d trials\nrecipe      %s\n",
		rep.Best.Perplexity, rep.RIA.Perplexity, rep.Verification, rep.Best.Windows, o.m.Compute, rep.Seconds, rep.Trials, filepath.Clean(rep.Recipe))
	if err == nil && rep.Output != "" {
		_, err = fmt.Fprintf(a.stdout, "output      %s\n", rep.Output)
	}
	return err
}

func showCandidate(w io.Writer, c pho.Candidate) {
	n := c.Normalized()
	perplexity, note := fmt.Sprintf("%.4f", c.Perplexity), ""
	switch {
	case c.GivenUp:
		perplexity, note = "–", fmt.Sprintf("given up after %d windows", c.Windows) // theirs compares with nothing
	case n.Gamma == 0 && n.Alpha == n.Beta:
		note = "RIA"
	}
	fmt.Fprintf(w, "%s\t%.4f\t%.4f\t%.4f\t%d\t%.6f\t%s\n", perplexity, n.Alpha, n.Beta, n.Gamma, c.Kernel, c.Gini, note)
}
