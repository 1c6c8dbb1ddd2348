package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/windows"
)

// What crepe bench MODEL measures with.
const (
	benchSeqLen  = 512 // tokens of a window, and of the prompt
	benchWindows = 8
	benchTokens  = 64 // that follow the prompt
	benchRuns    = 5
)

type benchFlags struct {
	against, data, compute string
}

func (f *benchFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.against, "against", "", "MODEL to measure beside it")
	c.Flags().StringVar(&f.data, "data", "", `SOURCE of the text (default "demo" for the demo model, otherwise "wikitext2")`)
	c.Flags().StringVar(&f.compute, "compute", recipe.DefaultCompute, "type of matrix products' inputs: f32, bf16, or auto")
}

// modelBench is what crepe bench MODEL --json prints.
type modelBench struct {
	Engine  string       `json:"engine"`
	Models  []benched    `json:"models"`
	KL      *eval.Spread `json:"kl,omitempty"`      // of the first from the second, nats
	Windows int          `json:"windows,omitempty"` // that perplexity and KL are of
	SeqLen  int          `json:"seqlen,omitempty"`
}

type benched struct {
	Model string `json:"model"`
	session.Speed
	Perplexity *eval.Number `json:"perplexity,omitempty"` // nil: not measured
}

func (a *app) benchModel(ctx context.Context, name string, f benchFlags, asJSON bool) error {
	if err := checkCompute(f.compute); err != nil {
		return err
	}
	meter := a.startMeter()
	defer meter.finish()
	names := []string{name}
	if f.against != "" {
		names = append(names, f.against)
	}
	models := make([]*session.Session, len(names))
	for i, name := range names {
		s, err := a.open(ctx, name, a.options(f.compute, 0))
		if err != nil {
			return err
		}
		defer s.Close()
		models[i] = s
	}
	text := recipe.Eval{Source: f.data, SeqLen: benchSeqLen, Windows: benchWindows}
	set, err := models[0].Evaluation(ctx, text, models[1:]...)
	if err != nil {
		return err
	}
	r, err := measureModels(ctx, models, set)
	if err != nil {
		return err
	}
	meter.finish()
	if asJSON {
		return json.NewEncoder(a.stdout).Encode(r)
	}
	return a.showBench(r)
}

// measureModels measures one model, or two beside each other, on the windows of set. If
// that is nil, no perplexity is measured, and the prompt is of tokens drawn at random.
func measureModels(ctx context.Context, models []*session.Session, set *windows.Set) (*modelBench, error) {
	config := models[0].Model.Config
	var prompt []int32
	if set != nil {
		prompt = set.Tokens[0]
	} else {
		draw := splitmix.Source(0)
		for range benchSeqLen {
			prompt = append(prompt, int32(draw.Next()%uint64(config.Vocab)))
		}
	}
	prompt = prompt[:min(len(prompt), benchSeqLen, max(1, config.MaxPositions-benchTokens))]
	speeds, err := session.Race(ctx, models, prompt, benchTokens, benchRuns)
	if err != nil {
		return nil, err
	}
	r := &modelBench{Engine: models[0].Model.Engine().ID()}
	for i, s := range models {
		r.Models = append(r.Models, benched{Model: s.Name, Speed: speeds[i]})
	}
	switch {
	case set == nil:
		return r, nil
	case len(models) == 1:
		m, err := models[0].PerplexityOn(ctx, set)
		if err != nil {
			return nil, err
		}
		r.Models[0].Perplexity = &m.Perplexity
	default:
		c, err := models[0].AgainstOn(ctx, models[1], set)
		if err != nil {
			return nil, err
		}
		r.Models[0].Perplexity, r.Models[1].Perplexity, r.KL = &c.Model.Perplexity, &c.Dense.Perplexity, &c.KL
	}
	r.Windows, r.SeqLen = len(set.Tokens), set.SeqLen
	return r, nil
}

// showBench prints a row for each measure, and with two models their ratio.
func (a *app) showBench(r *modelBench) error {
	w := a.table()
	first := r.Models[0]
	fmt.Fprintf(w, "%s\t%s", r.Engine, label(first.Model))
	if len(r.Models) > 1 {
		fmt.Fprintf(w, "\t%s\tratio", label(r.Models[1].Model))
	}
	fmt.Fprintln(w)
	row := func(what string, text func(benched) string, value func(benched) float64, fast bool) {
		fmt.Fprintf(w, "%s\t%s", what, text(first))
		if len(r.Models) > 1 {
			other := r.Models[1]
			ratio := value(first) / value(other)
			note := ""
			if fast && ratio < 1 {
				note = "  slower"
			}
			fmt.Fprintf(w, "\t%s\t%.2f%s", text(other), ratio, note)
		}
		fmt.Fprintln(w)
	}
	size := func(of func(benched) int64) (func(benched) string, func(benched) float64) {
		return func(b benched) string { return formatBytes(of(b)) }, func(b benched) float64 { return float64(of(b)) }
	}
	rate := func(of func(benched) float64) (func(benched) string, func(benched) float64) {
		return func(b benched) string { return fmt.Sprintf("%.4g tokens/s", of(b)) }, of
	}
	text, value := size(func(b benched) int64 { return b.Stored })
	row("tensors in files", text, value, false)
	text, value = size(func(b benched) int64 { return b.Memory })
	row("blocks and head in memory", text, value, false)
	text, value = rate(func(b benched) float64 { return b.Prefill })
	row(fmt.Sprintf("prompt of %d tokens", first.Prompt), text, value, true)
	text, value = rate(func(b benched) float64 { return b.Decode })
	row(fmt.Sprintf("%d tokens that follow", first.New), text, value, true)
	if first.Perplexity != nil {
		row(fmt.Sprintf("perplexity (%d × %d)", r.Windows, r.SeqLen),
			func(b benched) string { return b.Perplexity.Text(2) }, func(b benched) float64 { return float64(*b.Perplexity) }, false)
	}
	if r.KL != nil {
		fmt.Fprintf(w, "KL divergence\t%.5f nats\n", r.KL.Mean)
	}
	return w.Flush()
}
