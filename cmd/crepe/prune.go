package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/tensor"
)

type pruneFlags struct {
	output    string
	recipe    string
	preset    string
	memory    bytesFlag
	threads   int
	pack      valuesFlags
	dryRun    bool
	resume    bool
	overwrite bool
	json      bool
	report    string

	methodFlags
	r                        recipe.Recipe // what the flags below say
	calibration, eval        string
	samples, seqLen, windows int
	seed                     int64
}

func newPrune(a *app) *cobra.Command {
	var f pruneFlags
	c := &cobra.Command{
		Use:   "prune [MODEL] [flags]",
		Short: "Prune a model and measure perplexity before and after",
		Long: `Prune MODEL (default: demo) and write the result as a Hugging Face folder.

Pruning goes block by block: the calibration text runs through the dense block,
the weights of each Linear are scored, the lowest are set to zero, and the text
runs through the pruned block into the next. Memory holds one block, the next if
there is room, and the hidden states, which go to a file if they exceed --memory.
--resume continues an interrupted run, however it ended, and gives the same bytes;
it refuses a run of another build of crepe or another instruction level.

--pack writes the output in the packed form of crepe pack, and then measures size, memory,
tokens a second, perplexity and KL divergence beside MODEL's, as crepe bench does.

In a mixture of experts, each expert is scored on the tokens routed to it. An
expert that sees fewer than ` + strconv.Itoa(prune.MinTokens) + ` tokens is listed and pruned by magnitude. If --memory
has no room for a block's experts, they are read when tokens reach them.

Presets (--preset) choose method and steps by the time that you have:
` + recipe.PresetHelp() + `
Methods (--method):
` + methodHelp("method") + `
Rotations (--rotate) first write the dense model in other directions, beside the
output; it is removed at the end:
` + methodHelp("rotate") + `
Refinements of the selected mask (--refine):
` + methodHelp("refine") + `
Allocations (--allocate) give each block its own sparsity, after a pass through
the dense model:
` + methodHelp("allocate") + `
Permutations (--permute) order the columns of each Linear so that N:M keeps more
of the scores. The weights are written in their original order; crepe.json
records the new one.
` + methodHelp("permute") + `
Every run writes its recipe beside its output. --recipe FILE repeats the run or
applies it to another model; other flags override the file.`,
		Example: `  crepe prune                                          # the demo model, 50 %, CRePE
  crepe prune ./llama-3.2-1b -o ./sparse --pattern 2:4
  crepe prune org/name --method wanda --sparsity 60% --calibration c4
  crepe prune ./llama-3.2-1b -o ./packed --sparsity 60% --pack int8
  crepe prune ./big -o ./big-50 --calibration my.txt --memory 16GiB --dry-run
  crepe prune ./other --recipe ./sparse.recipe.yaml`,
		Args: argsBetween(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			name := session.Demo
			if len(args) == 1 {
				name = args[0]
			}
			return a.prune(c.Context(), name, &f, c.Flags())
		},
	}
	f.add(c.Flags())
	f.methodFlags.complete(c)
	a.addDevice(c)
	complete(c, map[string][]string{
		"pack":   valueNames(),
		"preset": recipe.PresetNames(), "compare": {"matrix", "row"}, "compute": computeNames,
		"calibration": sourceNames, "eval": append([]string{"none"}, sourceNames...),
	})
	return c
}

