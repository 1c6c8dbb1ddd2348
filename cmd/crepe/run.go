package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/chat"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/talk"
)

type runFlags struct {
	system string
	lines  bool
	opt    talk.Options
	machineFlags
}

func newRunChat(a *app) *cobra.Command {
	var f runFlags
	c := &cobra.Command{
		Use:   "run MODEL [flags]",
		Short: "Talk to a model in the terminal",
		Long: `Talk to MODEL in the terminal. crepe writes the conversation by the model's chat
template and prints the answer as it comes. A base model has no chat template: crepe
generate continues a text with it.

Type a message, and Enter. Ctrl-C stops an answer, or ends the program between
answers, as Ctrl-D does. Lines that begin with "/" are commands:

  /reset        forget the conversation
  /system TEXT  begin anew with another system message
  /help         list the commands

Where standard input is no terminal, all of it is one message; with --lines, each
line is one.

By default each token is the most probable one. With a --temperature above 0,
tokens are sampled; the same --seed gives the same answers.`,
		Example: `  crepe run ./my-model-50
  echo "What is the capital of France?" | crepe run ./my-model-50
  crepe run ./my-model-50 --system "Answer in one sentence." --temperature 0.7 --top-p 0.9`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(c.Flags().Changed); err != nil {
				return err
			}
			return a.runChat(c.Context(), args[0], f)
		},
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.system, "system", "", "system message that the conversation begins with")
	fl.BoolVar(&f.lines, "lines", false, "take each line of standard input as a message, also where it is no terminal")
	fl.IntVar(&f.opt.MaxTokens, "max-tokens", 1024, "maximum number of new tokens of an answer (0: up to the model's maximum)")
	addSampling(fl, &f.opt.Sampling)
	f.machineFlags.add(fl, "")
	complete(c, map[string][]string{"compute": computeNames})
	return c
}

// check refuses what can be seen to be wrong before anything is opened.
func (f *runFlags) check(given func(flag string) bool) error {
	return cmp.Or(checkSampling(f.opt.Sampling, given), f.machineFlags.check(), within("max-tokens", f.opt.MaxTokens, 0, recipe.MaxSeqLen), valid("--system", f.system))
}

func (a *app) runChat(ctx context.Context, name string, f runFlags) error {
	meter := a.startMeter()
	defer meter.finish()
	o, err := a.open(ctx, name, a.options(f.compute, int64(f.memory)))
	if err != nil {
		return err
	}
	defer o.Close()
	m, err := o.Talk(batch.Options{Texts: 1})
	a.meter.finish()
	if err != nil {
		return err
	}
	defer m.Runner.Close(context.Background())
	if m.Template == nil {
		return fmt.Errorf("%w; crepe generate %s --prompt TEXT continues one", m.NoChat, name)
	}
	d := &dialogue{app: a, model: m, runFlags: f, terminal: term.IsTerminal(int(os.Stdin.Fd()))}
	d.reset()
	if !d.terminal && !f.lines {
		return d.once(ctx)
	}
	return d.loop(ctx)
}

// dialogue is a conversation in the terminal.
type dialogue struct {
	*app
	runFlags
	model    *talk.Model
	terminal bool
	messages []chat.Message
}

// reset forgets what was said.
func (d *dialogue) reset() {
	d.messages = nil
	if d.system != "" {
		d.messages = append(d.messages, chat.Message{Role: "system", Content: d.system})
	}
}

// once answers all of standard input.
func (d *dialogue) once(ctx context.Context) error {
	text, err := readPrompt("standard input", os.Stdin)
	if err != nil {
		return err
	}
	if text = strings.TrimSpace(text); text == "" {
		return errors.New("standard input: no message")
	}
	return d.say(ctx, text)
}

