package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/crepe-llm/crepe/internal/regular"
)

// Source is a model that is stored in another form than a Hugging Face folder
// and can be read as one. Its methods may be called concurrently.
type Source interface {
	// Path is the file that was named.
	Path() string
	// Files are the small files of the folder, config.json among them, by name.
	Files() map[string][]byte
	// Tensors are those of the folder. File and Offset of each are where it
	// comes from; Size, DType and Shape are those of what ReadAt gives.
	Tensors() []Tensor
	// ReadAt is that of an Inventory.
	ReadAt(t Tensor, dst []byte, off int64) error
	// Stored are the open files that hold the tensors. They are the Source's.
	Stored() []*os.File
	Close() error
}

// FromSource returns the inventory of the folder that s stands for. It takes
// over s: Close closes it.
func FromSource(s Source) (*Inventory, error) {
	inv := &Inventory{dir: s.Path(), source: s, byName: map[string]int{}, metaKeys: map[string]bool{}, made: s.Files()}
	inv.config = inv.made[configName]
	if inv.config == nil {
		return nil, errors.Join(fmt.Errorf("%s: no %s can be made of it", inv.dir, configName), s.Close())
	}
	inv.storedConfig = inv.config
	for _, f := range s.Stored() {
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		inv.files = append(inv.files, weightFile{filepath.Base(f.Name()), st.Size(), f})
	}
	inv.tensors = s.Tensors()
	for i, t := range inv.tensors {
		inv.byName[t.Name] = i
	}
	for _, name := range slices.Sorted(maps.Keys(inv.made)) {
		inv.aux = append(inv.aux, AuxFile{name, int64(len(inv.made[name]))})
	}
	return inv, nil
}

// madeFile returns the content of a file that is not the one on disk, if name is one:
// what a Source makes, and the config of a folder whose weights are packed.
func (inv *Inventory) madeFile(name string) ([]byte, bool) {
	if inv.packed != nil && name == configName {
		return inv.config, true
	}
	text, made := inv.made[name]
	return text, made
}

// IsSource reports whether inv is of a Source, and no folder.
func (inv *Inventory) IsSource() bool { return inv.source != nil }

// ReadFile returns the content, at most limit bytes, of one of the folder's
// files that do not hold weights: on disk, or as the Source makes it.
func (inv *Inventory) ReadFile(name string, limit int64) ([]byte, error) {
	data, made := inv.madeFile(name)
	switch path := filepath.Join(inv.dir, name); {
	case !made && inv.source == nil:
		return regular.Read(path, limit)
	case !made:
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", path, len(data), limit)
	}
	return data, nil
}

// OpenFile opens one of the folder's files that do not hold weights, as ReadFile
// reads them.
func (inv *Inventory) OpenFile(name string) (io.ReadCloser, error) {
	if _, made := inv.madeFile(name); !made && inv.source == nil {
		f, _, err := regular.Open(filepath.Join(inv.dir, filepath.FromSlash(name)))
		return f, err
	}
	data, err := inv.ReadFile(name, math.MaxInt64)
	return io.NopCloser(bytes.NewReader(data)), err
}

// path returns the path of a weight file.
func (inv *Inventory) path(name string) string {
	if inv.source != nil {
		return filepath.Join(filepath.Dir(inv.dir), name)
	}
	return filepath.Join(inv.dir, name)
}
