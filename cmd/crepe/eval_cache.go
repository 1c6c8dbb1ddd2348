package main

import (
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/session"
)

// results opens what earlier runs measured with o, nil if nothing is to be
// kept or it cannot be: that is no reason not to measure.
//
// They are kept under their provenance, so no other program or engine ever shows
// them as its own.
func (a *app) results(o *session.Session, f taskFlags) *task.Results {
	if f.noCache {
		return nil
	}
	r, err := a.openResults(o)
	if err != nil {
		a.warn("results are not kept for the next run: %v", err)
		return nil
	}
	return r
}

func (a *app) openResults(o *session.Session) (*task.Results, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	hashes, err := o.Inventory.Hashes(progress.Func(a.meter.update).Bytes("hash " + o.Name))
	a.meter.finish()
	if err != nil {
		return nil, err
	}
	rec, err := provenance.New(o.Model.Engine().ID())
	if err != nil {
		return nil, err
	}
	rec = append(rec, provenance.Hashes("input", hashes)...)
	r, err := task.OpenResults(filepath.Join(cache, "crepe", "tasks"), rec)
	if err == nil && r.Other() != nil {
		a.warn("%s: another program or engine has measured documents of this model; they are measured anew: %s", o.Name, provenance.Differences(r.Other(), rec))
	}
	return r, err
}

// closeResults says what came out of r and is to be known.
func (a *app) closeResults(r *task.Results, o *session.Session, documents int) {
	if r == nil {
		return
	}
	if n := r.Hits(); n > 0 {
		a.note("%s: %d of %d documents were measured before (%s; --no-cache measures them again)", o.Name, n, documents, r.Path())
	}
	if err := r.Close(); err != nil {
		a.warn("results are not kept for the next run: %v", err)
	}
}
