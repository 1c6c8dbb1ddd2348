package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/permute"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/update"
)

type pruneFlags struct {
	output    string
	recipe    string
	memory    bytesFlag
	threads   int
	dryRun    bool
	resume    bool
	overwrite bool
	json      bool

	r                         recipe.Recipe // what the flags below say
	alpha, beta, gamma, power float64
	kernel                    int
	owlLambda, owlM           float64
	dlpAlpha, alphaEpsilon    float64
	calibration, eval         string
	samples, seqLen, windows  int
	seed                      int64
}

func newPrune(a *app) *cobra.Command {
	var f pruneFlags
	c := &cobra.Command{
		Use:   "prune [MODEL] [flags]",
		Short: "Prune a model and measure perplexity before and after",
		Long: `Prune MODEL (default: demo) and write the result as a Hugging Face folder.

Block by block: calibration text runs through the dense block, each Linear's
weights are scored and the lowest are set to zero, the text runs through the
pruned block into the next. Memory holds one block and the hidden states;
those go to a file where they exceed --memory. A run that was interrupted, in
whatever way, goes on with --resume and gives the same bytes.

Of a mixture of experts each expert is scored on the tokens routed to it; one
that sees fewer than ` + strconv.Itoa(prune.MinTokens) + ` is named and pruned by magnitude. Where --memory has no room
for a block's experts, they are read when tokens reach them.

Methods (--method):
` + methodList() + `
Refinements of the mask that a method selects (--refine):
` + refineList() + `
Allocations (--allocate) give each block its own share of the sparsity, by a
pass through the dense model first:
` + allocationList() + `
Permutations (--permute) put the columns of each Linear in an order in which N:M
keeps more of the scores. The weights are written where they were; crepe.json
has the order.
` + permutationList() + `
The recipe of every run is written beside its output; --recipe FILE repeats it
or carries it to another model. Flags given beside it win.`,
		Example: `  crepe prune                                          # the demo model, 50 %, CRePE
  crepe prune ./llama-3.2-1b -o ./sparse --pattern 2:4
  crepe prune org/name --method wanda --sparsity 60% --calibration c4
  crepe prune ./big -o ./big-50 --calibration my.txt --memory 16GiB --dry-run
  crepe prune ./other --recipe ./sparse.recipe.yaml`,
		Args: argsBetween(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			name := demoName
			if len(args) == 1 {
				name = args[0]
			}
			return a.prune(c.Context(), name, &f, c.Flags())
		},
	}
	f.add(c.Flags())
	complete(c, map[string][]string{
		"refine": refine.Names(), "refine-layers": {string(refine.Attention), string(refine.All)},
		"method": methodNames(), "update": update.Names(), "compare": {"matrix", "row"}, "compute": computeNames,
		"allocate": allocate.Names(), "permute": permute.Names(), "dlp-center": {allocate.Mean, allocate.Median},
		"calibration": sourceNames, "eval": append([]string{"none"}, sourceNames...),
	})
	return c
}

