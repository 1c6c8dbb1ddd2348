package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/session"
)

// studySuffix ends the name of a file of studies, if none is given.
const studySuffix = ".study"

// candidateFlags are those of all commands that prune with many candidates: what
// they are made, pruned and verified with.
type candidateFlags struct {
	prune   pruneFlags // of which those below are declared
	kernels string
	study   string
	shared  sharedFlags
	verify  string
	seed    uint64
}

func (f *candidateFlags) addPattern(fl *pflag.FlagSet) {
	fl.StringVar(&f.prune.r.Sparsity, "sparsity", recipe.DefaultSparsity, "share of weights to prune: 50% or 0.5")
	fl.StringVar(&f.prune.r.Pattern, "pattern", "", "N:M instead of --sparsity: keep N of every M weights along a row (2:4, 4:8, …)")
}

func (f *candidateFlags) addText(fl *pflag.FlagSet) {
	p := &f.prune
	fl.StringVar(&f.verify, "verify", "", "SOURCE to verify candidates on (default: held-out windows of the calibration text)")
	fl.IntVar(&p.windows, "windows", session.DemoWindows, "windows to verify on")
	fl.StringVar(&p.calibration, "calibration", "", `SOURCE of calibration text (default "demo" for the demo model, otherwise "c4")`)
	fl.IntVar(&p.samples, "samples", recipe.DefaultSamples, "calibration sequences")
	fl.IntVar(&p.seqLen, "seqlen", recipe.DefaultSeqLen, "tokens per sequence and per window, at most the model's maximum")
	fl.Int64Var(&p.seed, "seed", 0, "seed for sampling calibration sequences")
	fl.StringVar(&p.r.Skip, "skip", "", "regular expression: Linears whose name it matches stay dense")
	f.addMachine(fl)
}

func (f *candidateFlags) addMachine(fl *pflag.FlagSet) {
	p := &f.prune
	fl.StringVar(&p.r.Compute, "compute", recipe.DefaultCompute, "type of matrix products' inputs: f32, bf16, or auto (bf16 if checkpoint and processor support it)")
	fl.IntVar(&p.threads, "threads", 0, "cores to use (0: all); the result does not depend on it")
	fl.Var(&p.memory, "memory", "memory budget, such as 16GiB; hidden states that exceed it go to a temporary file (default 3/4 of the free memory)")
}

// maxVerify is the most windows to verify on: four times as many are drawn.
const maxVerify = 1 << 14

// options returns the search that the flags describe for model, without texts
// and store.
func (f *candidateFlags) options(model string, fl *pflag.FlagSet) (pho.Options, error) {
	opt := pho.Options{Seed: f.seed}
	var err error
	if opt.Kernels, err = parseKernels(f.kernels); err != nil {
		return opt, err
	}
	if err := f.shared.check(fl.Changed, f.prune.report); err != nil {
		return opt, usageError{err}
	}
	if err := within("windows", f.prune.windows, pho.MinVerify, maxVerify); err != nil {
		return opt, err
	}
	opt.Recipe, err = f.prune.merge(model, fl)
	return opt, err
}

// widths is the parameter that --kernels lists values of.
var widths, _ = param.Declared(score.CRePE.Params, "kernel")

func parseKernels(list string) ([]int, error) {
	var kernels []int
	for _, s := range strings.Split(list, ",") {
		k, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || widths.Check(k) != nil || slices.Contains(kernels, k) {
			return nil, usageError{fmt.Errorf("--kernels: %q, want different numbers, each %s", list, widths.Allowed())}
		}
		kernels = append(kernels, k)
	}
	slices.Sort(kernels)
	return kernels, nil
}

// candidates is a model, texts and study that candidates are tried with.
type candidates struct {
	*session.Session
	opt  pho.Options
	path string // of the study, or the store's name
}

func (c *candidates) Close() error {
	return errors.Join(c.opt.Store.Close(), c.Session.Close())
}

// openCandidates opens model, texts and study, base naming the latter by default;
// what can be known before the texts is checked by early.
func (a *app) openCandidates(ctx context.Context, name, base string, f *candidateFlags, opt pho.Options, early func(*session.Session) error) (*candidates, error) {
	o, err := a.open(ctx, name, a.options(opt.Recipe.Compute, int64(f.prune.memory)))
	if err != nil {
		return nil, err
	}
	c := &candidates{Session: o, opt: opt, path: cmp.Or(f.study, base+studySuffix)}
	if err := a.fillCandidates(ctx, c, f, early); err != nil {
		if c.opt.Store != nil {
			c.opt.Store.Close()
		}
		o.Close()
		return nil, err
	}
	return c, nil
}

func (a *app) fillCandidates(ctx context.Context, c *candidates, f *candidateFlags, early func(*session.Session) error) error {
	if err := early(c.Session); err != nil {
		return err
	}
	s, name, err := a.openStore(ctx, f.shared.store, c.path)
	if err != nil {
		return err
	}
	c.opt.Store, c.path = s, name
	c.opt.ModelName, c.opt.ModelBytes = c.Session.Name, c.Inventory.WeightBytes()
	if err := gatherSearch(ctx, c.Session, f, &c.opt); err != nil {
		return err
	}
	if f.shared.store == "" { // else workers see to it, each for itself
		if err := c.opt.Fit(c.Model, int64(f.prune.memory), filepath.Dir(c.path)); err != nil {
			return err
		}
	}
	if c.opt.Model, err = digest(c.Session); err != nil {
		return err
	}
	c.opt.Progress, c.opt.Warn = a.meter.update, a.warn
	return ctx.Err()
}

// gatherSearch loads the token windows.
func gatherSearch(ctx context.Context, o *session.Session, f *candidateFlags, opt *pho.Options) error {
	l := o.Loader()
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
	if n := len(opt.Verify.Tokens); n < pho.MinVerify {
		return fmt.Errorf("--verify: %s has %d windows, want at least %d", f.verify, n, pho.MinVerify)
	}
	if isTestSet(f.verify) {
		opt.Verify.Source += " (selection on the test set)"
	}
	return nil
}

// isTestSet reports whether source is one that results are published on.
func isTestSet(source string) bool { return source == "wikitext2" || source == session.Demo }

// digest is one hash of a model's files.
func digest(o *session.Session) (string, error) {
	return digestOf(o.Inventory)
}

func digestOf(inv *checkpoint.Inventory) (string, error) {
	hashes, err := inv.Hashes(func(done, total int64) {})
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		fmt.Fprintln(h, name, hashes[name])
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// exists reports whether there is something at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
