// Package fsys has the operations by which crepe writes files, with the meaning
// that they have in package os and two rules of their own: what is written is never
// reached through a symbolic link, and a new file is opened exclusively. In a folder
// that others can write to, a name that they have prepared leads nowhere.
//
// Tests make any operation fail: Inject.
package fsys

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// File is an *os.File, opened for writing.
type File struct{ *os.File }

// Create makes a new file. What had its name is removed: of a link, the link.
func Create(path string, perm fs.FileMode) (*File, error) {
	if err := Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return CreateNew(path, perm)
}

// CreateNew makes a new file; it is fs.ErrExist if there is anything at path.
func CreateNew(path string, perm fs.FileMode) (f *File, err error) {
	err = do("create", path, func() error {
		f, err = wrap(os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm))
		return err
	})
	return orClosed(f, err)
}

// CreateTemp makes a new file in dir whose name begins with prefix.
func CreateTemp(dir, prefix string) (f *File, err error) {
	err = do("create", dir, func() error {
		f, err = wrap(os.CreateTemp(dir, prefix+"*"))
		return err
	})
	return orClosed(f, err)
}

// Reopen opens a file that crepe made earlier, for reading and writing. It refuses
// a link, and whatever else is no file.
func Reopen(path string) (*File, error) {
	before, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, &os.PathError{Op: "open", Path: path, Err: errNotOurs}
	}
	var f *File
	err = do("open", path, func() error {
		f, err = wrap(os.OpenFile(path, os.O_RDWR, 0))
		return err
	})
	if f, err = orClosed(f, err); err != nil {
		return nil, err
	}
	// Another file may have come to that name in between.
	if now, err := f.Stat(); err != nil || !os.SameFile(before, now) {
		return nil, errors.Join(&os.PathError{Op: "open", Path: path, Err: errNotOurs}, err, f.File.Close())
	}
	return f, nil
}

var errNotOurs = errors.New("not a file that crepe made: a link, a folder or a device")

// OwnDir returns an error unless path is a folder, and not a link to one.
func OwnDir(path string) error {
	st, err := os.Lstat(path)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s: a link or a file, want a folder that crepe made", path)
	}
	return err
}

func wrap(f *os.File, err error) (*File, error) {
	if err != nil {
		return nil, err
	}
	return &File{f}, nil
}

// orClosed returns f, or err and closes f.
func orClosed(f *File, err error) (*File, error) {
	if err != nil && f != nil {
		f.File.Close()
		f = nil
	}
	return f, err
}

// PartialSuffix ends the name of a file until it is whole.
const PartialSuffix = ".partial"

// WriteWhole makes the file at path by write, or leaves what is there: it writes
// one with PartialSuffix, syncs and renames it.
func WriteWhole(path string, write func(io.Writer) error) error {
	partial := path + PartialSuffix
	f, err := Create(partial, 0o666)
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
		err = Rename(partial, path)
	}
	if err != nil {
		_ = Remove(partial) // the error is another
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// WriteFile is WriteWhole of data.
func WriteFile(path string, data []byte) error {
	return WriteWhole(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Write is os.File.Write.
func (f *File) Write(p []byte) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.File.Write(p) })
}

// WriteAt is os.File.WriteAt.
func (f *File) WriteAt(p []byte, at int64) (int, error) {
	return f.write(p, func(p []byte) (int, error) { return f.File.WriteAt(p, at) })
}

// ReadFrom hides os.File's, which would write past Write.
func (f *File) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{f}, r)
}

// Allocate gives the file size bytes, of disk where the system can.
func (f *File) Allocate(size int64) error {
	return do("allocate", f.Name(), func() error { return allocate(f.File, size) })
}

// Truncate is os.File.Truncate.
func (f *File) Truncate(size int64) error {
	return do("truncate", f.Name(), func() error { return f.File.Truncate(size) })
}

// Sync is os.File.Sync.
func (f *File) Sync() error { return sync(f.Name(), f.File.Sync) }

// Close is os.File.Close; the file is closed whatever it returns.
func (f *File) Close() error {
	closed := false
	err := do("close", f.Name(), func() error {
		closed = true
		return f.File.Close()
	})
	if !closed {
		f.File.Close()
	}
	return err
}

// Mkdir is os.Mkdir.
func Mkdir(path string, perm fs.FileMode) error {
	return do("mkdir", path, func() error { return os.Mkdir(path, perm) })
}

// MkdirAll is os.MkdirAll.
func MkdirAll(path string, perm fs.FileMode) error {
	return do("mkdir", path, func() error { return os.MkdirAll(path, perm) })
}

// MkdirTemp makes a new folder in dir whose name begins with prefix.
func MkdirTemp(dir, prefix string) (path string, err error) {
	err = do("mkdir", dir, func() error {
		path, err = os.MkdirTemp(dir, prefix+"*")
		return err
	})
	return path, err
}

// Remove is os.Remove: of a link, the link.
func Remove(path string) error {
	return do("remove", path, func() error { return os.Remove(path) })
}

// RemoveAll is os.RemoveAll, which follows no link.
func RemoveAll(path string) error {
	return do("remove", path, func() error { return os.RemoveAll(path) })
}

// Rename is os.Rename, which follows no link.
func Rename(from, to string) error {
	return do("rename", to, func() error { return os.Rename(from, to) })
}

// SyncDir makes names created in or renamed to dir durable.
func SyncDir(dir string) error {
	return sync(dir, func() error { return syncDir(dir) })
}
