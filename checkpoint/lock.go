package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// takeLock makes the partial folder, unless it is there, and locks it. It
// tries again when another process removes the folder in between.
func (w *Writer) takeLock() error {
	for {
		if err := os.MkdirAll(w.partial, 0o777); err != nil {
			return fmt.Errorf("cannot write beside the output folder: %w", err)
		}
		path := filepath.Join(w.partial, lockName)
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot write beside the output folder: %w", err)
		}
		if err := lockFile(f); err != nil {
			f.Close()
			return fmt.Errorf("%s: locked: is another process writing it? (%w)", w.partial, err)
		}
		if isAt(f, path) {
			w.lock = f
			return nil
		}
		f.Close()
	}
}

// isAt reports whether f is the file that path names.
func isAt(f *os.File, path string) bool {
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
	os.Remove(w.partial)
	return err
}
