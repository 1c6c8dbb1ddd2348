package prune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/provenance"
)

// saveEvery is the least time between two copies of the hidden states: what a
// kill can cost beside the block at work, against the cost of writing them.
const saveEvery = 30 * time.Second

// provenance is all that the output depends on; hashes are the inputs'.
func (r *runner) provenance(hashes map[string]string) (provenance.Record, error) {
	rec, err := provenance.New(r.m.Engine().ID())
	if err != nil {
		return nil, err
	}
	used, err := r.plan.used(r.opt).Provenance()
	if err != nil {
		return nil, err
	}
	rec = append(append(rec, provenance.Hashes("input", hashes)...), used...)
	if r.plan.resolved.Method.NeedsData {
		rec = append(rec, provenance.Field{Name: "windows calibration", Value: r.opt.Calibration.SHA256()})
	}
	if e := r.opt.Evaluation; e != nil {
		rec = append(rec, provenance.Field{Name: "windows evaluation", Value: e.SHA256()})
	}
	return rec, nil
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
	store, err := hidden.New(r.m.Engine(), len(c.Tokens), c.SeqLen, r.m.Width(), r.spillDir())
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
		if err := r.store.Run(ctx, block, st, model.Mode{}, func() { bar.Add(1) }); err != nil {
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
	if err := fsys.WriteWhole(path, r.store.Save); err != nil {
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
			if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
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
