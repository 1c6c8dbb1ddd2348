package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/parallel"
)

// hashAux returns the SHA-256 of the plan's aux files as the input has them now. If
// sizes differ from those of the plan that b was begun with, one that is not as long
// as its copy is what has changed, and is not read.
func (w *Writer) hashAux(b *begin) (map[string]string, error) {
	sums, changed := map[string]string{}, b.Plan != w.plan.Fingerprint()
	for _, a := range w.plan.Aux {
		if st, err := os.Lstat(w.auxPath(a)); changed && err == nil && st.Size() != a.Size {
			sums[a.Path] = ""
			continue
		}
		f, err := w.inv.OpenFile(a.Path)
		if err == nil {
			sums[a.Path], err = hashAll(f)
		}
		if err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// hashAll returns the SHA-256 of what f holds, and closes it.
func hashAll(f io.ReadCloser) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}

func hashOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// auxPath is where the copy of an aux file lies until the folder is finished.
func (w *Writer) auxPath(a AuxFile) string {
	return filepath.Join(w.Folder(), filepath.FromSlash(a.Path))
}

// recheckFiles opens the shards of the skeleton, and checks that it is whole but for
// the tensors: what is damaged there was made in seconds, and is not mended.
func (w *Writer) recheckFiles() error {
	for i, s := range w.plan.Shards {
		f, err := reopen(filepath.Join(w.Folder(), s.Name), s)
		if err != nil {
			return err
		}
		w.files[i] = f
	}
	if w.plan.index != nil {
		f, err := reopenOf(filepath.Join(w.Folder(), indexName), int64(len(w.plan.index)))
		if err != nil {
			return err
		}
		if sum, err := hashAll(f); err != nil || sum != hashOf(w.plan.index) {
			return errors.Join(err, notAsBegun(f.Name()))
		}
	}
	for _, a := range w.plan.Aux {
		f, err := reopenOf(w.auxPath(a), a.Size)
		if err != nil {
			return err
		}
		if sum, err := hashAll(f); err != nil || sum != w.aux[a.Path] {
			return errors.Join(err, notAsBegun(f.Name()))
		}
	}
	return nil
}

// reopenOf opens a file of the skeleton that has so many bytes: another is not read,
// which may claim any number of them.
func reopenOf(path string, size int64) (*fsys.File, error) {
	f, err := fsys.Reopen(path)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || st.Size() != size {
		f.Close()
		return nil, errors.Join(err, notAsBegun(path))
	}
	return f, nil
}

func notAsBegun(path string) error {
	return fmt.Errorf("%s: not as it was begun: cannot be resumed, write to a different output folder", path)
}

// recheckTensors returns how many of the journal's steps, from the first, have all
// their tensors as they were written.
func (w *Writer) recheckTensors(steps []line) (whole int, err error) {
	type written struct {
		tensor Tensor
		shard  int
		sum    uint32
		step   int
	}
	var all []written
	last := map[string]int{} // a tensor written twice is as the last step left it
	for i, l := range steps {
		if len(l.Sums) != len(l.Tensors) {
			return 0, fmt.Errorf("%s: step %q: %d checksums of %d tensors", filepath.Join(w.partial, journalName), l.Done, len(l.Sums), len(l.Tensors))
		}
		for j, name := range l.Tensors {
			t, ok := w.plan.Tensor(name)
			if !ok {
				return 0, fmt.Errorf("%s: step %q: tensor %q is not in the plan", filepath.Join(w.partial, journalName), l.Done, name)
			}
			if at, again := last[name]; again {
				all[at].sum = l.Sums[j]
				continue
			}
			last[name] = len(all)
			all = append(all, written{t, w.plan.byName[name].shard, l.Sums[j], i})
		}
	}
	errs, bad := make([]error, len(all)), make([]bool, len(all))
	parallel.For(len(all), 1, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			f, h := w.files[all[i].shard], crc32.New(castagnoli)
			_, errs[i] = io.Copy(h, io.NewSectionReader(f, all[i].tensor.Offset, all[i].tensor.Size))
			bad[i] = h.Sum32() != all[i].sum
		}
	})
	if err := errors.Join(errs...); err != nil {
		return 0, err
	}
	whole = len(steps)
	for i, x := range all {
		if bad[i] && x.step < whole {
			whole = x.step
			w.damaged = fmt.Sprintf("%s: tensor %s is not as it was written", w.files[x.shard].Name(), x.tensor.Name)
		}
	}
	return whole, nil
}