// add declares the flags. Defaults of the recipe are applied later, so that
// those not given leave a recipe file alone.
func (f *pruneFlags) add(fl *pflag.FlagSet) {
	fl.SortFlags = false
	fl.StringVarP(&f.output, "output", "o", "", "folder to write (default MODEL's name with method and sparsity)")
	fl.StringVar(&f.recipe, "recipe", "", "take method, sparsity, calibration and the rest from this YAML file")

	fl.StringVar(&f.r.Method, "method", recipe.DefaultMethod, strings.Join(methodNames(), ", "))
	fl.StringVar(&f.r.Refine, "refine", "", "then exchange weights that go and stay, row by row: "+strings.Join(refine.Names(), ", "))
	fl.StringVar(&f.r.RefineLayers, "refine-layers", "", "Linears to refine: attention or all (default "+refineDefaults(func(m refine.Method) string { return string(m.Layers) })+")")
	fl.IntVar(&f.r.RefineCycles, "refine-cycles", 0, "exchanges a row at most (default "+refineDefaults(func(m refine.Method) string { return strconv.Itoa(m.Cycles) })+")")
	fl.StringVar(&f.r.Update, "update", "", "then change the weights that stay to make up for those that go: "+strings.Join(update.Names(), ", "))
	fl.Float64Var(&f.alpha, "alpha", 0, "crepe: coefficient of the row term (default 1)")
	fl.Float64Var(&f.beta, "beta", 0, "crepe: coefficient of the column term (default 1)")
	fl.Float64Var(&f.gamma, "gamma", 0, "crepe: coefficient of the neighbourhood term (default 1)")
	fl.IntVar(&f.kernel, "kernel", 0, "crepe: width of the neighbourhood: 3, 5, 7, 9 or 11 (default 9)")
	fl.Float64Var(&f.power, "power", 0, "ria, crepe: exponent of the activation norm (default 0.5)")

	fl.StringVar(&f.r.Allocate, "allocate", allocate.Uniform.Name, "spread the sparsity over the blocks: "+strings.Join(allocate.Names(), ", "))
	fl.Float64Var(&f.owlLambda, "owl-lambda", allocate.OWL.Defaults.Lambda, "owl: half the range of the blocks' shares")
	fl.Float64Var(&f.owlM, "owl-m", allocate.OWL.Defaults.M, "owl: scores above so many times their mean are outliers")
	fl.Float64Var(&f.dlpAlpha, "dlp-alpha", allocate.DLP.Defaults.Alpha, "dlp: half the range of the blocks' shares")
	fl.StringVar(&f.r.DLPCenter, "dlp-center", allocate.DLP.Defaults.Center, "dlp: mean or median of a block's scores")
	fl.Float64Var(&f.alphaEpsilon, "alphapruning-epsilon", allocate.AlphaPruning.Defaults.Epsilon, "alphapruning: shares go from 1−ε to 1+ε of the whole's")

	fl.StringVar(&f.r.Permute, "permute", "", "with N:M, put the columns of each Linear in a better order: "+strings.Join(permute.Names(), ", "))
	fl.BoolVar(&f.r.LSAFast, "lsa-fast", false, "lsa in 4 to 16 blocks of columns, each by itself")

	fl.StringVar(&f.r.Sparsity, "sparsity", recipe.DefaultSparsity, "share of weights to prune: 50% or 0.5")
	fl.StringVar(&f.r.Pattern, "pattern", "", "N:M instead: N of every M weights along a row are kept (2:4, 4:8, …)")
	fl.StringVar(&f.r.Compare, "compare", "", "weights compete within the whole matrix or each row (default the method's own)")
	fl.StringVar(&f.r.Fused, "fused", recipe.DefaultFused, "fused matrices (qkv_proj, gate_up_proj, Qwen3.5's in_proj_qkv and gated q_proj) are scored whole, or split as in models that do not fuse")
	fl.StringVar(&f.r.Skip, "skip", "", "leave Linears dense whose name this regular expression matches")

	fl.StringVar(&f.calibration, "calibration", "", `SOURCE of calibration text (default "demo" for the demo model, else "c4")`)
	fl.IntVar(&f.samples, "samples", recipe.DefaultSamples, "calibration sequences")
	fl.IntVar(&f.seqLen, "seqlen", recipe.DefaultSeqLen, "tokens a calibration sequence and an evaluation window; at most what the model takes")
	fl.Int64Var(&f.seed, "seed", 0, "of the drawing of calibration sequences")

	fl.StringVar(&f.eval, "eval", "", `SOURCE that perplexity is measured on, or none (default "demo" for the demo model, else "wikitext2")`)
	fl.IntVar(&f.windows, "windows", 0, "evaluate on the first N windows (default: all; 64 for the demo text)")

	fl.StringVar(&f.r.Compute, "compute", recipe.DefaultCompute, "type of the products' inputs: f32, bf16, or auto (bf16 if checkpoint and processor have it)")
	fl.IntVar(&f.threads, "threads", 0, "cores to use (0: all); the result does not depend on it")
	fl.Var(&f.memory, "memory", "memory budget, 16GiB; hidden states that exceed it go to a file (default 3/4 of what is free)")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and what memory, disk and time it would take")
	fl.BoolVar(&f.resume, "resume", false, "go on with an interrupted run")
	fl.BoolVar(&f.overwrite, "overwrite", false, "replace the output folder, or what an interrupted run left of it")
	fl.BoolVar(&f.json, "json", false, "print one JSON object on stdout, everything else on stderr")
}

