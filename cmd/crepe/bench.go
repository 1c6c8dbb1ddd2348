package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/internal/bench"
)

func newBench(a *app) *cobra.Command {
	var o bench.Options
	var f benchFlags
	var asJSON bool
	var threads int
	c := &cobra.Command{
		Use:   "bench [MODEL] [flags]",
		Short: "Measure this machine's speed, or how fast a model runs on it",
		Long: `With MODEL, measure how fast it runs: size, memory, tokens a second of a prompt and of
those that follow, and perplexity. With --against, measure another model beside it, such
as the dense one of a packed one, and the divergence of the two. The models run in turn,
five times each, and the fastest run counts. Perplexity is measured on the first 8
windows of 512 tokens of --data, of which the first is the prompt; 64 tokens follow.

Without MODEL, measure crepe's main computations on this machine: matrix products, products with
one token, attention, score and selection, SparseGPT's factor and sweep, and the
tokenizer, at LLaMA-2-7B's shapes with 2048 tokens. Each is also shown as a share of
the machine's peak, which is measured first: multiply-adds in registers, and reading
memory.

The fastest of at least three runs counts. The whole takes about half a minute on 2
cores and at most 1 GB of memory. Other work on the machine makes every number worse.
CREPE_CPU=avx2 or generic shows the speed of an older processor.

The rate of score and selection counts the bytes of the weights, so its share is the
part of the time that reading them once would take. --quick measures small shapes
that fit in caches: its shares of the read bandwidth may exceed 100 %.`,
		Example: `  crepe bench
  crepe bench --quick
  crepe bench --json --threads 1
  crepe bench ./packed --against ./llama-3.2-1b`,
		Args: argsBetween(0, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := setThreads(threads); err != nil {
				return err
			}
			if len(args) > 0 {
				if o.Quick {
					return usageError{errors.New("--quick: it measures kernels; leave it out with a MODEL")}
				}
				return a.benchModel(c.Context(), args[0], f, asJSON)
			}
			for _, name := range []string{"against", "data", "compute"} {
				if c.Flags().Changed(name) {
					return usageError{fmt.Errorf("--%s: it says how to measure a MODEL; name one", name)}
				}
			}
			return a.bench(c.Context(), o, asJSON)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&o.Quick, "quick", false, "small shapes: a few seconds and some 200 MB")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on stdout")
	c.Flags().IntVar(&threads, "threads", 0, "cores to use (0: all)")
	a.addDevice(c)
	complete(c, map[string][]string{"data": sourceNames, "compute": computeNames})
	return c
}

func (a *app) bench(ctx context.Context, o bench.Options, asJSON bool) error {
	meter := a.startMeter()
	defer meter.finish()
	o.Progress = meter.update
	r, err := bench.Run(ctx, o)
	if err != nil {
		return err
	}
	meter.finish()
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(r)
	}
	fmt.Fprintf(a.text(), "kernels     %s, %s\n", levelText(r), threadsText(r.Threads))
	fmt.Fprintf(a.text(), "took        %.1f s, %s at the peak\n\n", r.Seconds, formatBytes(r.PeakRSS))
	w := a.table()
	fmt.Fprintln(w, "what\tcase\tms\trate\tof peak")
	for _, c := range append(r.Peaks, r.Cases...) {
		share := ""
		if c.Of != "" {
			share = fmt.Sprintf("%.0f %% %s", 100*c.Share, c.Of)
		}
		fmt.Fprintf(w, "%s\t%s\t%.4g\t%.4g %s\t%s\n", c.Group, c.Name, 1e3*c.Seconds, c.Rate, c.Unit, share)
	}
	return w.Flush()
}

// levelText is "avx512 with bf16".
func levelText(r *bench.Report) string {
	if r.BF16 {
		return r.Level + " with bf16"
	}
	return r.Level
}

func threadsText(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}
