package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/session"
)

// taskFlags are the flags of zero-shot tasks.
type taskFlags struct {
	tasks, dir, bos, samples string
	limit                    int
	noCache                  bool
}

func (f *taskFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.tasks, "tasks", "", "tasks to measure accuracy on, such as rte,boolq")
	fl.StringVar(&f.dir, "tasks-data", "", "folder with the tasks' data (default: the datasets on the hub, cached)")
	fl.IntVar(&f.limit, "limit", 0, "use only the first N documents of each task (0: all)")
	fl.StringVar(&f.bos, "bos", task.Auto.String(), "begin the tasks' texts with the BOS token: on, off, or auto (as the tokenizer does)")
	fl.BoolVar(&f.noCache, "no-cache", false, "neither read nor store results: measure every document again")
	fl.StringVar(&f.samples, "samples-out", "", "file for each document's likelihoods and answer, as JSON lines")
}

func (f *taskFlags) check(given func(flag string) bool) error {
	for _, flag := range []string{"tasks-data", "limit", "bos", "no-cache", "samples-out"} {
		if !given("tasks") && given(flag) {
			return usageError{fmt.Errorf("--%s: only with --tasks", flag)}
		}
	}
	if given("tasks") {
		if _, err := task.Parse(f.tasks); err != nil {
			return usageError{fmt.Errorf("--tasks: %w", err)}
		}
	}
	if _, err := task.ParseBOS(f.bos); err != nil {
		return usageError{fmt.Errorf("--bos: %w", err)}
	}
	return within("limit", f.limit, 0, task.MaxDocuments)
}

// loadTasks reads the documents of all tasks, from the hub where there is no folder.
func (a *app) loadTasks(ctx context.Context, f taskFlags) ([]task.Set, error) {
	if f.tasks == "" {
		return nil, nil
	}
	tasks, err := task.Parse(f.tasks)
	if err != nil {
		return nil, err
	}
	defer a.meter.finish()
	return task.Load(ctx, tasks, f.dir, a.options("", 0).Hub(), f.limit)
}

// taskReport is the accuracy on all tasks.
type taskReport struct {
	Results []task.Result     `json:"results"`
	Dense   []task.Result     `json:"dense,omitempty"` // of --against
	Change  []task.Difference `json:"change,omitempty"`
	Acc     float64           `json:"acc"`      // mean over the tasks
	AccNorm float64           `json:"acc_norm"` // mean over the tasks
	BOS     bool              `json:"bos"`
	Limit   int               `json:"limit,omitempty"` // documents a task
}

// tasks asks o, and dense if that is not nil, all documents.
func (a *app) tasks(ctx context.Context, o, dense *session.Session, f taskFlags, sets []task.Set) (*taskReport, error) {
	out, err := newSamples(f.samples)
	if err != nil {
		return nil, err
	}
	defer out.discard()
	rep := &taskReport{Limit: f.limit}
	var answers, denseAnswers [][]task.Answer
	if answers, rep.BOS, err = a.ask(ctx, o, f, sets); err != nil {
		return nil, err
	}
	if err := out.write(answers); err != nil {
		return nil, err
	}
	if dense != nil {
		o.Model.Trim()
		if denseAnswers, _, err = a.ask(ctx, dense, f, sets); err != nil {
			return nil, err
		}
	}
	for i, s := range sets {
		rep.Results = append(rep.Results, task.Summarize(s.Task.Name, answers[i]))
		if dense != nil {
			rep.Dense = append(rep.Dense, task.Summarize(s.Task.Name, denseAnswers[i]))
			rep.Change = append(rep.Change, task.Compare(answers[i], denseAnswers[i]))
		}
	}
	rep.Acc, rep.AccNorm = task.Mean(rep.Results)
	return rep, nil
}

func (a *app) ask(ctx context.Context, o *session.Session, f taskFlags, sets []task.Set) (answers [][]task.Answer, begun bool, err error) {
	bos, err := task.ParseBOS(f.bos)
	if err != nil {
		return nil, false, err
	}
	m, half := o.Bounded()
	e, err := task.NewEncoder(m, o.Inventory.Config(), o.Inventory.ReadFile, o.Dir, bos)
	if err != nil {
		return nil, false, err
	}
	r := a.results(o, f)
	answers, err = task.Run(ctx, m, e, sets, task.Options{Bytes: half, Results: r, Progress: a.meter.update})
	documents := 0
	for _, s := range sets {
		documents += len(s.Documents)
	}
	a.closeResults(r, o, documents)
	if err != nil && r != nil {
		err = interruptedError{err, "finished documents are kept: run the same command again to continue"}
	}
	return answers, e.BOS(), err
}

func (a *app) showTasks(rep *taskReport, compute string) error {
	w := a.table()
	head := "task\tdocuments\tacc\tacc_norm"
	if rep.Dense != nil {
		head += "\tdense acc\tchange\tdense acc_norm\tchange"
	}
	fmt.Fprintln(w, head)
	documents := 0
	for i, r := range rep.Results {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s", r.Task, r.Documents, withError(r.Acc, r.AccStderr), withError(r.AccNorm, r.AccNormStderr))
		if rep.Dense != nil {
			d, c := rep.Dense[i], rep.Change[i]
			fmt.Fprintf(w, "\t%.4f\t%s\t%.4f\t%s", d.Acc, withError(c.Acc, c.AccStderr), d.AccNorm, withError(c.AccNorm, c.AccNormStderr))
		}
		fmt.Fprintln(w)
		documents += r.Documents
	}
	fmt.Fprintf(w, "mean\t%d\t%.4f\t%.4f", documents, rep.Acc, rep.AccNorm)
	if rep.Dense != nil {
		acc, norm := task.Mean(rep.Dense)
		fmt.Fprintf(w, "\t%.4f\t%.4f\t%.4f\t%.4f", acc, rep.Acc-acc, norm, rep.AccNorm-norm)
	}
	fmt.Fprintln(w)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.text(), "(zero-shot, %s, %s)\n", bosText(rep.BOS), compute)
	return err
}

// withError is "0.5271 ± 0.0301".
func withError(p float64, stderr *float64) string {
	if stderr == nil {
		return fmt.Sprintf("%.4f", p)
	}
	return fmt.Sprintf("%.4f ± %.4f", p, *stderr)
}

// samples is the file of --samples-out. It is made beside its place before the
// work, so that a place that cannot be written is known early, and takes it when it
// is whole.
type samples struct {
	path string
	file *fsys.File // nil: none is wanted, or it has its place
}

func newSamples(path string) (*samples, error) {
	if path == "" {
		return &samples{}, nil
	}
	f, err := fsys.Create(path+".partial", 0o666)
	if err != nil {
		return nil, fmt.Errorf("--samples-out: %w", err)
	}
	return &samples{path: path, file: f}, nil
}

func (s *samples) write(answers [][]task.Answer) error {
	if s.file == nil {
		return nil
	}
	w := bufio.NewWriter(s.file)
	lines := json.NewEncoder(w)
	for _, set := range answers {
		for _, answer := range set {
			if err := lines.Encode(answer); err != nil {
				return err
			}
		}
	}
	err := errors.Join(w.Flush(), s.file.Close())
	if err == nil {
		err = fsys.Rename(s.file.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("--samples-out: %w", err)
	}
	s.file = nil
	return nil
}

// discard removes what has not got its place.
func (s *samples) discard() {
	if s.file != nil {
		s.file.Close()
		_ = fsys.Remove(s.file.Name())
	}
}
