package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/grid"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/queue"
	"github.com/crepe-llm/crepe/session"
)

type workerFlags struct {
	store   string
	models  []string
	scratch string
	idle    time.Duration
	threads int
	memory  bytesFlag
}

func newWorker(a *app) *cobra.Command {
	var f workerFlags
	c := &cobra.Command{
		Use:   "worker --store URL [flags]",
		Short: "Compute what compare, search and study have put into a database",
		Long: `Take work from the PostgreSQL database --store, one piece at a time, until
interrupted, or until there was none for --idle. Any number of workers, on any
machines, share a database.

A model is found by the hash of its weights: in --models, or on the hub by the name
that was ordered. What is in neither is said once and left to other workers, and so is
what --memory has no room for. Texts come from the database.

A worker that is interrupted gives its work back. One that is killed, or that the
network has cut off, is missed after ` + queue.Lost.String() + `, and another begins its work anew. What
fails on three workers is given up; crepe store status says why.

The password is best not on the command line: PGPASSWORD, PGPASSFILE and ~/.pgpass
have their usual meaning, and so have the options of libpq in the URL, such as
?sslmode=verify-full&sslrootcert=ca.pem.`,
		Example: `  crepe worker --store postgres://crepe@db/crepe --models /shared/models
  crepe worker --store postgres://crepe@db/crepe --threads 8 --idle 10m`,
		Args: argsBetween(0, 0),
		RunE: func(c *cobra.Command, _ []string) error { return a.worker(c.Context(), &f) },
	}
	f.add(c.Flags())
	a.addDevice(c)
	return c
}

func (f *workerFlags) add(fl *pflag.FlagSet) {
	fl.SortFlags = false
	fl.StringVar(&f.store, "store", "", "PostgreSQL database postgres://[USER@]HOST/DB")
	fl.StringArrayVar(&f.models, "models", nil, "folder with models, or with folders of models; may be repeated")
	fl.StringVar(&f.scratch, "scratch", ".", "folder for pruned models until they are measured, and for what exceeds the memory")
	fl.DurationVar(&f.idle, "idle", 0, "end after so long without work, such as 10m (default: never)")
	fl.IntVar(&f.threads, "threads", 0, "cores to use (0: all); the result does not depend on it")
	fl.Var(&f.memory, "memory", "memory budget, such as 16GiB (default 3/4 of the free memory)")
}

// worker runs the subcommand.
func (a *app) worker(ctx context.Context, f *workerFlags) error {
	if err := setThreads(f.threads); err != nil {
		return err
	}
	if f.store == "" {
		return usageError{errors.New("--store: none, want postgres://[USER@]HOST/DB")}
	}
	if f.idle < 0 {
		return usageError{fmt.Errorf("--idle: %v, want a time such as 10m", f.idle)}
	}
	for _, dir := range f.models {
		if st, err := os.Stat(dir); err != nil || !st.IsDir() {
			return fmt.Errorf("--models: %s: %w", dir, cmp.Or(err, errors.New("not a folder")))
		}
	}
	signals, cancel := takeInterrupts(ctx) // to give its work back takes a worker a moment
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitInterrupted)
	}()
	a.startMeter()
	defer a.meter.finish()
	if err := a.options("", 0).CheckDevice(); err != nil { // else the first order would fail on it
		return err
	}
	q, err := a.openQueue(ctx, f.store)
	if err != nil {
		return err
	}
	defer q.Close()
	w := &workbench{app: a, flags: f, queue: q, shelf: shelf{app: a, dirs: f.models, hash: map[string]string{}, have: map[string]string{}}}
	defer w.close()
	w.scratch = filepath.Join(f.scratch, fmt.Sprintf("%s%d", scratchPrefix, os.Getpid()))
	if err := sweepScratch(f.scratch, time.Now()); err != nil {
		return fmt.Errorf("--scratch: %w", err)
	}
	if err := fsys.MkdirAll(w.scratch, 0o777); err != nil {
		return fmt.Errorf("--scratch: %w", err)
	}
	defer fsys.RemoveAll(w.scratch)
	a.note("crepe: working for %s", q.Name())
	err = q.Work(ctx, queue.Worker{Idle: f.idle, Lost: workerLost, Have: w.shelf.holds, Do: w.do})
	if ctx.Err() != nil {
		return interruptedError{context.Canceled, "its work is in the queue again"}
	}
	return err
}

