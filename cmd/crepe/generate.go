package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/tokenizer"
)

type generateFlags struct {
	prompt, file string
	against      string
	options      generate.Options
	machineFlags
	json bool
}

func newGenerate(a *app) *cobra.Command {
	var f generateFlags
	c := &cobra.Command{
		Use:   "generate MODEL (--prompt TEXT | --prompt-file FILE) [flags]",
		Short: "Continue a text with a model, beside its dense model",
		Long: `Continue a text with MODEL and print each token when it is generated. Perplexity
and multiple choice can hide that a model no longer writes well; its text cannot.
With --against, the dense model continues the same text, and crepe prints both
side by side.

The prompt is tokenised with the tokenizer's default special tokens. The text ends
at one of the model's end-of-sequence tokens (generation_config.json), after
--max-tokens, or at the model's maximum length.

By default each token is the most probable one. With a --temperature above 0,
tokens are sampled; the same --seed gives the same samples. --top-k and --top-p
restrict what is sampled from, in this order, as in transformers.

Blocks that do not fit --memory are read again for each token.`,
		Example: `  crepe generate demo --prompt "The game was released in"
  crepe generate ./my-model-50 --prompt "Once upon a time" --against ./my-model
  crepe generate ./my-model-50 --prompt-file story.txt --max-tokens 400
  echo "The capital of France" | crepe generate ./my-model --prompt-file - --temperature 0.8 --top-p 0.95`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(c.Flags().Changed); err != nil {
				return err
			}
			return a.generate(c.Context(), args[0], f)
		},
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.prompt, "prompt", "", "text to continue")
	fl.StringVar(&f.file, "prompt-file", "", `file with the text to continue, without its final newline; "-" is standard input`)
	fl.StringVar(&f.against, "against", "", "dense MODEL that also continues the text; both are shown side by side")
	fl.IntVar(&f.options.MaxTokens, "max-tokens", 128, "maximum number of new tokens (0: up to the model's maximum)")
	addSampling(fl, &f.options.Sampling)
	f.machineFlags.add(fl, "")
	fl.BoolVar(&f.json, "json", false, "print one JSON object on stdout")
	a.addDevice(c)
	complete(c, map[string][]string{"compute": computeNames})
	return c
}

// check refuses what can be seen to be wrong before anything is opened.
func (f *generateFlags) check(given func(flag string) bool) error {
	if given("prompt") == given("prompt-file") {
		return usageError{errors.New("want one of --prompt TEXT and --prompt-file FILE")}
	}
	return cmp.Or(checkSampling(f.options.Sampling, given), f.machineFlags.check(), within("max-tokens", f.options.MaxTokens, 0, recipe.MaxSeqLen))
}

// text returns the prompt.
func (f *generateFlags) text() (string, error) {
	if f.file == "" {
		return f.prompt, valid("--prompt", f.prompt)
	}
	in := os.Stdin
	if f.file != "-" {
		var err error
		if in, err = os.Open(f.file); err != nil {
			return "", fmt.Errorf("--prompt-file: %w", err)
		}
		defer in.Close()
	}
	text, err := readPrompt("--prompt-file "+f.file, in)
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r"), err
}

func valid(what, text string) error {
	if !utf8.ValidString(text) {
		return fmt.Errorf("%s: not UTF-8 text", what)
	}
	return nil
}

// continuation is what a model makes of a prompt.
type continuation struct {
	Model        string          `json:"model"`
	PromptTokens int             `json:"prompt_tokens"`
	Text         string          `json:"text"`
	IDs          []int32         `json:"ids"`
	End          generate.Reason `json:"end"`
	Seconds      float64         `json:"seconds"` // without loading
}

// generateReport is what crepe generate --json prints.
type generateReport struct {
	Compute string `json:"compute"`
	Prompt  string `json:"prompt"`
	continuation
	Against *continuation `json:"against,omitempty"`
	Same    *int          `json:"same_tokens,omitempty"` // at the beginning, of both
}

