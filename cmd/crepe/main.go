// Command crepe prunes large language models after training and measures what
// is left of them. See crepe help.
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/session"
)

// The exit codes, as crepe help states them.
const (
	exitOK          = 0
	exitError       = 1 // the message says why
	exitUsage       = 2 // the command line is invalid; no work began
	exitInterrupted = 130
)

func main() {
	// The heap is a few large buffers without pointers: collecting it is cheap,
	// and letting it double first, as is the default, would double the peak.
	debug.SetGCPercent(20)
	log.SetOutput(httpLog{os.Stderr})
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// httpLog is where net/http logs. It leaves out what a server sent unasked, in which a
// secret may come back.
type httpLog struct{ io.Writer }

func (w httpLog) Write(line []byte) (int, error) {
	if !bytes.Contains(line, []byte("Unsolicited response")) {
		if _, err := io.WriteString(w.Writer, printable(string(line))); err != nil {
			return 0, err
		}
	}
	return len(line), nil
}

// run is main without the process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ctx, stop := interruptible(context.Background(), stderr)
	defer stop()
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := execute(ctx, root)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(stderr, "crepe: interrupted"+resumeHint(err))
		return exitInterrupted
	}
	fmt.Fprintln(stderr, printable("crepe: "+oneLine(err.Error(), args)))
	var usage usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") { // cobra's, which has no type
		return exitUsage
	}
	return exitError
}

// execute runs the command line. A device that fails is an error.
func execute(ctx context.Context, root *cobra.Command) (err error) {
	defer engine.Recover(&err)
	return root.ExecuteContext(ctx)
}

// usageError marks an error of the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// interruptedError says what an interrupted run left behind.
type interruptedError struct {
	error
	hint string
}

func (e interruptedError) Unwrap() error { return e.error }

func resumeHint(err error) string {
	var i interruptedError
	if errors.As(err, &i) {
		return "; " + i.hint
	}
	return ""
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	app := &app{stdout: stdout, stderr: stderr, device: session.Device{Name: "cpu"}}
	root := &cobra.Command{
		Use:   "crepe",
		Short: "Prune large language models after training",
		Long: `crepe prunes large language models after training. It reads and writes Hugging
Face folders, and reports perplexity before and after.

MODEL is "demo" (a small trained Llama inside this program), a local folder, a
GGUF file of llama.cpp, or a Hugging Face id "org/name[@revision]".

SOURCE is "demo", "wikitext2", "c4", "-" for a text on standard input, or a file:
.txt, .jsonl(.gz) or .parquet with a column "text", or .safetensors with int64
input_ids [samples, seqlen].

Environment: HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT,
HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE have their usual meaning;
CREPE_CPU=avx512|avx2|generic limits the processor features that crepe uses.

Exit codes: 0 success, 1 error, 2 invalid command line, 130 interrupted.`,
		Example: `  crepe prune demo                                  # see it work, in seconds
  crepe prune meta-llama/Llama-3.2-1B --pattern 2:4 # a model from the hub
  crepe prune ./my-model -o ./my-model-60 --sparsity 60% --calibration my.txt
  crepe eval ./my-model-60 --data wikitext2 --seqlen 2048
  crepe generate ./my-model-60 --prompt "Once upon a time" --against ./my-model
  crepe run ./my-model-60                           # talk to it
  crepe serve ./my-model-60 --against ./my-model    # OpenAI's API, and a page
  crepe compare ./my-model --methods wanda,crepe,pho
  crepe inspect ./my-model-60
  crepe verify ./my-model-60 ./my-model`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if err := cpu.EnvError(); err != nil {
				return usageError{err}
			}
			return cmp.Or(checkEmpty(c.Flags()), app.checkDevice(c.Flags().Changed))
		},
	}
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newPrune(app), newEval(app), newGenerate(app), newRunChat(app), newServe(app), newSearch(app), newStudy(app), newCompare(app), newInspect(app), newVerify(app), newExport(app), newPack(app), newUnpack(app), newBench(app))
	root.AddCommand(newReport(app), newUI(app), newWorker(app), newStore(app))
	return root
}

// app is what the subcommands share.
type app struct {
	stdout, stderr io.Writer
	meter          *meter // nil before startMeter
	board          *board // nil but in a search
	device         session.Device
}

func (a *app) startMeter() *meter {
	a.meter = newMeter(a.stderr)
	return a.meter
}

// oneLine returns a message in which the arguments that hold a newline are labels.
func oneLine(message string, args []string) string {
	for _, arg := range args {
		if strings.Contains(arg, "\n") {
			message = strings.ReplaceAll(message, arg, label(arg))
		}
	}
	return message
}

// warn prints what the user may want to change. Only errors begin with "crepe: "
// alone.
func (a *app) warn(format string, args ...any) { a.note("crepe: warning: "+format, args...) }

// note prints a line about the work, which is not its result.
func (a *app) note(format string, args ...any) {
	if a.meter != nil {
		a.meter.clearLine()
	}
	a.board.leave()
	fmt.Fprintln(a.stderr, printable(fmt.Sprintf(format, args...)))
}

// argsBetween is cobra.RangeArgs as a usage error that shows the form.
func argsBetween(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return usageError{fmt.Errorf("%d arguments (%s), want %s", len(args), strings.Join(args, " "), c.UseLine())}
		}
		return nil
	}
}

// maxThreads is more than any machine has cores: each worker has memory of its own.
const maxThreads = 1 << 10

// setThreads limits the cores used; 0 takes all.
func setThreads(n int) error {
	switch {
	case n < 0:
		return usageError{fmt.Errorf("--threads: %d, want at least 1 (or 0 for all cores)", n)}
	case n > maxThreads:
		return usageError{fmt.Errorf("--threads: %d, want at most %d", n, maxThreads)}
	case n > 0:
		runtime.GOMAXPROCS(n)
	}
	return nil
}
