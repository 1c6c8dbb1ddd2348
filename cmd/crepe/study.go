package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
)

type studyFlags struct {
	candidateFlags
	configs int
	csv     string
}

// studyReport is what crepe study --json prints.
type studyReport struct {
	Model string `json:"model"`
	*pho.StudyResult
	Verification string  `json:"verification"`
	Compute      string  `json:"compute"`
	Seconds      float64 `json:"seconds"`
	Study        string  `json:"study"`
	CSV          string  `json:"csv"` // the scatter
}

func newStudy(a *app) *cobra.Command {
	var f studyFlags
	c := &cobra.Command{
		Use:   "study MODEL [flags]",
		Short: "Measure how well the search's proxies predict perplexity",
		Long: `Prune MODEL with --configs random sets of CRePE's coefficients, and correlate
the perplexities with five proxies measured at the first query Linear (CRePE,
Table 2): the share of scores above 5 times their mean among all, the retained
and the pruned weights, and the Gini coefficient of the retained and the pruned.

For each proxy, print Spearman's ρ and its two-sided p-value. A CSV file holds all
configurations for plotting. Each is kept in the --study file: run the same command
again to continue an interrupted study, also with more --configs. With --store
workers (crepe worker) compute them, on any number of machines.`,
		Example: `  crepe study demo --configs 40
  crepe study ./llama-3.2-1b --pattern 2:4 --calibration c4 --verify wikitext2`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return a.study(c.Context(), args[0], &f, c.Flags()) },
	}
	f.add(c.Flags())
	a.addDevice(c)
	complete(c, map[string][]string{"compute": computeNames, "calibration": sourceNames, "verify": sourceNames})
	return c
}

func (f *studyFlags) add(fl *pflag.FlagSet) {
	fl.SortFlags = false
	fl.IntVar(&f.configs, "configs", pho.DefaultConfigs, "number of sets of coefficients")
	f.addPattern(fl)
	fl.StringVar(&f.kernels, "kernels", strconv.Itoa(pho.DefaultKernel), "width of the neighbourhood; each set takes one at random from a list: "+widths.Allowed())
	fl.Uint64Var(&f.seed, "search-seed", 0, "seed for sampling coefficients")
	fl.StringVar(&f.study, "study", "", "study file (default: MODEL's name with proxies and sparsity, .study)")
	f.shared.add(fl, "configurations")
	fl.StringVar(&f.csv, "csv", "", "file for the configurations (default: the study file's name, .csv)")
	f.addText(fl)
	fl.BoolVar(&f.prune.json, "json", false, "print one JSON object on stdout, everything else on stderr")
	addReport(fl, &f.prune.report)
}

