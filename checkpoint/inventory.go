// Package checkpoint reads and writes models as Hugging Face folders: config,
// safetensors files with or without an index, and whatever else lies beside.
//
//	Open      reads and checks every header, no weights: an Inventory
//	NewPlan   says which tensor goes where in the output: a Plan, no files touched
//	Create    makes the output beside its target, to be filled in any order,
//	          resumed after a kill, and renamed to its target when complete
//
// # Glossary
//
// A shard is one safetensors file of several. Aux files are all others that
// belong to the model: config, tokenizer, model card. A size is in bytes.
//
// # Reading
//
// Weights are read with pread into the caller's memory, in parallel, and not
// mapped. BenchmarkRead (1.1 GB, 2 cores of an AMD EPYC, Linux 6.18, 2026-11):
// from the page cache 12.8 GB/s, against 13.3 GB/s for a copy out of a mapping
// that is given back as it goes; from disk 2.0 GB/s against 1.3, for a fault
// reads ahead less than a request asks for. A mapping would also count in peak
// memory, and a file that shrinks under it would kill the process, where a
// pread past the end is an error like any other.
package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/internal/regular"
)

const (
	configName = "config.json"
	maxConfig  = 16 << 20 // bytes; a real one is below 100 KB

	// readGrain is the bytes that one pread is asked for: past 1 MiB the cost
	// of a call no longer shows, and the cores share even a small tensor.
	readGrain = 4 << 20
)

// Inventory is an opened checkpoint: everything about its tensors but their
// bytes, which are read on demand. Its methods may be called concurrently.
type Inventory struct {
	dir      string
	config   []byte
	files    []weightFile // in the order of the names
	tensors  []Tensor     // by file, then offset
	byName   map[string]int
	index    []member          // the index's metadata
	listed   map[string]string // by tensor, the file that an index says has it
	warnings []string
	aux      []AuxFile
	leftOut  []LeftOut
	metadata []pair            // __metadata__ of all files
	metaKeys map[string]bool   // its keys
	source   Source            // what is read in place of a folder, or nil
	made     map[string][]byte // its small files

	packed       map[string]*packedParts // by the plain tensor's name; nil where nothing is packed
	storedConfig []byte                  // config.json as it is stored
}

// weightFile is an open safetensors file.
type weightFile struct {
	name string
	size int64
	f    *os.File
}

// Open reads the checkpoint in dir: config.json, the index if it is used, and
// the header of each safetensors file. Everything that they say about sizes and
// places is checked here; weights are not read.
//
// Which files hold weights is decided as transformers does: model.safetensors
// where there is one, else the files that model.safetensors.index.json names,
// whole and in the order of their names, of two tensors of one name the later.
// That an index lists a tensor which no file has, or another file for it, is not
// an error here: what nothing reads may be missing. A folder with neither may
// hold one other *.safetensors alone.
func Open(dir string) (_ *Inventory, err error) {
	inv := &Inventory{dir: dir, byName: map[string]int{}, metaKeys: map[string]bool{}}
	defer func() {
		if err != nil {
			inv.Close()
		}
	}()
	if inv.config, err = inv.readConfig(); err != nil {
		return nil, err
	}
	inv.storedConfig = inv.config
	names, x, err := weightFiles(dir)
	if err != nil {
		return nil, err
	}
	if x != nil {
		inv.index, inv.listed = x.metadata, x.file
	}
	for _, name := range names {
		if err := inv.addFile(name, x != nil); err != nil {
			return nil, err
		}
	}
	inv.sortTensors()
	if err := inv.unpackView(); err != nil {
		return nil, err
	}
	if len(inv.tensors) == 0 {
		return nil, fmt.Errorf("%s: no tensor in it", filepath.Join(dir, names[0]))
	}
	if x == nil {
		if err := inv.compareIndexed(); err != nil {
			return nil, err
		}
	}
	return inv, inv.findAux()
}

func (inv *Inventory) readConfig() ([]byte, error) {
	path := filepath.Join(inv.dir, configName)
	if st, err := os.Stat(inv.dir); err != nil {
		return nil, err
	} else if !st.IsDir() {
		return nil, fmt.Errorf("%s: a file, want a model's folder", inv.dir)
	}
	text, err := regular.Read(path, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, strange(inv.dir, fmt.Errorf("%s: no %s in it: not a model in Hugging Face format", inv.dir, configName))
	}
	return text, err
}

// addFile opens a safetensors file and adds its tensors.
func (inv *Inventory) addFile(name string, indexed bool) error {
	path := filepath.Join(inv.dir, name)
	f, size, err := regular.Open(path)
	if errors.Is(err, fs.ErrNotExist) && indexed {
		return fmt.Errorf("%s: missing, though %s names it: download it again", path, indexName)
	}
	if err != nil {
		return err
	}
	inv.files = append(inv.files, weightFile{name, size, f})
	h, err := readHeader(f, size)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, t := range h.tensors {
		t.File = name
		if i, twice := inv.byName[t.Name]; twice {
			inv.warn("tensor %s is in %s and in %s: the latter's is taken, as transformers takes it", t.Name, inv.tensors[i].File, name)
			inv.tensors[i] = t
			continue
		}
		inv.byName[t.Name] = len(inv.tensors)
		inv.tensors = append(inv.tensors, t)
	}
	for _, p := range h.metadata {
		if !inv.metaKeys[p.key] {
			inv.metaKeys[p.key] = true
			inv.metadata = append(inv.metadata, p)
		}
	}
	return nil
}