// workerLost is what queue.Lost says, and shorter in tests.
var workerLost = queue.Lost

// scratchPrefix begins the name of a worker's folder, which its process's number ends.
const scratchPrefix = "crepe-worker-"

// sweepScratch removes the folders of workers that were killed, which nobody has
// changed for a day.
func sweepScratch(dir string, now time.Time) error {
	old, err := filepath.Glob(filepath.Join(dir, scratchPrefix+"*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		if now.Sub(grid.Written(path)) > grid.Abandoned && fsys.OwnDir(path) == nil {
			if err := fsys.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// workbench is what a worker has at hand.
type workbench struct {
	*app
	flags   *workerFlags
	queue   *queue.Store
	shelf   shelf
	scratch string

	open    *session.Session // of the last order, nil before the first
	openKey string
	search  *pho.Bench // of the last order of a search, nil before the first
}

func (b *workbench) close() {
	if b.open != nil {
		b.open.Close()
		b.open, b.search = nil, nil
	}
}

// session opens the model of an order, or has it open.
func (b *workbench) session(ctx context.Context, w search.Weights, compute string) (*session.Session, error) {
	key := w.ID + " " + compute
	if b.open != nil && b.openKey == key {
		return b.open, nil
	}
	b.close()
	if err := b.shelf.holds(ctx, w); err != nil {
		return nil, err
	}
	s, err := b.app.open(ctx, b.shelf.have[w.ID], b.options(compute, int64(b.flags.memory)))
	if err != nil {
		return nil, err
	}
	b.open, b.openKey = s, key
	return s, nil
}

// do carries out an order.
func (b *workbench) do(ctx context.Context, o search.Order) (string, error) {
	started := time.Now()
	value, err := b.carryOut(ctx, o)
	b.meter.finish()
	if errors.Is(err, prune.ErrMemory) { // of this machine
		err = queue.Leave(err)
	}
	if err == nil {
		b.note("%s: done (%.1f s)", o.What, time.Since(started).Seconds())
	}
	return value, err
}

func (b *workbench) carryOut(ctx context.Context, o search.Order) (string, error) {
	switch o.Kind {
	case grid.CellKind:
		w, err := grid.ParseWork(o.Args)
		if err != nil {
			return "", err
		}
		s, err := b.session(ctx, o.Model, w.Base.Compute)
		if err != nil {
			return "", err
		}
		m := grid.Model{Name: o.Model.Name, Dir: s.Dir, ID: o.Model.ID, Inv: s.Inventory, M: s.Model}
		return w.Do(ctx, b.queue, m, grid.Options{Scratch: b.scratch, Memory: int64(b.flags.memory), Progress: b.meter.update, Warn: b.warn, Done: func(grid.Cell) {}})
	}
	if pho.IsKind(o.Kind) {
		w, err := pho.ParseWork(o.Args)
		if err != nil {
			return "", err
		}
		s, err := b.session(ctx, o.Model, w.Recipe.Compute)
		if err != nil {
			return "", err
		}
		if b.search, err = w.NewBench(ctx, b.search, b.queue, s.Model, int64(b.flags.memory), b.scratch, b.meter.update, b.warn); err != nil {
			return "", err
		}
		return b.search.Do(ctx, o.Kind, w)
	}
	return "", fmt.Errorf("an order for a %q, which this crepe does not know: update it on this machine", o.Kind)
}
