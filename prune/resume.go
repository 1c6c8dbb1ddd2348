package prune

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
)

// saveEvery is the least time between two copies of the hidden states: what a
// kill can cost beside the block at work, against the cost of writing them.
const saveEvery = 30 * time.Second

// fingerprint describes all that the output depends on, line by line.
func (r *runner) fingerprint(hashes map[string]string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "crepe %s\nkernels %s\ncompute %s\n", Version, cpu.Current(), r.m.Compute)
	recipe, err := r.opt.Recipe.YAML()
	if err != nil {
		panic(fmt.Sprintf("prune: a checked recipe has no YAML: %v", err))
	}
	b.Write(recipe)
	if c := r.opt.Calibration; c != nil {
		fmt.Fprintf(&b, "calibration ids %s\n", c.SHA256())
	}
	if e := r.opt.Evaluation; e != nil {
		fmt.Fprintf(&b, "evaluation ids %s\n", e.SHA256())
	}
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		fmt.Fprintf(&b, "%s %s\n", name, hashes[name])
	}
	return b.String()
}

// Copies of hidden states are named for the blocks behind them.
const (
	savedPrefix    = "entering-"
	enteringPruned = savedPrefix + "pruned-block-"
	enteringDense  = savedPrefix + "dense-block-"
)

func (r *runner) savedPath(b int) string {
	return r.w.ScratchPath(fmt.Sprint(r.entering, b))
}

// enter makes the store and fills it with the hidden states that enter block
// done: the embeddings, or the newest copy of an interrupted run, run through
// the blocks, pruned or dense as entering says, that the copy has not passed yet.
func (r *runner) enter(ctx context.Context, done int, entering string) error {
	r.entering = entering
	c := r.opt.Calibration
	store, err := hidden.New(len(c.Tokens), c.SeqLen, r.m.Width(), r.spillDir())
	if err != nil {
		return err
	}
	r.store = store
	from := 0
	for b := done; b > 0 && from == 0; b-- {
		switch err := r.restore(b); {
		case err == nil:
			from = b
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if from == 0 {
		if err := store.Embed(r.m, c.Tokens); err != nil {
			return fmt.Errorf("calibration: %w", err)
		}
	}
	if from == done {
		return nil
	}
	m := r.m
	if entering == enteringPruned {
		inv, pruned, err := r.openPruned()
		if err != nil {
			return err
		}
		defer inv.Close()
		m = pruned
	}
	return r.replay(ctx, m, from, done)
}

// replay runs the store through m's blocks from, …, to−1.
func (r *runner) replay(ctx context.Context, m *model.Model, from, to int) error {
	bar := r.opt.Progress.Start("take up the blocks that are done", int64((to-from)*r.store.Len()), "sequences")
	st := m.NewState()
	for b := from; b < to; b++ {
		block, err := r.load(m, b)
		if err != nil {
			return err
		}
		if err := r.store.Forward(ctx, block, st, func() { bar.Add(1) }); err != nil {
			return err
		}
		block.Release()
	}
	return nil
}

// save copies the hidden states that enter block b, now and then.
func (r *runner) save(b int) error {
	if r.unsaved || time.Since(r.lastSave) < saveEvery {
		return nil
	}
	defer timed(&r.report.Seconds.Write)()
	path := r.savedPath(b)
	if err := writeWhole(path, r.store.Save); err != nil {
		// The copy saves time after a kill; the run itself can do without.
		r.opt.warn("hidden states are not kept, a resumed run would compute them again: %v", err)
		r.unsaved = true
		return removeOthers(path)
	}
	if err := removeOthers(path); err != nil {
		return err
	}
	r.lastSave = time.Now()
	return nil
}

// removeOthers removes the copies older than the one at path.
func removeOthers(path string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), savedPrefix) && e.Name() != filepath.Base(path) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *runner) restore(b int) error {
	f, err := os.Open(r.savedPath(b))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := r.store.Restore(f); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return nil
}

// writeWhole makes the file at path by write, or leaves none.
func writeWhole(path string, write func(io.Writer) error) error {
	partial := path + ".partial"
	f, err := os.Create(partial)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(partial, path)
	}
	if err != nil {
		os.Remove(partial)
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
