package hf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/gguf"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// ExportOptions says how Export writes.
type ExportOptions struct {
	Name      string        // of the model, general.name
	Type      gguf.Type     // of the matrices: BF16, F16, Q8_0 or Q4_0
	Overwrite bool          // replace a file that is there
	Progress  func(n int64) // may be nil; told of so many more bytes of the folder's tensors
}

// ExportTypes are the types of matrices that Export writes.
var ExportTypes = []gguf.Type{gguf.BF16, gguf.F16, gguf.Q8_0, gguf.Q4_0}

// Export writes inv as a GGUF file at path, as llama.cpp's converter does:
// matrices in the type that is asked for, vectors and routers in float32. With
// Q4_0 the embedding and the head are Q8_0. What a file cannot say of a model is
// an error that names it, and nothing is written. The file appears whole or not
// at all.
func Export(ctx context.Context, inv *checkpoint.Inventory, path string, opt ExportOptions) error {
	if _, err := os.Lstat(path); err == nil && !opt.Overwrite {
		return fmt.Errorf("%s: exists: name another file, or replace it with --overwrite", path)
	}
	e, err := newExport(inv, opt)
	if err != nil {
		return fmt.Errorf("%s: %w", inv.Dir(), err)
	}
	head, size := e.header.Encode()
	if free, err := checkpoint.FreeBytes(filepath.Dir(path)); err == nil && free < size {
		return fmt.Errorf("%s: disk full: the file needs %d bytes, %d are free", path, size, free)
	}
	partial := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".crepe-partial")
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: another export is writing it, or was interrupted: remove the file if none is running", partial)
	}
	if err != nil {
		return err
	}
	if err := e.write(ctx, f, head, size); err != nil {
		f.Close()
		return errors.Join(fmt.Errorf("%s: %w", path, err), os.Remove(partial))
	}
	if err := os.Rename(partial, path); err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return nil
}

// export is a file to be written.
type export struct {
	inv    *checkpoint.Inventory
	opt    ExportOptions
	header gguf.Header
	parts  [][]part // of each tensor of the header
}

// part is a tensor of the folder and what is done to its rows.
type part struct {
	from  checkpoint.Tensor // no Name: values are the tensor
	head  int               // rows of a head, which are permuted; 0 for none
	shift float32           // added to each element
	made  []float32
}

func newExport(inv *checkpoint.Inventory, opt ExportOptions) (*export, error) {
	c, err := readSettings(inv.Config())
	if err != nil {
		return nil, err
	}
	a, err := findArchitecture("class", c.class(), func(a *architecture) string { return a.class })
	if err != nil {
		return nil, err
	}
	e := &export{inv: inv, opt: opt}
	w := &writer{m: &e.header.Metadata, arch: a.name}
	w.m.Set("general.architecture", a.name)
	w.m.Set("general.type", "model")
	w.m.Set("general.name", opt.Name)
	w.m.Set("general.quantization_version", uint32(2))
	w.m.Set("general.file_type", fileTypes[opt.Type])
	w.config(a, c)
	if c.err != nil {
		return nil, c.err
	}
	if err := w.tokenizer(inv, c); err != nil {
		return nil, err
	}
	return e, e.addTensors(a, c, w.factors)
}

// fileTypes are llama.cpp's numbers for what most matrices are.
var fileTypes = map[gguf.Type]uint32{gguf.F16: 1, gguf.Q4_0: 2, gguf.Q8_0: 7, gguf.BF16: 32}

// addTensors lays out the tensors: those that come from the config, and those
// of the folder in its order, experts where the first of them is.
func (e *export) addTensors(a *architecture, c *settings, factors map[string][]float32) error {
	for _, name := range factorNames {
		if v := factors[name]; v != nil {
			e.add(name, gguf.F32, []int{len(v)}, part{made: v})
		}
	}
	stacked := map[string]int{} // index of a tensor of experts in the header
	for _, t := range e.inv.Tensors() {
		if !t.DType.Computable() {
			return fmt.Errorf("tensor %s: dtype %v, want F32, F16 or BF16", t.Name, t.DType)
		}
		name, expert, ok := a.restore(t.Name)
		if !ok {
			if strings.HasSuffix(t.Name, ".rotary_emb.inv_freq") {
				continue // follows from the config
			}
			return fmt.Errorf("tensor %s: architecture %s of llama.cpp has no such", t.Name, a.name)
		}
		p := part{from: t}
		if a.permuted && isQK(t.Name) {
			p.head = c.headDim()
		}
		if a.shifted && strings.HasSuffix(t.Name, "norm.weight") {
			p.shift = 1
		}
		if expert < 0 {
			if err := e.addMatrix(name, t.Shape, p); err != nil {
				return err
			}
			continue
		}
		i, begun := stacked[name]
		if !begun {
			i = len(e.parts)
			stacked[name] = i
			if err := e.addMatrix(name, append([]int{c.size("num_experts")}, t.Shape...), make([]part, c.size("num_experts"))...); err != nil {
				return err
			}
		}
		if expert >= len(e.parts[i]) {
			return fmt.Errorf("tensor %s: want experts below %d", t.Name, len(e.parts[i]))
		}
		e.parts[i][expert] = p
	}
	return e.complete()
}

// complete checks that no expert is missing.
func (e *export) complete() error {
	for i, parts := range e.parts {
		for n, p := range parts {
			if p.from.Name == "" && p.made == nil {
				return fmt.Errorf("tensor %s: expert %d is missing", e.header.Tensors[i].Name, n)
			}
		}
	}
	return nil
}