func (a *app) generate(ctx context.Context, name string, f generateFlags) error {
	prompt, err := f.text()
	if err != nil {
		return err
	}
	meter := a.startMeter()
	defer meter.finish()
	o, err := a.open(ctx, name, a.options(f.compute, int64(f.memory)))
	if err != nil {
		return err
	}
	defer o.Close()
	dense, err := a.openDense(ctx, o, f.against, int64(f.memory))
	if err != nil {
		return err
	}
	stream := io.Discard
	if dense == nil && !f.json {
		stream = a.stdout
	}
	rep := generateReport{Compute: o.Model.Engine().Compute().String(), Prompt: prompt}
	if rep.continuation, err = a.continueText(ctx, o, prompt, f, stream); err != nil {
		return err
	}
	if dense != nil {
		defer dense.Close()
		o.Model.Trim()
		c, err := a.continueText(ctx, dense, prompt, f, stream)
		if err != nil {
			return fmt.Errorf("--against: %w", err)
		}
		same := 0
		for same < min(len(c.IDs), len(rep.IDs)) && c.IDs[same] == rep.IDs[same] {
			same++
		}
		rep.Against, rep.Same = &c, &same
	}
	meter.finish()
	switch {
	case f.json:
		return json.NewEncoder(a.stdout).Encode(rep)
	case dense != nil:
		return showBeside(a.stdout, width(a.stdout), rep)
	}
	return nil
}

// continueText continues prompt with o, writing to stream as it goes, and says
// on stderr how it went.
func (a *app) continueText(ctx context.Context, o *session.Session, prompt string, f generateFlags, stream io.Writer) (continuation, error) {
	c := continuation{Model: o.Name, IDs: []int32{}}
	tok, err := tokenizer.LoadWith(o.Inventory.ReadFile, o.Dir)
	if err != nil {
		return c, err
	}
	ids, err := tok.Encode(prompt, true)
	if err == nil {
		err = tok.CheckIDs(ids, o.Model.Config.Vocab)
	}
	if err != nil {
		return c, fmt.Errorf("prompt: %w", err)
	}
	c.PromptTokens = len(ids)
	opt := f.options
	if opt.Stop, err = generate.StopTokens(o.Inventory.ReadFile, o.Dir, o.Inventory.Config()); err != nil {
		return c, err
	}
	budget := int64(f.memory)
	if budget == 0 {
		budget = sysinfo.Budget()
	}
	if err := o.Fits(max(budget, sysinfo.Budget()), len(ids)); err != nil { // a smaller budget is for what stays in memory
		return c, err
	}
	if left, separate := o.Model.OwnLeft(len(ids)); separate {
		longest := o.Model.Config.MaxPositions
		if opt.MaxTokens > 0 {
			longest = min(longest, len(ids)+opt.MaxTokens)
		}
		budget = max(1, min(cmp.Or(budget, left), left-o.Model.CacheBytes(longest)))
	}
	g, err := generate.New(o.Model, budget, a.meter.update)
	if err != nil {
		return c, err
	}
	a.meter.finish()
	if n := o.Model.Blocks() - g.Resident(); n > 0 {
		a.note("%s: %d of %d blocks do not fit the memory budget and are read again for each token", o.Name, n, o.Model.Blocks())
	}
	var report progress.Func // none beside a text that comes
	if stream == io.Discard {
		report = a.meter.update
	}
	bar := report.Start("generate "+o.Name, int64(cmp.Or(opt.MaxTokens, o.Model.Config.MaxPositions-len(ids))), "tokens")
	text, start := generate.NewText(tok, ids), time.Now()
	write := func(s string, err error) error {
		if err != nil {
			return err
		}
		c.Text += s
		_, err = io.WriteString(stream, printable(s))
		return err
	}
	c.End, err = g.Run(ctx, ids, opt, func(id int32) error {
		c.IDs = append(c.IDs, id)
		bar.Add(1)
		return write(text.Add(id))
	})
	c.Seconds = time.Since(start).Seconds()
	if err == nil {
		err = write(text.Rest())
	}
	if _, lineErr := io.WriteString(stream, "\n"); err == nil {
		err = lineErr
	}
	a.meter.finish()
	if err == nil && !f.json {
		a.note("%s: %d tokens after %d in %.1f s, %.3g tokens/s, %s; ended by %s",
			o.Name, len(c.IDs), len(ids), c.Seconds, float64(len(c.IDs))/c.Seconds, o.Model.Engine().Compute(), c.End)
	}
	return c, err
}