// sortTensors puts the tensors in the order of files and offsets, in which
// addFile has left them but for those of a name that an earlier file had.
func (inv *Inventory) sortTensors() {
	slices.SortStableFunc(inv.tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size))
	})
	for i, t := range inv.tensors {
		inv.byName[t.Name] = i
	}
}

func (inv *Inventory) warn(format string, args ...any) {
	inv.warnings = append(inv.warnings, inv.dir+": "+fmt.Sprintf(format, args...))
}

// Warnings returns what about the folder may surprise its user: a line each.
func (inv *Inventory) Warnings() []string { return slices.Clone(inv.warnings) }

// Absent says, of a tensor that no file has, what is there in its place, or what
// the index has to say of it: "" if nothing.
func (inv *Inventory) Absent(name string) string {
	base := strings.TrimSuffix(name, ".weight")
	for _, packed := range []string{".qweight", ".weight_packed", ".scales", ".weight_scale"} {
		if _, ok := inv.byName[base+packed]; ok {
			return fmt.Sprintf("there is %s%s: the weights are quantized; prune the model that they were made from", base, packed)
		}
	}
	switch file := inv.listed[name]; {
	case file == "":
		return ""
	case inv.files[0].name == singleName:
		return fmt.Sprintf("%s lists it, but %s is read, as transformers reads it", indexName, singleName)
	default:
		return fmt.Sprintf("%s lists it in %s", indexName, file)
	}
}

// Dir returns the folder as it was given to Open, or the path of the Source.
func (inv *Inventory) Dir() string { return inv.dir }

// Config returns the bytes of config.json; where weights are packed, without the
// entry that says so.
func (inv *Inventory) Config() []byte { return inv.config }

// Tensors returns all tensors by file name, then offset. The slice is the
// caller's, the shapes are not.
func (inv *Inventory) Tensors() []Tensor { return slices.Clone(inv.tensors) }

// Tensor returns the tensor called name.
func (inv *Inventory) Tensor(name string) (Tensor, bool) {
	i, ok := inv.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return inv.tensors[i], true
}

// Aux returns the files that are not weights and go to the output as they are,
// by path.
func (inv *Inventory) Aux() []AuxFile { return slices.Clone(inv.aux) }

// LeftOut returns what lies in the folder and does not go to the output.
func (inv *Inventory) LeftOut() []LeftOut { return slices.Clone(inv.leftOut) }

// WeightBytes returns the size of all tensors.
func (inv *Inventory) WeightBytes() int64 {
	var n int64
	for _, t := range inv.tensors {
		n += t.Size
	}
	return n
}

// Close closes the files; Read is an error afterwards.
func (inv *Inventory) Close() error {
	if inv.source != nil {
		return inv.source.Close()
	}
	var errs []error
	for i := range inv.files {
		errs = append(errs, inv.files[i].f.Close())
	}
	return errors.Join(errs...)
}

// Read reads all of t into dst, whose length must be t.Size.
func (inv *Inventory) Read(t Tensor, dst []byte) error {
	if int64(len(dst)) != t.Size {
		panic(fmt.Sprintf("checkpoint: Read of %s: len(dst) = %d, want %d", t.Name, len(dst), t.Size))
	}
	return inv.ReadAt(t, dst, 0)
}

// ReadAt reads len(dst) bytes of t from byte off on, which must lie in t.
func (inv *Inventory) ReadAt(t Tensor, dst []byte, off int64) error {
	if off < 0 || int64(len(dst)) > t.Size-off {
		panic(fmt.Sprintf("checkpoint: ReadAt of %s: bytes %d to %d of %d", t.Name, off, off+int64(len(dst)), t.Size))
	}
	if inv.source != nil {
		return inv.source.ReadAt(t, dst, off)
	}
	if p, ok := inv.packed[t.Name]; ok {
		return inv.readUnpacked(t, p, dst, off)
	}
	i := slices.IndexFunc(inv.files, func(f weightFile) bool { return f.name == t.File })
	if i < 0 {
		panic(fmt.Sprintf("checkpoint: ReadAt of %s: %s is no file of %s", t.Name, t.File, inv.dir))
	}
	var once sync.Once
	var failed error
	parallel.For(len(dst), readGrain, func(lo, hi int) {
		if _, err := inv.files[i].f.ReadAt(dst[lo:hi], t.Offset+off+int64(lo)); err != nil {
			once.Do(func() { failed = err })
		}
	})
	if failed != nil {
		return fmt.Errorf("%s: tensor %s: %w", filepath.Join(inv.dir, t.File), t.Name, shrunk(failed))
	}
	return nil
}