// addMatrix adds a tensor in the type that it is to have.
func (e *export) addMatrix(name string, shape []int, parts ...part) error {
	kind := e.opt.Type
	switch {
	case len(shape) == 1 || strings.Contains(name, "ffn_gate_inp"):
		kind = gguf.F32
	case kind == gguf.Q4_0 && (name == "token_embd.weight" || name == "output.weight"):
		kind = gguf.Q8_0
	}
	if cols := shape[len(shape)-1]; cols%kind.Block() != 0 {
		return fmt.Errorf("tensor %s: rows of %d elements, want a multiple of %d for %v: export it as bf16 or f16", name, cols, kind.Block(), kind)
	}
	e.add(name, kind, shape, parts...)
	return nil
}

func (e *export) add(name string, kind gguf.Type, shape []int, parts ...part) {
	e.header.Tensors = append(e.header.Tensors, gguf.Tensor{Name: name, Type: kind, Shape: shape})
	e.parts = append(e.parts, parts)
}

// restore is the inverse of rename: the GGUF name of a tensor, and the number of
// the expert, −1 for none.
func (a *architecture) restore(name string) (string, int, bool) {
	stem, kind, ok := cutLast(name, ".")
	if !ok {
		return "", 0, false
	}
	for to, from := range outside {
		if from == stem {
			return to + "." + kind, -1, true
		}
	}
	rest, ok := strings.CutPrefix(stem, "model.layers.")
	block, in, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 {
		return "", 0, false
	}
	for to, from := range a.block {
		if from == in {
			return "blk." + block + "." + to + "." + kind, -1, true
		}
	}
	for to, from := range a.experts {
		var n int
		if _, err := fmt.Sscanf(in, from, &n); err == nil && fmt.Sprintf(from, n) == in {
			return "blk." + block + "." + to + "." + kind, n, true
		}
	}
	return "", 0, false
}

// write writes the file and syncs it.
func (e *export) write(ctx context.Context, f *os.File, head []byte, size int64) error {
	if _, err := f.Write(head); err != nil {
		return err
	}
	for i, t := range e.header.Tensors {
		if _, err := f.Seek(t.Offset, io.SeekStart); err != nil {
			return err
		}
		for _, p := range e.parts[i] {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := e.writePart(f, t.Type, p); err != nil {
				return err
			}
			if e.opt.Progress != nil {
				e.opt.Progress(p.from.Size)
			}
		}
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// writePart writes a part's rows, some at a time.
func (e *export) writePart(f *os.File, kind gguf.Type, p part) error {
	if p.made != nil {
		raw := make([]byte, kind.RowBytes(len(p.made)))
		kind.Quantize(raw, p.made)
		_, err := f.Write(raw)
		return err
	}
	t := p.from
	cols := t.Shape[len(t.Shape)-1]
	rows := int(t.Elements()) / cols
	if len(t.Shape) == 1 && p.head > 0 {
		rows, cols = cols, 1 // a bias is permuted by element
	}
	step := max(1, grain/cols)
	if p.head > 0 {
		step = max(1, step/p.head) * p.head
	}
	for lo := 0; lo < rows; lo += step {
		n := min(step, rows-lo)
		values, err := e.read(p, lo, n, cols)
		if err != nil {
			return err
		}
		raw := make([]byte, kind.RowBytes(len(values)))
		rowBytes := kind.RowBytes(cols)
		bad := make([]bool, n)
		parallel.For(n, 1+(1<<14)/cols, func(from, to int) {
			kind.Quantize(raw[from*rowBytes:to*rowBytes], values[from*cols:to*cols])
			bad[from] = kind == gguf.F16 && overflows(values[from*cols:to*cols])
		})
		for i, b := range bad {
			if b {
				return fmt.Errorf("tensor %s: an element from row %d on is beyond F16's 65504: export it as bf16", t.Name, lo+i)
			}
		}
		if _, err := f.Write(raw); err != nil {
			return err
		}
	}
	return nil
}

// overflows reports whether F16 makes an infinity of an element.
func overflows(v []float32) bool {
	for _, x := range v {
		if x >= 65520 || x <= -65520 {
			return true
		}
	}
	return false
}

// read returns rows lo to lo+n−1 of a part, in the order of the file.
func (e *export) read(p part, lo, n, cols int) ([]float32, error) {
	size := p.from.DType.Size()
	raw := make([]byte, n*cols*size)
	if err := e.inv.ReadAt(p.from, raw, int64(lo)*int64(cols*size)); err != nil {
		return nil, err
	}
	values := make([]float32, n*cols)
	stored[p.from.DType].Dequantize(values, raw)
	if p.shift != 0 { // −0 + 0 is +0
		for i := range values {
			values[i] += p.shift
		}
	}
	if p.head == 0 {
		return values, nil
	}
	out, v := make([]float32, n*cols), view{head: p.head}
	for r := range n {
		at := v.row(r) // heads are whole here, so lo does not matter
		copy(out[at*cols:(at+1)*cols], values[r*cols:(r+1)*cols])
	}
	return out, nil
}

// stored are the types of a folder's tensors as GGUF's.
var stored = map[tensor.DType]gguf.Type{tensor.F32: gguf.F32, tensor.F16: gguf.F16, tensor.BF16: gguf.BF16}

// readOptional reads a small file of the folder, nil if there is none.
func readOptional(inv *checkpoint.Inventory, name string) ([]byte, error) {
	data, err := inv.ReadFile(name, 16<<20)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}
