package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/crepe-llm/crepe/eval/task"
	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/progress"
)

// results opens what earlier runs measured with o, nil if nothing is to be
// kept or it cannot be: that is no reason not to measure.
//
// Likelihoods depend on the weights, on how they are computed, and on the
// program: its own hash is part of what they are kept under, so no change of
// the program ever shows results of another one.
func (a *app) results(o *opened, f taskFlags) *task.Results {
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

func (a *app) openResults(o *opened) (*task.Results, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	program, err := programHash()
	if err != nil {
		return nil, err
	}
	bar := progress.Func(a.meter.update).Start("hash "+o.name, o.inv.WeightBytes(), "bytes")
	hashes, err := o.inv.Hashes(func(done, _ int64) { bar.Set(done) })
	a.meter.finish()
	if err != nil {
		return nil, err
	}
	identity := []string{program, o.m.Compute.String(), fmt.Sprint(cpu.Current(), cpu.AVX512BF16)}
	for _, name := range slices.Sorted(maps.Keys(hashes)) {
		identity = append(identity, name, hashes[name])
	}
	return task.OpenResults(filepath.Join(cache, "crepe", "tasks"), identity...)
}

// programHash is the SHA-256 of this program.
func programHash() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// closeResults says what came out of r and is to be known.
func (a *app) closeResults(r *task.Results, o *opened, documents int) {
	if r == nil {
		return
	}
	if n := r.Hits(); n > 0 {
		a.note("%s: %d of %d documents were measured before (%s; --no-cache measures them again)", o.name, n, documents, r.Path())
	}
	if err := r.Close(); err != nil {
		a.warn("results are not kept for the next run: %v", err)
	}
}
