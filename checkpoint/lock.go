package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// takeLock makes the partial folder, unless it is there, and locks it. It
// tries again when another process removes the folder in between. A link in the
// folder's place is refused: what it leads to is not crepe's to change.
func (w *Writer) takeLock() error {
	for {
		f, err := w.openLock()
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot write beside the output folder: %w", err)
		}
		if err := lockFile(f.File); err != nil {
			f.Close()
			return fmt.Errorf("%s: locked: is another process writing it? (%w)", w.partial, err)
		}
		if isAt(f, f.Name()) {
			w.lock = f
			return nil
		}
		f.Close()
	}
}

// openLock opens the lock's file, made if need be. It is fs.ErrExist or
// fs.ErrNotExist if another process makes or removes it at the same time.
func (w *Writer) openLock() (*fsys.File, error) {
	if err := fsys.MkdirAll(filepath.Dir(w.partial), 0o777); err != nil {
		return nil, err
	}
	if err := fsys.Mkdir(w.partial, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err := fsys.OwnDir(w.partial); err != nil {
		return nil, err
	}
	path := filepath.Join(w.partial, lockName)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return fsys.CreateNew(path, 0o666)
	}
	return fsys.Reopen(path)
}

// isAt reports whether f is the file that path names.
func isAt(f *fsys.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// unlock removes what is left of the partial folder and gives the lock up. A
// process that has been waiting for it may find the folder gone, or be in it
// already; then it stays.
func (w *Writer) unlock() error {
	err := removeLocked(w.lock)
	w.lock = nil
	if gone := fsys.Remove(w.partial); gone != nil && !errors.Is(gone, fs.ErrNotExist) && !errors.Is(gone, fs.ErrExist) { // not if it is another's now
		err = errors.Join(err, gone)
	}
	return err
}