// methodNames are those of the scores, and of the updates that select.
func methodNames() []string { return append(score.Names(), update.Names()...) }

// refineDefaults lists a default of every refinement.
func refineDefaults(of func(refine.Method) string) string {
	var all []string
	for _, m := range refine.Methods() {
		all = append(all, m.Name+" "+of(m))
	}
	return strings.Join(all, ", ")
}

func methodList() string {
	var b strings.Builder
	for _, m := range score.Methods() {
		fmt.Fprintf(&b, "  %-10s %s\n", m.Name, m.Doc)
	}
	for _, m := range update.Methods() {
		fmt.Fprintf(&b, "  %-10s %s\n", m.Name, m.Doc)
	}
	return b.String()
}

func refineList() string {
	var b strings.Builder
	for _, m := range refine.Methods() {
		fmt.Fprintf(&b, "  %-10s %s\n", m.Name, m.Doc)
	}
	return b.String()
}

func allocationList() string {
	var b strings.Builder
	for _, m := range allocate.Methods() {
		fmt.Fprintf(&b, "  %-12s %s\n", m.Name, m.Doc)
	}
	return b.String()
}

func permutationList() string {
	var b strings.Builder
	for _, m := range permute.Methods() {
		fmt.Fprintf(&b, "  %-10s %s\n", m.Name, m.Doc)
	}
	return b.String()
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
	set("method", &r.Method, f.r.Method)
	set("refine", &r.Refine, f.r.Refine)
	set("refine-layers", &r.RefineLayers, f.r.RefineLayers)
	if given("refine-cycles") {
		if err := atLeast("refine-cycles", f.r.RefineCycles, 1); err != nil {
			return r, err
		}
		r.RefineCycles = f.r.RefineCycles
	}
	set("update", &r.Update, f.r.Update)
	set("allocate", &r.Allocate, f.r.Allocate)
	set("permute", &r.Permute, f.r.Permute)
	if given("lsa-fast") {
		r.LSAFast = f.r.LSAFast
	}
	set("dlp-center", &r.DLPCenter, f.r.DLPCenter)
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
	for name, v := range map[string]struct {
		dst **float64
		v   *float64
	}{
		"alpha": {&r.Alpha, &f.alpha}, "beta": {&r.Beta, &f.beta}, "gamma": {&r.Gamma, &f.gamma}, "power": {&r.Power, &f.power},
		"owl-lambda": {&r.OWLLambda, &f.owlLambda}, "owl-m": {&r.OWLM, &f.owlM},
		"dlp-alpha": {&r.DLPAlpha, &f.dlpAlpha}, "alphapruning-epsilon": {&r.AlphaPruningEpsilon, &f.alphaEpsilon},
	} {
		if given(name) {
			*v.dst = v.v
		}
	}
	if given("kernel") {
		r.Kernel = &f.kernel
	}
	r = r.WithDefaults()
	err := cmp.Or(atLeast("samples", f.samples, 1), atLeast("seqlen", f.seqLen, 2),
		atLeast("windows", f.windows, 0), atLeast("seed", int(f.seed), 0))
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
	if given("windows") {
		r.Eval.Windows = f.windows
	}
	if r.Calibration.Source == "" {
		r.Calibration.Source = defaultSource(model, "c4")
	}
	if r.Eval.Source == "" {
		r.Eval.Source = defaultSource(model, "wikitext2")
		if r.Eval.Source == demoName && !given("windows") {
			r.Eval.Windows = demoWindows
		}
	}
	if _, err := r.Resolve(); err != nil {
		return r, usageError{err}
	}
	return r, nil
}

