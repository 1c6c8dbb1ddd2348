package checkpoint

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/provenance"
)

// The parts of a partial folder. Only out is ever renamed to the target, so
// the target never holds anything of the others.
const (
	lockName     = "lock"
	journalName  = "journal"
	outName      = "out"
	scratchName  = "scratch"  // the driver's
	replacedName = "replaced" // the old target, when overwriting
)

// copyBuffer is the memory that copying takes, in bytes.
const copyBuffer = 8 << 20

var (
	// ErrNoPartial is Resume's error if there is nothing to resume.
	ErrNoPartial = errors.New("nothing to resume")
	// ErrPartial is Create's error if an interrupted run could be resumed.
	ErrPartial = errors.New("an interrupted run")
	// ErrFinished is Resume's error if the interrupted run had only to rename
	// its output, which Resume has done.
	ErrFinished = errors.New("already complete")
)

// Options of a Writer.
type Options struct {
	// Provenance is all that the output depends on. Resume demands the same, and
	// its error says what differs.
	Provenance provenance.Record
	// Overwrite lets the output replace a model that is there, at the end, and
	// lets Create throw away what an interrupted run has left.
	Overwrite bool
}

// Writer fills an output folder. Until Commit it lies beside its target, in
// .<name>.crepe-partial:
//
//	lock      held by the process that writes
//	journal   how far it is
//	out/      the folder to be; every file in its full size from the start
//	scratch/  the driver's files
//
// Its methods may be called concurrently.
type Writer struct {
	plan      *Plan
	inv       *Inventory
	target    string // resolved
	partial   string
	overwrite bool

	lock    *fsys.File
	journal *journal
	files   []*fsys.File // one a shard

	aux     map[string]string // SHA-256 of the aux files
	damaged string            // Damaged

	mu      sync.Mutex
	written map[string]uint32 // CRC-32C of each tensor written
	recent  []string          // written since the last Mark
	dirty   []bool            // shards written since the last Sync
	done    map[string]json.RawMessage
}

// Create begins the output folder dir: it takes the disk space of everything
// in p, writes the headers and copies the aux files of inv. dir must not
// exist or be empty, unless Options.Overwrite.
func Create(dir string, p *Plan, inv *Inventory, o Options) (*Writer, error) {
	target, err := checkTarget(dir, inv, o.Overwrite)
	if err != nil {
		return nil, err
	}
	w := newWriter(target, p, inv)
	w.overwrite = o.Overwrite
	if err := w.takeLock(); err != nil {
		return nil, err
	}
	lines, _, _, err := readJournal(filepath.Join(w.partial, journalName))
	if !o.Overwrite && (err != nil || len(lines) > 0) {
		w.Close()
		return nil, partialError(dir, w.partial)
	}
	return w.start(o)
}

// Resume goes on with what Create began and a kill interrupted: of the steps
// that were marked nothing is lost, of others nothing counts. It refuses a
// folder made from anything but the same inputs with the same options. What was
// damaged since is done again, with all that came after it, and Damaged says so.
func Resume(dir string, p *Plan, inv *Inventory, o Options) (*Writer, error) {
	target, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	partial := partialPath(target)
	if _, err := os.Lstat(partial); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("output folder %s: %w: there is no %s", dir, ErrNoPartial, partial)
	}
	if target, err = resolveTarget(dir, inv); err != nil { // what is there is judged below
		return nil, err
	}
	w := newWriter(target, p, inv)
	if err := w.takeLock(); err != nil {
		return nil, err
	}
	lines, ends, damaged, err := readJournal(filepath.Join(partial, journalName))
	if err != nil {
		w.Close()
		return nil, err
	}
	w.damaged = damaged
	if len(lines) == 0 { // killed before the skeleton was complete, or after the last renaming
		return nil, cmp.Or(w.Abort(), fmt.Errorf("output folder %s: %w: %s holds nothing", dir, ErrNoPartial, partial))
	}
	if err := w.resume(dir, lines, ends, o); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func newWriter(target string, p *Plan, inv *Inventory) *Writer {
	return &Writer{
		plan: p, inv: inv, target: target, partial: partialPath(target),
		written: map[string]uint32{}, done: map[string]json.RawMessage{},
		files: make([]*fsys.File, len(p.Shards)), dirty: make([]bool, len(p.Shards)),
	}
}

func (w *Writer) begin(o Options) begin {
	return begin{Version: journalVersion, Plan: w.plan.Fingerprint(), Provenance: o.Provenance, Aux: w.aux, Overwrite: o.Overwrite}
}

