package checkpoint

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/internal/regular"
)

// writeFile writes and syncs a small file of the output.
func (w *Writer) writeFile(name string, data []byte) error {
	if !plainName(name) {
		panic(fmt.Sprintf("checkpoint: file %q, want a file's name", name))
	}
	path := filepath.Join(w.Folder(), name)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return diskError(path, err)
	}
	_, err = f.Write(data)
	return finishFile(f, err)
}

// copyAux copies and syncs an aux file.
func (w *Writer) copyAux(a AuxFile) error {
	if w.inv.source != nil {
		return w.writeFile(a.Path, w.inv.made[a.Path])
	}
	from := filepath.Join(w.inv.dir, filepath.FromSlash(a.Path))
	to := filepath.Join(w.Folder(), filepath.FromSlash(a.Path))
	src, _, err := regular.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return diskError(to, err)
	}
	// One byte more than planned, to notice a file that has grown.
	n, err := io.Copy(dst, io.LimitReader(src, a.Size+1))
	if err == nil && n != a.Size {
		err = fmt.Errorf("%s: changed since it was listed: %d bytes then", from, a.Size)
	}
	return finishFile(dst, err)
}

// finishFile syncs and closes f unless err.
func finishFile(f *os.File, err error) error {
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return diskError(f.Name(), err)
}

// syncTree syncs the folders of a tree: the names of the files in them.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncDir(path)
	})
}