// demoWindows keeps the demo quick.
const demoWindows = 64

// defaultSource is the text that is used unless one is named.
func defaultSource(model, literature string) string {
	if model == demoName {
		return demoName
	}
	return literature
}

// prune runs the subcommand.
func (a *app) prune(ctx context.Context, name string, f *pruneFlags, fl *pflag.FlagSet) error {
	if err := setThreads(f.threads); err != nil {
		return err
	}
	r, err := f.merge(name, fl)
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
	opt := prune.Options{
		Recipe: r, Model: name, Output: f.output, Overwrite: f.overwrite, Resume: f.resume,
		Memory: int64(f.memory), Progress: meter.update, Warn: a.warn,
	}
	if opt.Output == "" {
		if opt.Output, err = defaultOutput(name, r); err != nil {
			return err
		}
	}
	if o.m.Compute, err = compute(r.Compute, o); err != nil {
		return err
	}
	// All that can be known without the texts is checked before they are read.
	prospect := opt
	if prospect.Calibration, prospect.Evaluation, err = a.loader(o, meter).Prospect(r.Calibration, r.Eval); err != nil {
		return err
	}
	plan, err := prune.MakePlan(o.inv, o.m, prospect)
	if err != nil {
		return err
	}
	if err := plan.Check(o.inv, prospect); err != nil {
		return err
	}
	if f.dryRun {
		return a.showPlan(plan, o, opt, f.json)
	}
	if err := a.gather(ctx, o, meter, &opt, fl.Changed("eval") || f.recipe != ""); err != nil {
		return err
	}
	if !f.json {
		a.announce(o, r, plan)
	}
	rep, err := prune.Run(ctx, o.inv, o.m, opt)
	if err != nil {
		if ctx.Err() != nil {
			return interruptedError{context.Canceled, "finished blocks are kept: add --resume to the same command to continue"}
		}
		return err
	}
	meter.finish()
	if f.json {
		return json.NewEncoder(a.stdout).Encode(rep)
	}
	return a.showReport(rep, o)
}

// gather loads the token windows. If a default evaluation text is not available,
// perplexity is not measured, and a warning says so.
func (a *app) gather(ctx context.Context, o *opened, meter *meter, opt *prune.Options, evalAsked bool) error {
	resolved, err := opt.Recipe.Resolve()
	if err != nil {
		return err
	}
	l := a.loader(o, meter)
	if resolved.Method.NeedsData {
		if opt.Calibration, err = l.Calibration(ctx, opt.Recipe.Calibration); err != nil {
			return fmt.Errorf("--calibration: %w", err)
		}
	}
	if opt.Recipe.Eval.Source == "none" {
		return nil
	}
	opt.Evaluation, err = l.Evaluation(ctx, opt.Recipe.Eval)
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case evalAsked:
		return fmt.Errorf("--eval: %w", err)
	}
	a.warn("perplexity is not measured: %v; choose a text with --eval", err)
	opt.Evaluation, opt.Recipe.Eval.Source = nil, "none"
	return nil
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
	if r.Refine != "" {
		method += "-" + r.Refine
	}
	if r.Update != "" {
		method += "-" + r.Update
	}
	if r.Allocate != "" {
		method += "-" + r.Allocate
	}
	if r.Permute != "" {
		method += "-" + r.Permute
	}
	return filepath.Base(dir) + "-" + method + "-" + amount, nil
}