// add declares the flags. Defaults of the recipe are applied later, so that
// those not given leave a recipe file alone.
func (f *pruneFlags) add(fl *pflag.FlagSet) {
	fl.SortFlags = false
	fl.StringVarP(&f.output, "output", "o", "", "output folder (default: MODEL's name with method and sparsity)")
	fl.StringVar(&f.recipe, "recipe", "", "YAML file to take method, sparsity, calibration and the rest from")

	fl.StringVar(&f.preset, "preset", "", "method and steps for at most 1, 3 and 20 times the time of wanda: "+strings.Join(recipe.PresetNames(), ", "))

	f.methodFlags.add(fl)

	fl.StringVar(&f.r.Sparsity, "sparsity", recipe.DefaultSparsity, "share of weights to prune: 50% or 0.5")
	fl.StringVar(&f.r.Pattern, "pattern", "", "N:M instead: keep N of every M weights along a row (2:4, 4:8, …)")
	fl.StringVar(&f.r.Compare, "compare", "", "group in which weights compete: matrix or row (default: the method's own)")
	fl.StringVar(&f.r.Fused, "fused", recipe.DefaultFused, "score fused matrices (qkv_proj, gate_up_proj, Qwen3.5's in_proj_qkv and gated q_proj) whole, or split as in models that do not fuse")
	fl.StringVar(&f.r.Skip, "skip", "", "regular expression: Linears whose name it matches stay dense")

	fl.StringVar(&f.calibration, "calibration", "", `SOURCE of calibration text (default "demo" for the demo model, otherwise "c4")`)
	fl.IntVar(&f.samples, "samples", recipe.DefaultSamples, "calibration sequences")
	fl.IntVar(&f.seqLen, "seqlen", recipe.DefaultSeqLen, "tokens per calibration sequence and per evaluation window, at most the model's maximum")
	fl.Int64Var(&f.seed, "seed", 0, "seed for sampling calibration sequences")

	fl.StringVar(&f.eval, "eval", "", `SOURCE to measure perplexity on, or none (default "demo" for the demo model, otherwise "wikitext2")`)
	fl.IntVar(&f.windows, "windows", 0, "evaluate on the first N windows (default: all; 64 for the demo text)")

	fl.StringVar(&f.r.Compute, "compute", recipe.DefaultCompute, "type of matrix products' inputs: f32, bf16, or auto (bf16 if checkpoint and processor support it)")
	fl.IntVar(&f.threads, "threads", 0, "cores to use (0: all); the result does not depend on it")
	fl.Var(&f.memory, "memory", "memory budget, such as 16GiB; hidden states that exceed it go to a file (default 3/4 of the free memory)")
	f.pack.declare(fl, "pack", "", "write the output in packed form, as crepe pack does, with values of bf16 (their own type, whatever that is), int8 or int4, and measure it beside MODEL (default: plain)")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the plan, with its memory, disk space and time, and stop")
	fl.BoolVar(&f.resume, "resume", false, "continue an interrupted run")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace an output folder that crepe wrote, or what an interrupted run left there")
	fl.BoolVar(&f.json, "json", false, "print one JSON object on stdout, everything else on stderr")
	addReport(fl, &f.report)
}

// merge returns the recipe that file and flags make for model.
func (f *pruneFlags) merge(model string, fl *pflag.FlagSet) (recipe.Recipe, error) {
	var r recipe.Recipe
	if f.recipe != "" {
		var err error
		if r, err = recipe.Read(f.recipe); err != nil {
			return r, err
		}
		r = r.WithoutDefaults() // those of its method are not for another
	}
	given := fl.Changed
	set := func(name string, dst *string, v string) {
		if given(name) {
			*dst = v
		}
	}
	r = f.methodFlags.merge(r, fl)
	set("compare", &r.Compare, f.r.Compare)
	set("fused", &r.Fused, f.r.Fused)
	set("skip", &r.Skip, f.r.Skip)
	set("compute", &r.Compute, f.r.Compute)
	set("calibration", &r.Calibration.Source, f.calibration)
	set("eval", &r.Eval.Source, f.eval)
	switch {
	case given("sparsity") && given("pattern"):
		return r, usageError{errors.New("--sparsity and --pattern: want one of the two")}
	case given("sparsity"):
		r.Sparsity, r.Pattern = f.r.Sparsity, ""
	case given("pattern"):
		r.Sparsity, r.Pattern = "", f.r.Pattern
	}
	if f.preset != "" {
		if f.recipe != "" {
			return r, usageError{errors.New("--preset and --recipe: want one of the two")}
		}
		var err error
		if r, err = r.WithPreset(f.preset); err != nil {
			return r, usageError{fmt.Errorf("--preset: %w", err)}
		}
	}
	r = r.WithDefaults()
	err := cmp.Or(within("samples", f.samples, 1, recipe.MaxSamples), within("seqlen", f.seqLen, 2, recipe.MaxSeqLen),
		within("windows", f.windows, 0, recipe.MaxWindows), within("seed", int(f.seed), 0, math.MaxInt))
	if err != nil {
		return r, err
	}
	if given("samples") {
		r.Calibration.Samples = f.samples
	}
	if given("seqlen") {
		r.Calibration.SeqLen, r.Eval.SeqLen = f.seqLen, f.seqLen
	}
	if given("seed") {
		r.Calibration.Seed = f.seed
	}
	r = session.WithTexts(r, model)
	if given("windows") { // also 0, which is all
		r.Eval.Windows = f.windows
	}
	if _, err := r.Resolve(); err != nil {
		return r, usageError{err}
	}
	return r, nil
}

