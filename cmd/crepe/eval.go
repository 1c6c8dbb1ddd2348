package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
)

// evalReport is what crepe eval --json prints: what was measured.
type evalReport struct {
	Model   string `json:"model"`
	Compute string `json:"compute"`
	*session.Measurement
	Against *againstReport `json:"against,omitempty"`
	Tasks   *taskReport    `json:"tasks,omitempty"`
}

type evalFlags struct {
	data    string
	against string
	seqLen  int
	windows int
	taskFlags
	machineFlags
	json bool
}

func newEval(a *app) *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use:   "eval MODEL [flags]",
		Short: "Measure perplexity and accuracy on zero-shot tasks",
		Long: `Measure the perplexity of MODEL on a text, by the literature's protocol: crepe
tokenises the text once with the tokenizer's default special tokens, cuts it into
windows of --seqlen tokens and drops the tail. Perplexity is the exponential of
the mean negative log-likelihood over the windows.

Published perplexities of LLaMA-2 use --seqlen 2048 on wikitext2. Numbers for
other window lengths cannot be compared with these.

With --tasks, measure accuracy on multiple-choice tasks instead, or, with --data,
both. Prompts and scoring are those of lm-evaluation-harness, so the numbers are
the same. The tasks are ` + strings.Join(task.Names(), ", ") + `.
Their data comes from the datasets on the Hugging Face hub, through Hugging Face's
own cache, or from --tasks-data. This folder has a folder for each task, which
holds the split's files under the hub's names (DIR/rte/validation-00000-of-00001.parquet)
or as JSON lines with the dataset's columns (DIR/rte/validation.jsonl).

With --against, also measure a dense model: how far MODEL's predictions are from
the dense model's (Kullback-Leibler divergence, in nats), how often both give the
same token the highest probability, and on tasks the difference in accuracy with
its standard error.

acc counts how often the gold choice has the highest likelihood; the pruning
literature reports acc. acc_norm first divides log-likelihoods by the lengths of
the choices in characters.`,
		Example: `  crepe eval demo --data demo --windows 64
  crepe eval meta-llama/Llama-2-7b-hf --data wikitext2 --seqlen 2048
  crepe eval ./demo-crepe-50 --data my.txt --seqlen 512 --json
  crepe eval ./my-model-50 --against ./my-model
  crepe eval ./my-model-50 --tasks rte,boolq,arc_easy --tasks-data ./tasks`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(c.Flags().Changed); err != nil {
				return err
			}
			return a.eval(c.Context(), args[0], f)
		},
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.data, "data", "", `SOURCE to measure on (default "demo" for the demo model, otherwise "wikitext2")`)
	fl.IntVar(&f.seqLen, "seqlen", recipe.DefaultSeqLen, "tokens per window, at most the model's maximum")
	fl.IntVar(&f.windows, "windows", 0, "measure on the first N windows (0: all)")
	fl.StringVar(&f.against, "against", "", "dense MODEL to compare with")
	f.taskFlags.add(fl)
	f.machineFlags.add(fl, "; hidden states that exceed it go to a temporary file")
	fl.BoolVar(&f.json, "json", false, "print one JSON object on stdout")
	a.addDevice(c)
	complete(c, map[string][]string{"data": sourceNames, "compute": computeNames})
	return c
}

// check refuses what can be seen to be wrong before anything is opened.
func (f *evalFlags) check(given func(flag string) bool) error {
	if f.tasks != "" && f.data == "" && (given("seqlen") || given("windows")) {
		return usageError{errors.New("--seqlen and --windows apply to perplexity: with --tasks they need --data too")}
	}
	return cmp.Or(
		f.machineFlags.check(),
		within("seqlen", f.seqLen, 2, recipe.MaxSeqLen),
		within("windows", f.windows, 0, recipe.MaxWindows),
		f.taskFlags.check(given),
	)
}

func (a *app) eval(ctx context.Context, name string, f evalFlags) error {
	meter := a.startMeter()
	defer meter.finish()
	sets, err := a.loadTasks(ctx, f.taskFlags)
	if err != nil {
		return err
	}
	memory := int64(f.memory)
	if f.against != "" {
		if memory == 0 {
			memory = sysinfo.Budget()
		}
		memory /= 2 // each model's
	}
	o, err := a.open(ctx, name, a.options(f.compute, memory))
	if err != nil {
		return err
	}
	defer o.Close()
	dense, err := a.openDense(ctx, o, f.against, memory)
	if err != nil {
		return err
	}
	if dense != nil {
		defer dense.Close()
	}
	rep := evalReport{Model: name, Compute: o.Model.Engine().Compute().String()}
	if f.tasks == "" || f.data != "" {
		if err := evalText(ctx, o, dense, f, &rep); err != nil {
			return err
		}
	}
	if f.tasks != "" {
		if rep.Tasks, err = a.tasks(ctx, o, dense, f.taskFlags, sets); err != nil {
			return err
		}
	}
	meter.finish()
	if f.json {
		return json.NewEncoder(a.stdout).Encode(rep)
	}
	return a.showEval(rep)
}

// evalText measures o on a text, beside dense if that is not nil.
func evalText(ctx context.Context, o, dense *session.Session, f evalFlags, rep *evalReport) error {
	source := recipe.Eval{Source: f.data, SeqLen: f.seqLen, Windows: f.windows}
	if dense == nil {
		m, err := o.Perplexity(ctx, source)
		rep.Measurement = &m
		return err
	}
	m, c, err := o.Against(ctx, dense, source)
	if err != nil {
		return err
	}
	rep.Measurement, rep.Against = &m, &againstReport{Name: dense.Name, Comparison: c}
	return nil
}

func (a *app) showEval(rep evalReport) error {
	w := a.table()
	if t := rep.Measurement; t != nil {
		fmt.Fprintf(w, "perplexity\t%s\t(%s, %d windows of %d tokens, %s, %s)\n",
			perplexityText(t.Result, 4), t.Data, t.Windows, t.SeqLen, bosText(t.BOS), rep.Compute)
	}
	if rep.Against != nil {
		showAgainst(w, rep.Against)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if rep.Tasks != nil {
		return a.showTasks(rep.Tasks, rep.Compute)
	}
	return nil
}

func bosText(bos bool) string {
	if bos {
		return "with BOS"
	}
	return "no BOS"
}
