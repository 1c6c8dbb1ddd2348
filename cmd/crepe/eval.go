package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/recipe"
)

// evalReport is what crepe eval --json prints.
type evalReport struct {
	Model string `json:"model"`
	Data  string `json:"data"`
	eval.Result
	BOS     bool   `json:"bos"`
	Compute string `json:"compute"`
}

type evalFlags struct {
	data    string
	seqLen  int
	windows int
	compute string
	threads int
	memory  bytesFlag
	json    bool
}

func newEval(a *app) *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval MODEL [flags]",
		Short: "Measure perplexity",
		Long: `Measure the perplexity of MODEL on a text, by the literature's protocol: the
text is tokenised once with the tokenizer's default special tokens, cut into
windows of --seqlen tokens, and the tail is dropped; perplexity is the
exponential of the mean negative log-likelihood over the windows.

Published perplexities of LLaMA-2 are at --seqlen 2048 on wikitext2; a number
at another window is another number.`,
		Example: `  crepe eval demo --data demo --windows 64
  crepe eval meta-llama/Llama-2-7b-hf --data wikitext2 --seqlen 2048
  crepe eval ./demo-crepe-50 --data my.txt --seqlen 512 --json`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error { return a.eval(c.Context(), args[0], f) },
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.data, "data", "", `SOURCE to measure on (default "demo" for the demo model, else "wikitext2")`)
	fl.IntVar(&f.seqLen, "seqlen", recipe.DefaultSeqLen, "tokens a window, at most what the model takes")
	fl.IntVar(&f.windows, "windows", 0, "measure on the first N windows (0: all)")
	fl.StringVar(&f.compute, "compute", recipe.DefaultCompute, "type of the products' inputs: f32, bf16 or auto")
	fl.IntVar(&f.threads, "threads", 0, "cores to use (0: all)")
	fl.Var(&f.memory, "memory", "memory budget, 16GiB; hidden states that exceed it go to a temporary file (default 3/4 of what is free)")
	fl.BoolVar(&f.json, "json", false, "print one JSON object on stdout")
	complete(c, map[string][]string{"data": sourceNames, "compute": computeNames})
	return c
}

func (a *app) eval(ctx context.Context, name string, f evalFlags) error {
	if err := setThreads(f.threads); err != nil {
		return err
	}
	if err := cmp.Or(atLeast("seqlen", f.seqLen, 2), atLeast("windows", f.windows, 0)); err != nil {
		return err
	}
	meter := a.startMeter()
	defer meter.finish()
	o, err := a.open(ctx, name, meter)
	if err != nil {
		return err
	}
	defer o.Close()
	if o.m.Compute, err = compute(f.compute, o); err != nil {
		return err
	}
	if f.data == "" {
		f.data = defaultSource(name, "wikitext2")
	}
	set, err := a.loader(o, meter).Evaluation(ctx, recipe.Eval{Source: f.data, SeqLen: f.seqLen, Windows: f.windows})
	if err != nil {
		return err
	}
	budget := int64(f.memory)
	if budget == 0 {
		budget = sysinfo.Memory() / 4 * 3
	}
	spill := ""
	if budget > 0 {
		o.m.ExpertBytes, _ = o.m.FitBlocks(budget / 2)
	}
	if budget > 0 && hidden.Bytes(len(set.Tokens), set.SeqLen, o.m.Width()) > budget/2 {
		spill = os.TempDir()
	}
	res, err := eval.Perplexity(ctx, o.m, set.Tokens, eval.Options{SpillDir: spill, Progress: meter.update})
	if err != nil {
		return err
	}
	meter.finish()
	rep := evalReport{Model: name, Data: set.Source, Result: res, BOS: set.BOS, Compute: o.m.Compute.String()}
	if f.json {
		return json.NewEncoder(a.stdout).Encode(rep)
	}
	_, err = fmt.Fprintf(a.stdout, "perplexity  %.4f  (%s, %d windows of %d tokens, %s, %s)\n",
		res.Perplexity, rep.Data, res.Windows, res.SeqLen, bosText(rep.BOS), rep.Compute)
	return err
}

func bosText(bos bool) string {
	if bos {
		return "with BOS"
	}
	return "no BOS"
}
