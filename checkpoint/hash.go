package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/crepe-llm/crepe/internal/parallel"
)

// Hashes returns the SHA-256 of config.json and of each weight file, by name,
// in hexadecimal. It reads everything, several files at once; progress, if not
// nil, is told now and then how many bytes are done and how many there are.
func (inv *Inventory) Hashes(progress func(done, total int64)) (map[string]string, error) {
	return inv.hash(inv.files, progress)
}

// hash is Hashes of config.json and of these weight files.
func (inv *Inventory) hash(files []weightFile, progress func(done, total int64)) (map[string]string, error) {
	var mu sync.Mutex
	total, done := int64(0), int64(0)
	for _, f := range files {
		total += f.size
	}
	step := func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		if progress != nil {
			progress(done, total)
		}
	}
	hashes := make([]string, len(files))
	errs := make([]error, len(files))
	parallel.For(len(files), 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			if hashes[i], errs[i] = files[i].hash(step); errs[i] != nil {
				errs[i] = fmt.Errorf("%s: %w", inv.path(files[i].name), errs[i])
			}
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	sums := map[string]string{configName: hashOf(inv.storedConfig)}
	for i, f := range files {
		sums[f.name] = hashes[i]
	}
	return sums, nil
}

// Reproducible returns the Hashes of config.json and of those weight files that a Plan
// of them would write byte for byte: with the same header, in the same order. Of a
// Source there are none.
func (inv *Inventory) Reproducible(progress func(done, total int64)) (map[string]string, error) {
	if inv.source != nil {
		return nil, nil
	}
	plan, err := PlanFiles(inv, inv.Layouts())
	if err != nil {
		return nil, err
	}
	var same []weightFile
	for _, f := range inv.files {
		i := slices.IndexFunc(plan.Shards, func(s Shard) bool { return s.Name == f.name })
		if i < 0 || plan.Shards[i].Size != f.size {
			continue
		}
		want := plan.Shards[i].head
		head := make([]byte, len(want))
		if _, err := f.f.ReadAt(head, 0); err != nil {
			return nil, fmt.Errorf("%s: %w", inv.path(f.name), shrunk(err))
		}
		if string(head) == string(want) {
			same = append(same, f)
		}
	}
	return inv.hash(same, progress)
}

func (f weightFile) hash(step func(n int64)) (string, error) {
	h := sha256.New()
	buf := make([]byte, min(f.size, copyBuffer))
	for at := int64(0); at < f.size; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), f.size-at)]
		if _, err := f.f.ReadAt(buf, at); err != nil {
			return "", shrunk(err)
		}
		h.Write(buf)
		step(int64(len(buf)))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// shrunk explains the end of a file where there should be none.
func shrunk(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the file has become shorter since it was opened")
	}
	return err
}