// study runs the subcommand.
func (a *app) study(ctx context.Context, name string, f *studyFlags, fl *pflag.FlagSet) error {
	started := time.Now()
	if err := setThreads(f.prune.threads); err != nil {
		return err
	}
	opt, err := f.options(name, fl)
	if err != nil {
		return err
	}
	opt.Name, opt.Objective, opt.Sampler, opt.Trials, opt.Top = "study", pho.Full, "random", f.configs, 1
	if err := cmp.Or(within("configs", f.configs, pho.LeastConfigs, pho.MaxTrials), opt.Validate()); err != nil {
		return usageError{err}
	}
	if err := checkSeed(opt.Recipe.Calibration, fl.Changed); err != nil {
		return err
	}
	base, err := defaultOutput(name, recipe.Recipe{Method: "proxies", Sparsity: opt.Recipe.Sparsity, Pattern: opt.Recipe.Pattern})
	if err != nil {
		return err
	}
	rep := studyReport{Model: name, Study: cmp.Or(f.study, base+studySuffix)}
	rep.CSV = cmp.Or(f.csv, strings.TrimSuffix(rep.Study, studySuffix)+".csv")
	if samePath(rep.CSV, rep.Study) {
		return usageError{fmt.Errorf("--csv: %s is the study file, want another", rep.CSV)}
	}
	if err := checkReport(f.prune.report, rep.Study, rep.CSV); err != nil {
		return err
	}
	if exists(rep.CSV) && !exists(rep.Study) {
		return fmt.Errorf("--csv: %s: exists already, and belongs to another study", rep.CSV)
	}
	meter := a.startMeter()
	defer meter.finish()
	c, err := a.openCandidates(ctx, name, base, &f.candidateFlags, opt, func(o *session.Session) error {
		p := prune.Options{Recipe: opt.RecipeOf(pho.Equal(opt.Kernels[0])), Output: base, Memory: int64(f.prune.memory)}
		p.Recipe.Eval.Source = "none"
		var err error
		if p.Calibration, _, err = o.Loader().Prospect(p.Recipe.Calibration, p.Recipe.Eval); err != nil {
			return err
		}
		_, err = prune.MakePlan(o.Inventory, o.Model, p)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	rep.StudyResult, err = pho.Study(ctx, c.Model, c.opt, f.configs, func(n int, cfg pho.Config) {
		if !meter.live {
			a.note("configuration %d: perplexity %s, Gini of the pruned %.6f at %s", n+1, cfg.Perplexity.Text(4), cfg.GiniPruned, cfg.Coefficients)
		}
	})
	if err != nil {
		return a.stopped(ctx, err, c.path)
	}
	meter.finish()
	if err := writeScatter(rep.CSV, rep.Configs); err != nil {
		return fmt.Errorf("--csv: %w", err)
	}
	rep.Study = c.path
	rep.Verification, rep.Compute, rep.Seconds = c.opt.Verify.Source, c.Model.Engine().Compute().String(), time.Since(started).Seconds()
	if err := finishReport(ctx, f.prune.report, rep.Study); err != nil {
		return err
	}
	if f.prune.json {
		return json.NewEncoder(a.stdout).Encode(rep)
	}
	return a.showStudy(rep)
}

// writeScatter writes a line a configuration.
func writeScatter(path string, configs []pho.Config) error {
	var text bytes.Buffer
	lines := [][]string{append(append([]string{"alpha", "beta", "gamma", "kernel"}, pho.ProxyNames...), "perplexity")}
	for _, c := range configs {
		line := []string{number(c.Alpha), number(c.Beta), number(c.Gamma), strconv.Itoa(c.Kernel)}
		for _, v := range append(c.Proxies.List(), float64(c.Perplexity)) {
			line = append(line, number(v))
		}
		lines = append(lines, line)
	}
	if err := csv.NewWriter(&text).WriteAll(lines); err != nil {
		return err
	}
	return fsys.WriteFile(path, text.Bytes())
}

// number is v as briefly as it can be read back.
func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func (a *app) showStudy(rep studyReport) error {
	w := a.table()
	fmt.Fprintln(w, "proxy\tSpearman's ρ\tp")
	for _, p := range rep.Proxies {
		if p.Correlation == nil {
			fmt.Fprintf(w, "%s\t–\t–\n", p.Proxy) // the same for all
			continue
		}
		fmt.Fprintf(w, "%s\t%+.3f\t%.2g\n", p.Proxy, p.Rho, p.P)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	low, high := rep.Configs[0].Perplexity, rep.Configs[0].Perplexity
	for _, c := range rep.Configs {
		low, high = min(low, c.Perplexity), max(high, c.Perplexity)
	}
	_, err := fmt.Fprintf(a.text(), "\nperplexity  %s to %s over %d configurations  (%s, %d windows of %d tokens, %s)\nproxies at  %s\ntime        %.1f s\nscatter     %s\n",
		low.Text(4), high.Text(4), len(rep.Configs), rep.Verification, rep.Windows, rep.SeqLen, rep.Compute, rep.Linear, rep.Seconds, rep.CSV)
	return err
}
