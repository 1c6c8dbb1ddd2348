package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/serve"
	"github.com/crepe-llm/crepe/session"
	"github.com/crepe-llm/crepe/talk"
)

type serveFlags struct {
	host    string
	port    int
	options serve.Options
	batch   batch.Options
	against string
	grace   time.Duration
	machineFlags
}

func newServe(a *app) *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve MODEL [flags]",
		Short: "Answer OpenAI's API with a model, many requests at a time",
		Long: `Answer HTTP requests as OpenAI's API does: /v1/completions, /v1/chat/completions and
/v1/models, with streaming, stop texts, seeds and log-probabilities. /health and
/metrics (for Prometheus) tell how the server is, and / is a page to try it. With
--against, the dense model answers as well, and the page shows both side by side.

The tokens of all requests pass through the model together, and a beginning that
requests have in common is computed once. docs/serve.md has the details.

The server is for this machine only, unless --host says otherwise; then use
--api-key, or the environment's CREPE_API_KEY, which other users of this machine
cannot see. SIGTERM, or Ctrl-C, lets the requests that it has come to their end.`,
		Example: `  crepe serve ./my-model-50
  crepe serve ./my-model-50 --against ./my-model
  CREPE_API_KEY=secret crepe serve ./my-model-50 --host 0.0.0.0 --port 8000`,
		Args: argsBetween(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.serve(c.Context(), args[0], f)
		},
	}
	fl := c.Flags()
	fl.SortFlags = false
	fl.StringVar(&f.host, "host", "127.0.0.1", "address to answer at; 0.0.0.0 is all of this machine's")
	fl.IntVar(&f.port, "port", 8080, "port (0: one that is free)")
	fl.StringVar(&f.options.APIKey, "api-key", "", "key that requests must bring (default $CREPE_API_KEY)")
	fl.StringVar(&f.against, "against", "", "dense MODEL that answers as well")
	fl.IntVar(&f.batch.Texts, "parallel", 16, "texts that are continued at a time")
	fl.IntVar(&f.batch.Queue, "queue", 64, "texts that may wait for a place; more are refused")
	fl.IntVar(&f.options.MaxPrompt, "max-prompt", 0, "most tokens of a prompt (0: as many as the model takes)")
	fl.IntVar(&f.options.MaxTokens, "max-tokens", 4096, "most new tokens of an answer, and their number for a chat that does not say")
	fl.DurationVar(&f.options.Timeout, "timeout", 10*time.Minute, "most time for a request, waiting included")
	fl.DurationVar(&f.grace, "grace", time.Minute, "time for the requests under way after SIGTERM")
	fl.BoolVar(&f.batch.Exact, "exact", false, "make answers the same bit for bit whatever else is answered, which is slower for few requests")
	f.machineFlags.add(fl, "")
	complete(c, map[string][]string{"compute": computeNames})
	return c
}

// check refuses what can be seen to be wrong before anything is opened.
func (f *serveFlags) check() error {
	err := cmp.Or(f.machineFlags.check(),
		within("port", f.port, 0, 65535), within("parallel", f.batch.Texts, 1, 256), within("queue", f.batch.Queue, 1, 1<<16),
		within("max-prompt", f.options.MaxPrompt, 0, recipe.MaxSeqLen), within("max-tokens", f.options.MaxTokens, 1, recipe.MaxSeqLen))
	switch {
	case err != nil:
		return err
	case f.options.Timeout <= 0 || f.grace < 0:
		return usageError{errors.New("--timeout and --grace: want a time such as 90s or 10m")}
	}
	if f.options.APIKey == "" {
		f.options.APIKey = os.Getenv("CREPE_API_KEY")
	}
	if strings.ContainsFunc(f.options.APIKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return usageError{errors.New("--api-key: want visible ASCII characters only: no request can bring another key")}
	}
	return nil
}

func (a *app) serve(ctx context.Context, name string, f serveFlags) error {
	// Whoever takes the port first knows before the model is read.
	listener, err := net.Listen("tcp", net.JoinHostPort(f.host, strconv.Itoa(f.port)))
	if err != nil {
		return fmt.Errorf("--host, --port: %w", err)
	}
	defer listener.Close()
	meter := a.startMeter()
	defer meter.finish()
	memory := cmp.Or(int64(f.memory), sysinfo.Budget())
	if f.against != "" {
		memory /= 2 // each
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
	sessions := []*session.Session{o}
	if dense != nil {
		defer dense.Close()
		sessions = append(sessions, dense)
	}
	var models []*talk.Model
	for _, s := range sessions {
		m, err := s.Talk(f.batch)
		a.meter.finish()
		if err != nil {
			return err
		}
		defer m.Runner.Close(gone())
		m.Name = modelID(m.Name)
		models = append(models, m)
	}
	if len(models) == 2 && models[1].Name == models[0].Name {
		models[1].Name += "-dense"
	}
	for _, m := range models {
		if m.Template == nil {
			a.note("%s: no chat template, so that it answers /v1/completions only", m.Name)
		}
	}
	if ip := net.ParseIP(f.host); f.options.APIKey == "" && f.host != "localhost" && !(ip != nil && ip.IsLoopback()) {
		a.warn("anyone who reaches %s can use this server: --api-key asks for a key", listener.Addr())
	}
	return a.answer(ctx, serve.New(models, f.options), listener, models, f.grace)
}

// answer serves until a signal says to end.
func (a *app) answer(ctx context.Context, s *serve.Server, listener net.Listener, models []*talk.Model, grace time.Duration) error {
	signals, _ := takeInterrupts(ctx)
	stop, stopNow := context.WithCancel(ctx)
	defer stopNow()
	cut, cutNow := context.WithCancel(ctx)
	defer cutNow()
	go func() {
		select {
		case <-cut.Done():
			return
		case <-signals:
		}
		a.note("no more requests are taken; those under way have %v", grace)
		stopNow()
		select {
		case <-cut.Done():
		case <-signals:
		case <-time.After(grace):
		}
		cutNow()
	}()
	names := make([]string, len(models))
	for i, m := range models {
		names[i] = m.Name
	}
	a.note("%s at http://%s (API: /v1, page: /)", strings.Join(names, " and "), listener.Addr())
	err := s.Serve(stop, cut, listener)
	if errors.Is(err, context.Canceled) {
		a.warn("the requests that were still under way were cut off")
		return nil
	}
	return err
}

// gone is a context that has ended.
func gone() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// modelID is the name of a model in the API: that of its folder or file, or its id
// on the hub.
func modelID(name string) string {
	if _, err := os.Stat(name); err != nil {
		return name
	}
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	return strings.TrimSuffix(filepath.Base(name), ".gguf")
}