// start makes the skeleton anew and begins the journal. If that goes wrong
// nothing is left behind.
func (w *Writer) start(o Options) (*Writer, error) {
	err := w.clear()
	if err == nil {
		err = w.skeleton()
	}
	if err == nil {
		w.journal, err = createJournal(filepath.Join(w.partial, journalName))
	}
	if err == nil {
		b := w.begin(o)
		err = w.journal.append(line{Begin: &b})
	}
	if err == nil {
		err = fsys.SyncDir(w.partial)
	}
	if err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

// clear removes what another run has left. The journal goes first: what is
// left without one counts as nothing.
func (w *Writer) clear() error {
	if err := w.restore(); err != nil {
		return err
	}
	for _, name := range [...]string{journalName, outName, scratchName} {
		if err := fsys.RemoveAll(filepath.Join(w.partial, name)); err != nil {
			return err
		}
	}
	return nil
}

// restore puts the folder that was to be replaced back, if a kill came between
// the two renamings of finish.
func (w *Writer) restore() error {
	replaced := filepath.Join(w.partial, replacedName)
	if _, err := os.Lstat(w.target); errors.Is(err, fs.ErrNotExist) && fsys.OwnDir(replaced) == nil {
		if err := fsys.Rename(replaced, w.target); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fsys.RemoveAll(replaced)
}

// skeleton writes all of the output but the tensors.
func (w *Writer) skeleton() error {
	need := w.plan.Bytes()
	if free, err := FreeBytes(w.partial); err == nil && free < need {
		return fmt.Errorf("%s: disk full: the output needs %d bytes, %d are free", filepath.Dir(w.target), need, free)
	}
	dirPerm, err := w.inv.dirPerm()
	if err != nil {
		return err
	}
	weightPerm, err := w.inv.weightPerm()
	if err != nil {
		return err
	}
	out := w.Folder()
	for _, dir := range [...]string{out, filepath.Join(w.partial, scratchName)} {
		if err := fsys.Mkdir(dir, dirPerm); err != nil {
			return err
		}
	}
	for i, s := range w.plan.Shards {
		f, err := fsys.CreateNew(filepath.Join(out, s.Name), weightPerm)
		if err != nil {
			return err
		}
		w.files[i] = f
		err = f.Allocate(s.Size)
		if err == nil {
			_, err = f.WriteAt(s.head, 0)
		}
		if err == nil {
			err = f.Sync()
		}
		if err != nil {
			return diskError(f.Name(), err)
		}
	}
	if w.plan.index != nil {
		if err := w.writeFile(indexName, w.plan.index); err != nil {
			return err
		}
	}
	w.aux = map[string]string{}
	for _, a := range w.plan.Aux {
		var err error
		if w.aux[a.Path], err = w.copyAux(a); err != nil {
			return err
		}
	}
	return syncTree(out)
}

// resume takes over the state that the journal tells.
func (w *Writer) resume(dir string, lines []line, ends []int64, o Options) error {
	b := lines[0].Begin
	var err error
	if w.aux, err = w.hashAux(b); err != nil {
		return err
	}
	if err := b.check(w.begin(o)); err != nil {
		return fmt.Errorf("%s: cannot be resumed: %w", w.partial, err)
	}
	w.overwrite = b.Overwrite || o.Overwrite
	last := lines[len(lines)-1]
	dirs := []string{w.Folder(), filepath.Join(w.partial, scratchName)}
	if last.Made {
		dirs = append(dirs, w.made())
	}
	for _, dir := range dirs {
		if err := fsys.OwnDir(dir); err != nil && !(errors.Is(err, fs.ErrNotExist) && last.Commit) {
			return err
		}
	}
	if last.Commit {
		if err := w.finish(last.Made); err != nil {
			return err
		}
		return fmt.Errorf("output folder %s: %w", dir, ErrFinished)
	}
	if err := checkFree(dir, w.target, w.overwrite); err != nil {
		return err
	}
	if err := w.recheckFiles(); err != nil {
		return err
	}
	whole, err := w.recheckTensors(lines[1:])
	if err != nil {
		return err
	}
	for _, l := range lines[1 : 1+whole] {
		w.done[l.Done] = l.Info
		for i, name := range l.Tensors {
			w.written[name] = l.Sums[i]
		}
	}
	w.journal, err = openJournal(filepath.Join(w.partial, journalName), ends[whole])
	return err
}

// Damaged says what Resume found damaged of the partial folder, empty if nothing;
// the steps from there on are not Done.
func (w *Writer) Damaged() string { return w.damaged }

// reopen opens a shard of the skeleton and checks that it is one.
func reopen(path string, s Shard) (*fsys.File, error) {
	f, err := reopenOf(path, s.Size)
	if err != nil {
		return nil, err
	}
	head := make([]byte, len(s.head))
	if _, err := io.ReadFull(f, head); err != nil || string(head) != string(s.head) {
		f.Close()
		return nil, notAsBegun(path)
	}
	return f, nil
}

// Folder returns the folder that is being filled. It can be opened as a
// checkpoint once every tensor is written.
func (w *Writer) Folder() string { return filepath.Join(w.partial, outName) }

// ScratchPath returns the path of a file for the driver's own use, which lives
// as long as the partial folder does.
func (w *Writer) ScratchPath(name string) string {
	if !plainName(name) {
		panic(fmt.Sprintf("checkpoint: ScratchPath(%q), want a file's name", name))
	}
	return filepath.Join(w.partial, scratchName, name)
}

// WriteTensor writes all of a tensor.
func (w *Writer) WriteTensor(name string, data []byte) error {
	t, ok := w.plan.Tensor(name)
	if !ok {
		return fmt.Errorf("tensor %s: not in the output's plan", name)
	}
	if int64(len(data)) != t.Size {
		panic(fmt.Sprintf("checkpoint: WriteTensor of %s: len(data) = %d, want %d", name, len(data), t.Size))
	}
	f := w.files[w.plan.byName[name].shard]
	if _, err := f.WriteAt(data, t.Offset); err != nil {
		return diskError(f.Name(), err)
	}
	w.wrote(name, crc32.Checksum(data, castagnoli))
	return nil
}

// CopyTensor writes a tensor as it is in the input.
func (w *Writer) CopyTensor(name string) error {
	src, ok := w.inv.Tensor(name)
	if dst, planned := w.plan.Tensor(name); planned && (!ok || src.Size != dst.Size) {
		panic(fmt.Sprintf("checkpoint: CopyTensor of %s: the plan is not of %s", name, w.inv.dir))
	}
	return w.WriteParts(name, copyBuffer, func(dst []byte, off int64) error { return w.inv.ReadAt(src, dst, off) })
}

// WriteParts writes all of a tensor in parts of so many bytes, the last perhaps of
// fewer: part fills each, which begins at byte off.
func (w *Writer) WriteParts(name string, bytes int64, part func(dst []byte, off int64) error) error {
	dst, ok := w.plan.Tensor(name)
	if !ok {
		return fmt.Errorf("tensor %s: not in the output's plan", name)
	}
	f := w.files[w.plan.byName[name].shard]
	buf := make([]byte, min(dst.Size, bytes))
	sum := uint32(0)
	for at := int64(0); at < dst.Size; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), dst.Size-at)]
		if err := part(buf, at); err != nil {
			return err
		}
		if _, err := f.WriteAt(buf, dst.Offset+at); err != nil {
			return diskError(f.Name(), err)
		}
		sum = crc32.Update(sum, castagnoli, buf)
	}
	w.wrote(name, sum)
	return nil
}

