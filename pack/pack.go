// Package pack writes a folder's pruned weights in packed form, a bitmap and the
// elements that are kept, and writes the plain folder again.
//
// What a packed folder looks like is checkpoint's to say (checkpoint.PackedFormat),
// which shows it to everyone as the plain one. docs/pack.md describes it for users.
package pack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/regular"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/tensor"
)

// Options say where the folder goes.
type Options struct {
	Integers tensor.Integers // the values of Folder: zero for those of the weights

	Output    string
	Overwrite bool // replace a folder that crepe wrote

	Progress progress.Func
}

// DefaultGroup is how many columns share a scale of integers if nothing is said.
const DefaultGroup = 64

// Values are what weights are stored as, by name: in their own type, and as integers of
// the default group.
var Values = []struct {
	Name string
	tensor.Integers
}{
	{"bf16", tensor.Integers{}}, // whatever the type is
	{"int8", tensor.Integers{Bits: 8, Group: DefaultGroup}},
	{"int4", tensor.Integers{Bits: 4, Group: DefaultGroup}},
}

// Result says what was packed or unpacked.
type Result struct {
	Linears  int   `json:"linears"`          // packed ones
	Tables   int   `json:"tables,omitempty"` // embedding and head, if they are integers
	Weights  int64 `json:"weights"`          // of these
	Kept     int64 `json:"kept"`             // of these, stored
	Plain    int64 `json:"plain"`            // bytes of these, plain
	Packed   int64 `json:"packed"`           // and packed
	AllPlain int64 `json:"all_plain"`
	All      int64 `json:"all_packed"` // bytes of all tensors
}

// ErrNotSmaller is Folder's error if it would pack nothing.
var ErrNotSmaller = errors.New("no Linear has zeros enough to be smaller in packed form")

// Folder writes the model m, whose checkpoint is inv, to a folder in which every
// Linear of a block that is smaller so is packed. Everything else is copied byte for
// byte, crepe.json included; config.json gets an entry. One matrix is in memory at a
// time. The folder appears complete or not at all.
//
// As integers weights are not what they were. Those of 8 bits are off by at most 1/128 of
// the largest of their group, and what comes of them is exact in the weight's type.
// Embedding and head become integers of 8 bits, whatever those of the Linears have.
func Folder(ctx context.Context, inv *checkpoint.Inventory, m *model.Model, opt Options) (*Result, error) {
	if err := checkTarget(inv, opt); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(inv.Tensors(), inv.Packed) {
		return nil, fmt.Errorf("%s: packed already", inv.Dir())
	}
	if err := opt.Integers.Check(); err != nil {
		return nil, err
	}
	p := &packer{inv: inv, opt: opt, stored: map[string]stored{}}
	if err := p.count(ctx, m); err != nil {
		return nil, err
	}
	if p.result.Linears == 0 {
		return nil, fmt.Errorf("%s: %w: prune it first", inv.Dir(), ErrNotSmaller)
	}
	plan, config, err := p.plan()
	if err != nil {
		return nil, err
	}
	record := Record{Crepe: provenance.Version, Format: checkpoint.FormatOf(opt.Integers), Order: order(inv.Layouts())}
	if !record.Rounded() {
		if record.Plain, err = inv.Reproducible(opt.Progress.Bytes("hash the input")); err != nil {
			return nil, err
		}
	}
	files := map[string][]byte{}
	if err := carryRun(inv, files); err != nil {
		return nil, err
	}
	write := func(w *checkpoint.Writer) error {
		if err := w.WriteFile("config.json", config); err != nil {
			return err
		}
		return p.write(ctx, w)
	}
	return &p.result, create(plan, inv, opt, write, func(hashes map[string]string) (map[string][]byte, error) {
		record.Files = hashes
		text, err := json.MarshalIndent(record, "", " ")
		files[checkpoint.PackRecordName] = append(text, '\n')
		return files, err
	})
}

// packer is one packing at work.
type packer struct {
	inv    *checkpoint.Inventory
	opt    Options
	stored map[string]stored // by the tensors that are packed
	result Result
}

// stored is what of a tensor is stored: so many elements or bytes of integers.
type stored struct {
	tensor.Integers
	n int
}

// IsTable reports whether a tensor is the matrix of embedding or head.
func IsTable(t checkpoint.Tensor) bool {
	return t.Name == "lm_head.weight" || t.Name == "embed_tokens.weight" || strings.HasSuffix(t.Name, ".embed_tokens.weight")
}

// formOf returns what the values of t, a Linear or a table, are to be.
func (p *packer) formOf(t checkpoint.Tensor) tensor.Integers {
	k := p.opt.Integers
	if k.Bits > 0 && IsTable(t) {
		k.Bits = 8
	}
	return k
}

