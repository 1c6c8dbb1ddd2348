package gguf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/crepe-llm/crepe/internal/regular"
)

// The keys that splits have.
const (
	splitNo      = "split.no"
	splitCount   = "split.count"
	splitTensors = "split.tensors.count"
	maxSplits    = 99999 // five digits
)

// splitName is the name of a split: "name-00001-of-00003.gguf".
var splitName = regexp.MustCompile(`^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// File is an open GGUF file, or several that are the splits of one. Its methods
// may be called concurrently.
type File struct {
	Metadata Metadata // the first split's
	Tensors  []Tensor // of all splits, in their order

	path   string
	parts  []*os.File
	byName map[string]int
}

// Open reads and checks the head of the file at path, and of the other splits
// if it is the first of several; tensors are not read.
func Open(path string) (_ *File, err error) {
	f := &File{path: path, byName: map[string]int{}}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	first, err := f.add(path)
	if err != nil {
		return nil, err
	}
	f.Metadata = first.metadata
	if !f.Metadata.Has(splitCount) {
		return f, nil
	}
	count, err := f.splits()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := 1; i < count; i++ {
		if err := f.addSplit(i, count); err != nil {
			return nil, err
		}
	}
	if f.Metadata.Has(splitTensors) {
		if _, err := f.Metadata.Int(splitTensors, len(f.Tensors), len(f.Tensors)); err != nil {
			return nil, fmt.Errorf("%s: %w: the number of tensors in its %d splits", path, err, count)
		}
	}
	return f, nil
}

// splits returns the number of splits, of which f has opened the first.
func (f *File) splits() (int, error) {
	count, err := f.Metadata.Int(splitCount, 0, maxSplits)
	if err != nil || count < 2 {
		return 1, err
	}
	name := splitName.FindStringSubmatch(filepath.Base(f.path))
	if name == nil {
		return 0, fmt.Errorf("one of %d splits: want a name like model-00001-of-%05d.gguf", count, count)
	}
	no, err := f.Metadata.Int(splitNo, 0, count-1)
	if err != nil {
		return 0, err
	}
	if no != 0 {
		return 0, fmt.Errorf("split %d of %d: name the first, %s", no+1, count, splitPath(f.path, 0, count))
	}
	if n, _ := strconv.Atoi(name[3]); name[2] != "00001" || n != count {
		return 0, fmt.Errorf("the first of %d splits, want a name that ends in -00001-of-%05d.gguf", count, count)
	}
	return count, nil
}

// splitPath returns the path of split i, counted from 0, beside that at path.
func splitPath(path string, i, count int) string {
	prefix := splitName.FindStringSubmatch(filepath.Base(path))[1]
	return filepath.Join(filepath.Dir(path), fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, i+1, count))
}

// addSplit opens split i.
func (f *File) addSplit(i, count int) error {
	path := splitPath(f.path, i, count)
	h, err := f.add(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: missing: %s is the first of %d splits", path, f.path, count)
	}
	if err != nil {
		return err
	}
	_, err = h.metadata.Int(splitNo, i, i)
	if err == nil {
		_, err = h.metadata.Int(splitCount, count, count)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// add opens one file and adds its tensors.
func (f *File) add(path string) (*head, error) {
	file, size, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	f.parts = append(f.parts, file)
	h, err := readHead(file, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, t := range h.tensors {
		if _, twice := f.byName[t.Name]; twice {
			return nil, fmt.Errorf("%s: tensor %.100s is in another split too", path, t.Name)
		}
		t.part = len(f.parts) - 1
		f.byName[t.Name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
	}
	return h, nil
}

// Path returns the path as it was given to Open.
func (f *File) Path() string { return f.path }

// Files returns the open files: one, or the splits in order. They are f's.
func (f *File) Files() []*os.File { return f.parts }

// Tensor returns the tensor called name.
func (f *File) Tensor(name string) (Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return f.Tensors[i], true
}

// Holds returns the path of the file that holds t.
func (f *File) Holds(t Tensor) string { return f.parts[t.part].Name() }

// ReadRows writes rows lo to hi−1 of t, dequantised, to dst.
func (f *File) ReadRows(t Tensor, dst []float32, lo, hi int) error {
	if lo < 0 || hi < lo || hi > t.Rows() || len(dst) != (hi-lo)*t.Cols() {
		panic(fmt.Sprintf("gguf: ReadRows of %s: rows %d to %d of %d to %d elements", t.Name, lo, hi, t.Rows(), len(dst)))
	}
	raw := make([]byte, t.Type.RowBytes(len(dst)))
	if _, err := f.parts[t.part].ReadAt(raw, t.Offset+int64(t.Type.RowBytes(t.Cols()))*int64(lo)); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file has become shorter since it was opened")
		}
		return fmt.Errorf("%s: tensor %.100s: %w", f.Holds(t), t.Name, err)
	}
	t.Type.Dequantize(dst, raw)
	return nil
}

// Close closes the files.
func (f *File) Close() error {
	var errs []error
	for _, file := range f.parts {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
