package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// Commit adds the extra files (by name), and renames the finished folder to
// its target. It is an error if a tensor has not been written. If Commit
// fails, everything stays as it is for Resume.
func (w *Writer) Commit(extra map[string][]byte) error {
	if err := w.complete(extra); err != nil {
		return err
	}
	return w.end(false)
}

// CommitMade is Commit, but renames to the target another folder, which write makes at
// dir, whole or not at all, of the finished one, Folder. If there is one at dir, a
// Commit that failed has left it.
func (w *Writer) CommitMade(extra map[string][]byte, write func(dir string) error) error {
	if err := w.complete(extra); err != nil {
		return err
	}
	if err := write(w.made()); err != nil {
		return err
	}
	return w.end(true)
}

// made returns where CommitMade has its folder.
func (w *Writer) made() string { return filepath.Join(w.partial, scratchName, "made") }

// complete writes and syncs the last files of the folder.
func (w *Writer) complete(extra map[string][]byte) error {
	if missing := w.Missing(); len(missing) > 0 {
		return fmt.Errorf("output folder %s: %d tensors not written: %s", w.target, len(missing), few(missing))
	}
	if err := w.Sync(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if err := w.writeFile(name, extra[name]); err != nil {
			return err
		}
	}
	return syncTree(w.Folder())
}

// end notes that nothing is left but renaming, and does that.
func (w *Writer) end(made bool) error {
	if err := w.journal.append(line{Commit: true, Made: made}); err != nil {
		return err
	}
	return w.finish(made)
}

// few returns some of many names.
func few(names []string) string {
	if len(names) > 5 {
		return fmt.Sprintf("%s, … (%d)", strings.Join(names[:5], ", "), len(names))
	}
	return strings.Join(names, ", ")
}

// finish renames out, or what CommitMade has made, to the target and removes the rest.
// It can be killed anywhere and called again.
func (w *Writer) finish(made bool) error {
	if err := w.closeFiles(); err != nil { // Windows renames no folder with open files
		return err
	}
	out := w.Folder()
	if made {
		out = w.made()
	}
	if _, err := os.Lstat(out); err == nil {
		if err := checkFree(w.target, w.target, w.overwrite); err != nil {
			return fmt.Errorf("%w (the finished model is in %s; once that is settled, --resume puts it in place)", err, out)
		}
		if err := w.makeWay(); err != nil {
			return err
		}
		if err := fsys.Rename(out, w.target); err != nil {
			return err
		}
		if err := fsys.SyncDir(filepath.Dir(w.target)); err != nil {
			return err
		}
	}
	// The journal goes last: as long as it is there, Resume knows.
	for _, name := range [...]string{replacedName, outName, scratchName, journalName} {
		if err := fsys.RemoveAll(filepath.Join(w.partial, name)); err != nil {
			return err
		}
	}
	return w.unlock()
}

// makeWay moves what is at the target aside.
func (w *Writer) makeWay() error {
	if err := fsys.Remove(w.target); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil // there was nothing, or an empty folder
	}
	replaced := filepath.Join(w.partial, replacedName)
	if err := fsys.RemoveAll(replaced); err != nil {
		return err
	}
	return fsys.Rename(w.target, replaced)
}

func (w *Writer) closeFiles() error {
	var errs []error
	for i, f := range w.files {
		if f != nil {
			errs = append(errs, f.Close())
			w.files[i] = nil
		}
	}
	if w.journal != nil {
		errs = append(errs, w.journal.f.Close())
		w.journal = nil
	}
	return errors.Join(errs...)
}

// Close gives the partial folder up as it is, to be resumed. After Commit it
// does nothing.
func (w *Writer) Close() error {
	err := w.closeFiles()
	if w.lock != nil {
		err = cmp.Or(err, w.lock.Close())
		w.lock = nil
	}
	return err
}

// Abort closes the Writer and removes the partial folder.
func (w *Writer) Abort() error {
	if w.lock == nil {
		return nil // closed, or committed
	}
	if err := cmp.Or(w.closeFiles(), w.clear()); err != nil {
		return errors.Join(err, w.Close()) // and the lock with it
	}
	return w.unlock()
}