// loop answers line by line.
func (d *dialogue) loop(ctx context.Context) error {
	signals, cancel := takeInterrupts(ctx)
	lines, failed := make(chan string), make(chan error, 1)
	go func() { // ends with the program, in a Read that nothing interrupts
		failed <- readLines(os.Stdin, lines)
	}()
	if d.terminal {
		d.note("%s. /help lists the commands; Ctrl-C stops an answer.", d.model.Name)
	}
	for {
		if d.terminal {
			fmt.Fprint(d.stderr, "> ")
		}
		select {
		case err := <-failed:
			if d.terminal {
				fmt.Fprintln(d.stderr)
			}
			return err
		case <-signals:
			cancel()
			return ctx.Err()
		case line := <-lines:
			if err := d.take(ctx, line, signals, cancel); err != nil {
				return err
			}
		}
	}
}

// readLines sends the lines of r, none of which is longer than a prompt may be. Those
// that end with the input are an error nil.
func readLines(r io.Reader, lines chan<- string) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxPrompt)
	for s.Scan() {
		lines <- s.Text()
	}
	if err := s.Err(); !errors.Is(err, bufio.ErrTooLong) {
		return err
	}
	return fmt.Errorf("standard input: a line of more than %d bytes, want at most that", maxPrompt)
}

// take does what a line says. An error ends the program.
func (d *dialogue) take(ctx context.Context, line string, signals <-chan os.Signal, cancel context.CancelFunc) error {
	line = strings.TrimSpace(line)
	if !utf8.ValidString(line) {
		d.note("not UTF-8 text")
		return nil
	}
	if command, rest, _ := strings.Cut(line, " "); strings.HasPrefix(line, "/") {
		switch command {
		case "/reset":
			d.reset()
		case "/system":
			d.system = strings.TrimSpace(rest)
			d.reset()
		case "/help":
			d.note("/reset        forget the conversation\n/system TEXT  begin anew with another system message\n/help         this list\nCtrl-C stops an answer, Ctrl-D ends the program.")
		default:
			d.note("no command %s: /help lists them", command)
		}
		return nil
	}
	if line == "" {
		return nil
	}
	answering, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- d.say(answering, line) }()
	for {
		select {
		case err := <-done:
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case errors.Is(err, errOutput):
				return err
			case err != nil:
				d.note("%v", err)
			}
			return nil
		case s := <-signals:
			stop()
			if s == syscall.SIGTERM {
				cancel()
			}
		}
	}
}

// errOutput is an error of standard output.
var errOutput = errors.New("standard output")

// say sends a message, prints the answer as it comes, and remembers both. An answer
// that is stopped is remembered as far as it came; a message that has none is not.
func (d *dialogue) say(ctx context.Context, text string) error {
	messages := append(d.messages[:len(d.messages):len(d.messages)], chat.Message{Role: "user", Content: text})
	prompt, err := d.model.EncodeChat(messages, chat.Options{Now: time.Now()})
	if err != nil {
		return err
	}
	answer, start := "", time.Now()
	end, err := d.model.Continue(ctx, prompt, d.opt, func(p talk.Piece) error {
		answer += p.Text
		if _, err := io.WriteString(d.stdout, printable(p.Text)); err != nil {
			return fmt.Errorf("%w: %w", errOutput, err)
		}
		return nil
	})
	var tooLong *batch.TooLongError
	if errors.As(err, &tooLong) {
		return fmt.Errorf("%w: /reset forgets the conversation", err)
	}
	if answer != "" {
		fmt.Fprintln(d.stdout)
		d.messages = append(messages, chat.Message{Role: "assistant", Content: answer})
	}
	switch {
	case errors.Is(err, context.Canceled) && d.terminal:
		d.note("(stopped)")
		return nil
	case err != nil:
		return err
	case !end.Stopped:
		d.note("(the answer was cut off after %d tokens)", end.Tokens)
	}
	if d.terminal {
		s := time.Since(start).Seconds()
		d.note("(%d tokens in %.1f s, %.3g tokens/s)", end.Tokens, s, float64(end.Tokens)/s)
	}
	return nil
}
