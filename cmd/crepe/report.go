package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/report"
)

func newReport(a *app) *cobra.Command {
	var output, title string
	c := &cobra.Command{
		Use:   "report PATH... [flags]",
		Short: "Show results as one HTML file",
		Long: `Write one HTML file that shows saved results: tables and charts that work from a
disk, without a network. A PATH is

  a folder that crepe prune wrote, or is writing
  a --study file of crepe search, study or compare
  a file with what crepe eval, generate, inspect --against or compare prints
  with --json

Several are laid side by side. Nothing is measured: what is shown was saved, or
follows from it.`,
		Example: `  crepe report ./demo-crepe-50
  crepe report ./demo-crepe-50 ./demo-wanda-50 demo-pho-50.study -o all.html
  crepe eval ./demo-crepe-50 --against demo --data demo --json > kl.json; crepe report ./demo-crepe-50 kl.json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("no PATH, want %s", c.UseLine())}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := writeReport(c.Context(), output, title, args); err != nil {
				return err
			}
			_, err := fmt.Fprintln(a.text(), output)
			return err
		},
	}
	c.Flags().SortFlags = false
	c.Flags().StringVarP(&output, "output", "o", "report.html", "file to write, or to replace")
	c.Flags().StringVar(&title, "title", "", "title of the page (default: the names of what it shows)")
	return c
}

// writeReport writes the report of paths to a file.
func writeReport(ctx context.Context, output, title string, paths []string) error {
	items, err := report.Load(ctx, paths)
	if err != nil {
		return err
	}
	if len(items) == 0 {
		return errors.New(strings.Join(paths, ", ") + ": no results in it yet")
	}
	if title == "" {
		title = reportTitle(items)
	}
	d := report.Build(title, items)
	if err := replaceable(output); err != nil {
		return err
	}
	err = fsys.WriteWhole(output, func(w io.Writer) error { return report.Write(w, d) })
	if err != nil {
		return fmt.Errorf("report %s: %w", filepath.Clean(output), err)
	}
	return nil
}

// addReport declares --report of a command whose results a report can show.
func addReport(fl *pflag.FlagSet, path *string) {
	fl.StringVar(path, "report", "", "HTML file to write that shows the results, as crepe report does")
}

// checkReport refuses, before any work, a --report that could not be written, or
// would take the place of one of the other files of the command.
func checkReport(path string, others ...string) error {
	if path == "" {
		return nil
	}
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		return usageError{fmt.Errorf("--report: %s is a folder, want a file", path)}
	}
	if err := replaceable(path); err != nil {
		return usageError{fmt.Errorf("--report: %w", err)}
	}
	for _, other := range others {
		if samePath(path, other) {
			return usageError{fmt.Errorf("--report: %s is what the command writes its results to, want another file", path)}
		}
	}
	if st, err := os.Stat(filepath.Dir(path)); err != nil || !st.IsDir() {
		return usageError{fmt.Errorf("--report: %s: there is no folder %s", path, filepath.Dir(path))}
	}
	return nil
}

// replaceable refuses a file that is there and is no report, nor empty.
func replaceable(path string) error {
	f, size, err := regular.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer f.Close()
	if size == 0 || report.IsPage(f) {
		return nil
	}
	return fmt.Errorf("%s: exists and is no report, so that it is not replaced", path)
}

// samePath reports whether two paths are one file or, once written, would be.
func samePath(a, b string) bool {
	x, err := filepath.Abs(a)
	y, err2 := filepath.Abs(b)
	return err == nil && err2 == nil && x == y
}

// finishReport writes the --report of a command with these results, if it was asked
// for.
func finishReport(ctx context.Context, path string, results ...string) error {
	if path == "" {
		return nil
	}
	if err := writeReport(ctx, path, "", results); err != nil {
		return fmt.Errorf("--report: %w", err)
	}
	return nil
}

// reportTitle names what a report shows.
func reportTitle(items []report.Item) string {
	const most = 3
	var names []string
	for _, i := range items {
		names = append(names, i.Name)
	}
	if n := len(names); n > most {
		names = append(names[:most], fmt.Sprintf("%d more", n-most))
	}
	return strings.Join(names, ", ")
}