func (w *Writer) wrote(name string, sum uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty[w.plan.byName[name].shard] = true
	if _, again := w.written[name]; !again || !slices.Contains(w.recent, name) {
		w.recent = append(w.recent, name)
	}
	w.written[name] = sum
}

// Missing returns the tensors that are not written yet, in the output's order.
func (w *Writer) Missing() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var names []string
	for _, s := range w.plan.Shards {
		for _, t := range s.Tensors {
			if _, ok := w.written[t.Name]; !ok {
				names = append(names, t.Name)
			}
		}
	}
	return names
}

// Done reports whether a step has been marked, in this run or before it was
// interrupted.
func (w *Writer) Done(step string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.done[step]
	return ok
}

// Info reads what Mark kept with a step into v.
func (w *Writer) Info(step string, v any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := json.Unmarshal(w.done[step], v); err != nil {
		return fmt.Errorf("%s: step %q: %w", filepath.Join(w.partial, journalName), step, err)
	}
	return nil
}

// Mark notes that a step is done, with everything written so far, and keeps
// info with it. All of it is on disk when Mark returns.
func (w *Writer) Mark(step string, info any) error {
	if step == "" {
		panic("checkpoint: Mark of a step without name")
	}
	text, err := json.Marshal(info)
	if err != nil {
		return fmt.Errorf("step %q: %w", step, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.sync(); err != nil {
		return err
	}
	sums := make([]uint32, len(w.recent))
	for i, name := range w.recent {
		sums[i] = w.written[name]
	}
	if err := w.journal.append(line{Done: step, Tensors: w.recent, Sums: sums, Info: text}); err != nil {
		return err
	}
	w.recent = nil
	w.done[step] = text
	return nil
}

// Sync waits until everything written is on disk.
func (w *Writer) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sync()
}

func (w *Writer) sync() error {
	for i, f := range w.files {
		if w.dirty[i] {
			if err := f.Sync(); err != nil {
				return diskError(f.Name(), err)
			}
			w.dirty[i] = false
		}
	}
	return nil
}