// count finds out which matrices are smaller in packed form.
func (p *packer) count(ctx context.Context, m *model.Model) error {
	bar := p.opt.Progress.Start("count", int64(m.Blocks()), "blocks")
	p.result.AllPlain, p.result.All = p.inv.WeightBytes(), p.inv.WeightBytes()
	for b := range m.Blocks() {
		for _, l := range m.Linears(b) {
			if err := ctx.Err(); err != nil {
				return err
			}
			t, ok := p.inv.Tensor(l.Name + ".weight")
			if !ok {
				return fmt.Errorf("%s: no tensor %s.weight", p.inv.Dir(), l.Name)
			}
			if err := p.take(t); err != nil {
				return err
			}
		}
		bar.Add(1)
	}
	if p.opt.Integers.Bits == 0 {
		return nil
	}
	for _, t := range p.inv.Tensors() {
		if IsTable(t) && len(t.Shape) == 2 && t.DType.Computable() {
			if err := p.take(t); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// take notes that t is packed, if that makes it smaller.
func (p *packer) take(t checkpoint.Tensor) error {
	w, err := p.read(t)
	if err != nil {
		return err
	}
	kept, k := w.Kept(), p.formOf(t)
	n := kept
	if k.Bits > 0 {
		n = k.Bytes(w)
	}
	size := int64(0)
	for _, part := range checkpoint.PackedLayout(t, k, n) {
		size += part.Size
	}
	if size >= t.Size {
		return nil
	}
	p.stored[t.Name] = stored{k, n}
	r := &p.result
	r.All += size - t.Size
	if IsTable(t) {
		r.Tables++
		return nil
	}
	r.Linears++
	r.Weights, r.Kept = r.Weights+t.Elements(), r.Kept+int64(kept)
	r.Plain, r.Packed = r.Plain+t.Size, r.Packed+size
	return nil
}

func (p *packer) read(t checkpoint.Tensor) (*tensor.Weight, error) {
	w := tensor.NewWeight(t.DType, t.Shape[0], t.Shape[1])
	return w, p.inv.Read(t, w.Bytes())
}

// plan returns the output's plan and its config.json.
func (p *packer) plan() (*checkpoint.Plan, []byte, error) {
	files := p.inv.Layouts()
	var matrices []string
	for i, f := range files {
		var tensors []checkpoint.Tensor
		for _, t := range f.Tensors {
			is, packed := p.stored[t.Name]
			if !packed {
				tensors = append(tensors, t)
				continue
			}
			matrices = append(matrices, t.Name[:len(t.Name)-len(".weight")])
			tensors = append(tensors, checkpoint.PackedLayout(t, is.Integers, is.n)...)
		}
		files[i].Tensors = tensors
	}
	config, err := checkpoint.PackedConfig(p.inv.Config(), p.opt.Integers, matrices, 1-float64(p.result.Kept)/float64(p.result.Weights))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p.inv.Dir(), err)
	}
	plan, err := checkpoint.PlanFiles(p.inv, files)
	if err != nil {
		return nil, nil, err
	}
	plan.Replace("config.json")
	return plan, config, nil
}

// write writes every tensor.
func (p *packer) write(ctx context.Context, w *checkpoint.Writer) error {
	bar := p.opt.Progress.Start("pack", p.inv.WeightBytes(), "bytes")
	for _, t := range p.inv.Tensors() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if is, packed := p.stored[t.Name]; !packed {
			if err := w.CopyTensor(t.Name); err != nil {
				return err
			}
		} else if err := p.writePacked(w, t, is); err != nil {
			return err
		}
		bar.Add(t.Size)
	}
	return nil
}

