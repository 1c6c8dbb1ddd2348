package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/internal/regular"
)

// WriteFile writes and syncs a small file of the output that is not in its plan.
func (w *Writer) WriteFile(name string, data []byte) error { return w.writeFile(name, data) }

// writeFile writes and syncs a small file of the output.
func (w *Writer) writeFile(name string, data []byte) error {
	if !plainName(name) {
		panic(fmt.Sprintf("checkpoint: file %q, want a file's name", name))
	}
	path := filepath.Join(w.Folder(), name)
	f, err := fsys.Create(path, 0o666)
	if err != nil {
		return diskError(path, err)
	}
	_, err = f.Write(data)
	return finishFile(f, err)
}

// copyAux copies and syncs an aux file, and returns its SHA-256.
func (w *Writer) copyAux(a AuxFile) (string, error) {
	if text, made := w.inv.madeFile(a.Path); made {
		return hashOf(text), w.writeFile(a.Path, text)
	}
	from := filepath.Join(w.inv.dir, filepath.FromSlash(a.Path))
	to := filepath.Join(w.Folder(), filepath.FromSlash(a.Path))
	src, _, err := regular.Open(from)
	if err != nil {
		return "", err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return "", err
	}
	dirPerm, err := w.inv.dirPerm()
	if err != nil {
		return "", err
	}
	if err := fsys.MkdirAll(filepath.Dir(to), dirPerm); err != nil {
		return "", err
	}
	dst, err := fsys.Create(to, asPrivate(0o666, st))
	if err != nil {
		return "", diskError(to, err)
	}
	h := sha256.New()
	// One byte more than planned, to notice a file that has grown.
	n, err := io.Copy(io.MultiWriter(dst, h), io.LimitReader(src, a.Size+1))
	if err == nil && n != a.Size {
		err = fmt.Errorf("%s: changed since it was listed: %d bytes then", from, a.Size)
	}
	return hex.EncodeToString(h.Sum(nil)), finishFile(dst, err)
}

// asPrivate takes from perm what others may not do with st; the owner may do all of
// perm. The umask takes its share when a file is made.
func asPrivate(perm fs.FileMode, st fs.FileInfo) fs.FileMode {
	return perm & (st.Mode().Perm() | 0o700)
}

// dirPerm returns the mode of a folder with what is in inv's.
func (inv *Inventory) dirPerm() (fs.FileMode, error) {
	dir := inv.dir
	if inv.source != nil { // that is its file
		dir = filepath.Dir(dir)
	}
	st, err := os.Stat(dir)
	if err != nil {
		return 0, err
	}
	return asPrivate(0o777, st), nil
}

// weightPerm returns the mode of a file with weights of inv's.
func (inv *Inventory) weightPerm() (fs.FileMode, error) {
	perm := fs.FileMode(0o666)
	for _, f := range inv.files {
		st, err := f.f.Stat()
		if err != nil {
			return 0, err
		}
		perm = asPrivate(perm, st)
	}
	return perm, nil
}

// finishFile syncs and closes f unless err.
func finishFile(f *fsys.File, err error) error {
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
		return fsys.SyncDir(path)
	})
}
