package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/crepe-llm/crepe/report/live"
)

func newUI(a *app) *cobra.Command {
	var port int
	c := &cobra.Command{
		Use:   "ui [PATH...] [flags]",
		Short: "Show results in a browser while they come in",
		Long: `Serve the pages of crepe report on 127.0.0.1, for the browser of this machine
alone, and update them while a run, search or grid is at work. Without PATH, all
results in the current folder are shown; a PATH is a folder of results, or whatever
crepe report takes. The page lists what there is, to choose what to lay side by
side. Ctrl-C ends it.`,
		Example: `  crepe ui
  crepe ui ./runs --port 8080`,
		RunE: func(c *cobra.Command, args []string) error { return a.ui(c.Context(), args, port) },
	}
	c.Flags().IntVar(&port, "port", 0, "port to listen on (0: a free one)")
	return c
}

func (a *app) ui(ctx context.Context, paths []string, port int) error {
	if err := within("port", port, 0, 1<<16-1); err != nil {
		return err
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	var title []string
	for _, path := range paths {
		whole, err := filepath.Abs(path)
		if err == nil {
			_, err = os.Stat(path)
		}
		if err != nil {
			return err
		}
		title = append(title, filepath.Base(whole))
	}
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("--port: %w", err)
	}
	if _, err := fmt.Fprintf(a.text(), "http://%s/\n", l.Addr()); err != nil {
		return err
	}
	s := live.Server{Paths: paths, Title: strings.Join(title, ", ")}
	return s.Serve(ctx, l)
}
