package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/queue"
	"github.com/crepe-llm/crepe/search/store"
)

// sharedFlags are those of commands whose work others may do.
type sharedFlags struct {
	store string
}

func (f *sharedFlags) add(fl *pflag.FlagSet, what string) {
	fl.StringVar(&f.store, "store", "", "PostgreSQL database postgres://[USER@]HOST/DB in place of --study: crepe worker computes the "+what)
}

// check refuses what does not go together.
func (f *sharedFlags) check(given func(string) bool, report string) error {
	switch {
	case f.store == "":
		return noEffect(given, "there is no --store", "same-engine")
	case given("study"):
		return errors.New("--store and --study: want one of the two")
	case report != "":
		return errors.New("--report: not with --store; crepe store export makes a file that crepe report reads")
	case given("output"): // the model is pruned here
		return nil
	}
	return noEffect(given, "with --store workers compute, and it is said to them", "device", "device-memory")
}

// openStore opens the database at a URL, or the file at path if there is none. name is
// for people.
func (a *app) openStore(ctx context.Context, url, path string) (s search.Store, name string, err error) {
	if url == "" {
		if s, err = store.Open(ctx, path); err != nil {
			return nil, "", fmt.Errorf("--study: %w", err)
		}
		return s, path, nil
	}
	q, err := a.openQueue(ctx, url)
	if err != nil {
		return nil, "", err
	}
	return q, q.Name(), nil
}

func (a *app) openQueue(ctx context.Context, url string) (*queue.Store, error) {
	q, err := queue.Open(ctx, url, queue.Options{Note: func(format string, args ...any) { a.note("crepe: "+format, args...) }})
	if err != nil {
		return nil, fmt.Errorf("--store: %w", err)
	}
	return q, nil
}

func newStore(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "store",
		Short: "Look at the queue that workers take their work from, and change it",
		Long: `Show and change what lies in a PostgreSQL database that crepe compare, search and
study put work into with --store, and that crepe worker works off.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return usageError{errors.New("want one of store status, cancel, retry, export")}
		},
	}
	var url string
	var asJSON, all bool
	sub := func(use, short string, args cobra.PositionalArgs, run func(ctx context.Context, q *queue.Store, args []string) error) *cobra.Command {
		s := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(c *cobra.Command, args []string) error {
			if url == "" {
				return usageError{errors.New("--store: none, want postgres://[USER@]HOST/DB")}
			}
			q, err := a.openQueue(c.Context(), url)
			if err != nil {
				return err
			}
			defer q.Close()
			return run(c.Context(), q, args)
		}}
		s.Flags().StringVar(&url, "store", "", "PostgreSQL database postgres://[USER@]HOST/DB")
		c.AddCommand(s)
		return s
	}
	status := sub("status [flags]", "Show what is finished, at work, waiting and given up", argsBetween(0, 0), func(ctx context.Context, q *queue.Store, _ []string) error {
		st, err := q.Status(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(a.stdout).Encode(st)
		}
		return a.showStatus(st)
	})
	status.Flags().BoolVar(&asJSON, "json", false, "print one JSON object on stdout")
	change := func(use, short, done string, f func(*queue.Store, context.Context, ...int64) (int, error)) {
		s := sub(use, short, argsAny, func(ctx context.Context, q *queue.Store, args []string) error {
			ids, err := jobIDs(args, all)
			if err != nil {
				return err
			}
			n, err := f(q, ctx, ids...)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.text(), "%d %s\n", n, done)
			return err
		})
		s.Flags().BoolVar(&all, "all", false, "all jobs")
	}
	change("cancel JOB...|--all [flags]", "Take jobs out of the queue, also from those who work at them", "cancelled", (*queue.Store).Cancel)
	change("retry JOB...|--all [flags]", "Put jobs that were given up or cancelled back into the queue", "in the queue again", (*queue.Store).Retry)
	sub("export FILE [flags]", "Copy all that is finished into a study file, for crepe report", argsBetween(1, 1), func(ctx context.Context, q *queue.Store, args []string) error {
		if exists(args[0]) {
			return fmt.Errorf("%s: exists already, want a new file", args[0])
		}
		to, err := store.Open(ctx, args[0])
		if err != nil {
			return err
		}
		studies, records, err := q.Export(ctx, to)
		if err := errors.Join(err, to.Close()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.text(), "%d studies with %d records in %s\n", studies, records, args[0])
		return err
	})
	return c
}

func argsAny(*cobra.Command, []string) error { return nil }

// jobIDs reads numbers of jobs; nil with --all.
func jobIDs(args []string, all bool) ([]int64, error) {
	if all == (len(args) > 0) {
		return nil, usageError{errors.New("want numbers of jobs, which crepe store status shows, or --all")}
	}
	var ids []int64
	for _, s := range args {
		id, err := strconv.ParseInt(s, 10, 64)
		if err != nil || id < 1 {
			return nil, usageError{fmt.Errorf("job %q, want a number", s)}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (a *app) showStatus(st *queue.Status) error {
	w := a.table()
	fmt.Fprintln(w, "study\tfinished\trunning\twaiting\tfailed")
	for _, s := range st.Studies {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", s.Name, s.Records, s.Running, s.Waiting, s.Failed)
	}
	for i, j := range st.Jobs {
		if i == 0 {
			fmt.Fprintln(w, "\njob\tstate\twhat\tworker\terror")
		}
		worker := j.Worker
		if j.State == "running" {
			worker += fmt.Sprintf(" (heard of %.0f s ago)", j.Silent)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", j.ID, j.State, j.What, worker, j.Error)
	}
	return w.Flush()
}