// prune runs the subcommand.
func (a *app) prune(ctx context.Context, name string, f *pruneFlags, fl *pflag.FlagSet) error {
	if err := cmp.Or(setThreads(f.threads), checkReport(f.report, f.output)); err != nil {
		return err
	}
	r, err := f.merge(name, fl)
	if err != nil {
		return err
	}
	if err := checkUsed(r, f.kinds, fl.Changed); err != nil {
		return err
	}
	packs := fl.Changed("pack")
	var form tensor.Integers
	switch {
	case packs:
		if form, err = f.pack.integers(fl, "pack"); err != nil {
			return err
		}
	case fl.Changed("group"):
		return usageError{errors.New("--group: it says how packed integers share scales; add --pack int8")}
	}
	if f.dryRun {
		if err := noEffect(fl.Changed, "with --dry-run there is no result to show", "report"); err != nil {
			return err
		}
	}
	meter := a.startMeter()
	defer meter.finish()
	s, err := a.open(ctx, name, a.options(r.Compute, int64(f.memory)))
	if err != nil {
		return err
	}
	defer s.Close()
	if err := checkFused(r, fl.Changed, s.Model); err != nil {
		return err
	}
	opt := prune.Options{Recipe: r, Output: f.output, Overwrite: f.overwrite, Resume: f.resume}
	if packs {
		opt.Pack = &form
	}
	if opt.Output == "" {
		if opt.Output, err = defaultOutput(name, r); err != nil {
			return err
		}
	}
	plan, err := s.Plan(&opt)
	if err != nil {
		return err
	}
	if f.overwrite {
		if err := a.noteReplaced(opt.Output, opt.Resume); err != nil {
			return err
		}
	}
	if f.dryRun {
		return a.showPlan(plan, s, opt, f.json)
	}
	if err := s.LoadTexts(ctx, &opt, !fl.Changed("eval") && f.recipe == ""); err != nil {
		return namingFlag(err)
	}
	if !f.json {
		a.announce(s, r, plan)
	}
	rep, err := prune.Run(ctx, s.Inventory, s.Model, opt)
	if err != nil {
		if ctx.Err() != nil {
			return interruptedError{context.Canceled, "finished blocks are kept: add --resume to the same command to continue"}
		}
		return err
	}
	if err := finishReport(ctx, f.report, opt.Output); err != nil {
		return err
	}
	result := pruned{Report: rep}
	if packs {
		result.Bench, err = a.benchPacked(ctx, s, opt)
		if ctx.Err() != nil {
			return interruptedError{context.Canceled, "the output is finished: crepe bench measures it"}
		}
		if err != nil { // the output is in its place, whatever becomes of this
			a.warn("the packed output is not measured: %v", err)
		}
	}
	meter.finish()
	if f.json {
		return json.NewEncoder(a.stdout).Encode(result)
	}
	if err := a.showReport(rep, s); err != nil || result.Bench == nil {
		return err
	}
	fmt.Fprintln(a.text())
	return a.showBench(result.Bench)
}

// pruned is what crepe prune --json prints.
type pruned struct {
	*prune.Report
	Bench *modelBench `json:"bench,omitempty"` // of a packed output beside the model
}

// benchPacked measures the packed output of a run beside its model, on the first windows
// of the run's own text.
func (a *app) benchPacked(ctx context.Context, dense *session.Session, opt prune.Options) (*modelBench, error) {
	s, err := a.open(ctx, opt.Output, a.options(opt.Recipe.Compute, opt.Memory))
	if err != nil {
		return nil, err
	}
	defer s.Close()
	set := opt.Evaluation
	if set != nil {
		first := *set
		first.Tokens = first.Tokens[:min(len(first.Tokens), benchWindows)]
		set = &first
	}
	return measureModels(ctx, []*session.Session{s, dense}, set)
}

// namingFlag puts the flag of a text before its error.
func namingFlag(err error) error {
	var t *session.TextError
	if errors.As(err, &t) {
		return fmt.Errorf("--%s: %w", t.Key, t.Err)
	}
	return err
}

// defaultOutput is "demo-crepe-50" or "llama-crepe-2of4", in the working folder.
func defaultOutput(model string, r recipe.Recipe) (string, error) {
	dir, _, _ := strings.Cut(model, "@")
	if _, err := os.Stat(model); err == nil { // a folder: "." has a name, too
		if dir, err = filepath.Abs(model); err != nil {
			return "", err
		}
	}
	amount := strings.ReplaceAll(r.Pattern, ":", "of")
	if amount == "" {
		s, err := pattern.ParseSparsity(r.Sparsity)
		if err != nil {
			return "", err
		}
		amount = strings.TrimSuffix(s.String(), "%")
	}
	method := r.Method
	if r.Rotate != "" {
		method = r.Rotate + "-" + method
	}
	if r.Refine != "" {
		method += "-" + r.Refine
	}
	if r.Update != "" {
		method += "-" + r.Update
	}
	if r.Rebuild != "" {
		method += "-" + r.Rebuild
	}
	if r.Allocate != "" {
		method += "-" + r.Allocate
	}
	if r.Permute != "" {
		method += "-" + r.Permute
	}
	return trimGGUF(filepath.Base(dir)) + "-" + method + "-" + amount, nil
}