func (p *packer) writePacked(w *checkpoint.Writer, t checkpoint.Tensor, is stored) error {
	plain, err := p.read(t)
	if err != nil {
		return err
	}
	packed, err := is.pack(plain)
	if err != nil {
		return fmt.Errorf("%s: tensor %s: %w", p.inv.Dir(), t.Name, err)
	}
	parts, data := checkpoint.PackedTensors(t, packed)
	if want := checkpoint.PackedLayout(t, is.Integers, is.n); !slices.EqualFunc(parts, want, func(a, b checkpoint.Tensor) bool { return a.Size == b.Size }) {
		return fmt.Errorf("%s: tensor %s: changed since it was counted", p.inv.Dir(), t.Name)
	}
	for i, part := range parts {
		if err := w.WriteTensor(part.Name, data[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s stored) pack(w *tensor.Weight) (*tensor.Packed, error) {
	if s.Bits > 0 {
		return tensor.PackIntegers(w, s.Integers)
	}
	return tensor.Pack(w), nil
}

// checkTarget refuses an output that cannot be written, before any work.
func checkTarget(inv *checkpoint.Inventory, opt Options) error {
	err := checkpoint.CheckTarget(opt.Output, inv, opt.Overwrite)
	if errors.Is(err, checkpoint.ErrPartial) {
		return fmt.Errorf("output folder %s: %w lies beside it: name another, or throw that away with --overwrite", opt.Output, checkpoint.ErrPartial)
	}
	return err
}

// create writes a folder: its tensors by write, and then the files that finish
// returns, which is told the hashes of config and weight files.
func create(plan *checkpoint.Plan, inv *checkpoint.Inventory, opt Options, write func(*checkpoint.Writer) error,
	finish func(hashes map[string]string) (map[string][]byte, error)) error {
	w, err := checkpoint.Create(opt.Output, plan, inv, checkpoint.Options{
		Provenance: provenance.Record{{Name: "work", Value: "pack"}}, Overwrite: opt.Overwrite,
	})
	if err != nil {
		return err
	}
	defer w.Close() // what Commit has failed to place is not locked
	err = write(w)
	var hashes map[string]string
	if err == nil {
		err = w.Sync()
	}
	if err == nil {
		hashes, err = folderHashes(w.Folder(), opt.Progress)
	}
	var files map[string][]byte
	if err == nil {
		files, err = finish(hashes)
	}
	if err != nil {
		return errors.Join(err, w.Abort())
	}
	return w.Commit(files)
}

func folderHashes(dir string, report progress.Func) (map[string]string, error) {
	inv, err := checkpoint.Open(dir)
	if err != nil {
		return nil, err
	}
	defer inv.Close() // an open file would stop Commit on Windows
	return inv.Hashes(report.Bytes("hash the output"))
}

// carryRun adds what crepe prune has left in inv's folder, as it is.
func carryRun(inv *checkpoint.Inventory, files map[string][]byte) error {
	if inv.IsSource() {
		return nil
	}
	for _, name := range []string{checkpoint.ManifestName, checkpoint.MeasuresName} {
		text, err := regular.Read(filepath.Join(inv.Dir(), name), checkpoint.MaxManifest)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			files[name] = text
		}
	}
	return nil
}

func order(files []checkpoint.Layout) []File {
	all := make([]File, len(files))
	for i, f := range files {
		all[i].Name = f.Name
		for _, t := range f.Tensors {
			all[i].Tensors = append(all[i].Tensors, t.Name)
		}
	}
	return all
}

// Count returns what is packed in inv, and what it takes.
func Count(inv *checkpoint.Inventory) (*Result, error) {
	var res Result
	for _, t := range inv.Tensors() {
		res.AllPlain, res.All = res.AllPlain+t.Size, res.All+inv.Stored(t)
		switch {
		case !inv.Packed(t):
		case IsTable(t):
			res.Tables++
		default:
			res.Linears++
			kept, err := inv.Kept(t)
			if err != nil {
				return nil, err
			}
			res.Weights, res.Kept = res.Weights+t.Elements(), res.Kept+kept
			res.Plain, res.Packed = res.Plain+t.Size, res.Packed+inv.Stored(t)
		}
	}
	return &res, nil
}

// FormOf returns what the packed values of inv's Linears are; nil if none is packed.
func FormOf(inv *checkpoint.Inventory) *tensor.Integers {
	for _, t := range inv.Tensors() {
		if inv.Packed(t) && !IsTable(t) {
			k := inv.Integers(t)
			return &k
		}
	}
	return nil
}

// Unpack writes the plain folder that the packed folder inv was made from. Where
// crepe packed it, files of weights and config are held to the hashes that it
// recorded: they come back byte for byte. Of integers it writes the weights that they
// stand for, and leaves out what crepe prune says of others.
func Unpack(ctx context.Context, inv *checkpoint.Inventory, opt Options) (*Result, error) {
	if err := checkTarget(inv, opt); err != nil {
		return nil, err
	}
	res, err := Count(inv)
	if err != nil {
		return nil, err
	}
	if res.Linears == 0 {
		return nil, fmt.Errorf("%s: no weight in it is packed", inv.Dir())
	}
	files := inv.Layouts()
	record, err := ReadRecord(inv.Dir())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		record = &Record{} // another program packed it
	case err != nil:
		return nil, err
	default:
		if files, err = record.layouts(inv); err != nil {
			return nil, err
		}
	}
	plan, err := checkpoint.PlanFiles(inv, files)
	if err != nil {
		return nil, err
	}
	extra := map[string][]byte{}
	if !record.Rounded() {
		if err := carryRun(inv, extra); err != nil {
			return nil, err
		}
	}
	write := func(w *checkpoint.Writer) error {
		bar := opt.Progress.Start("unpack", inv.WeightBytes(), "bytes")
		for _, t := range inv.Tensors() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := w.CopyTensor(t.Name); err != nil {
				return err
			}
			bar.Add(t.Size)
		}
		return nil
	}
	return res, create(plan, inv, opt, write, func(hashes map[string]string) (map[string][]byte, error) {
		for _, name := range slices.Sorted(maps.Keys(record.Plain)) {
			if want := record.Plain[name]; hashes[name] != want {
				return nil, fmt.Errorf("%s: %s does not come back as it was packed (SHA-256 %s, %s has %s): the packed folder was changed",
					inv.Dir(), name, hashes[name], checkpoint.PackRecordName, want)
			}
		}
		return extra, nil
	})
}
