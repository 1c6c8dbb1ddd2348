package checkpoint

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"unsafe"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/tensor"
)

// PackedFormat is the name of the packed form in config.json. It is that of
// compressed-tensors, which wrote it up to version 0.14. A weight X.weight of
// rows × cols is four tensors:
//
//	X.shape        I64 [2]                 rows, cols
//	X.row_offsets  I64 [rows]              where among the values each row begins
//	X.bitmask      U8 [rows, ⌈cols/8⌉]     bit j%8 of byte j/8: element j is stored
//	X.compressed   the weight's type [n]   the stored elements, row after row
//
// Old versions have X.weight.shape and so on.
//
// Integers in place of the values are crepe's own: PackedFormat and, after a hyphen, int8
// or int4. Then the weight is of the type of its scales, and
//
//	X.shape        I64 [3]                    rows, cols, columns to a scale
//	X.row_offsets  I64 [rows]                 at which byte of the integers each row begins
//	X.compressed   I8 or U8 [n]               the integers; of 4 bits two in a byte (kernel.Integers)
//	X.scale        the weight's type [rows, ⌈cols/group⌉]
const PackedFormat = "sparse-bitmask"

// FormatOf returns the name of the packed form with values of k.
func FormatOf(k tensor.Integers) string {
	if k.Bits == 0 {
		return PackedFormat
	}
	return fmt.Sprintf("%s-int%d", PackedFormat, k.Bits)
}

// The parts of a packed weight, by the end of their names.
const (
	partShape   = "shape"
	partOffsets = "row_offsets"
	partMask    = "bitmask"
	partValues  = "compressed"
	partScale   = "scale"
)

// The keys of config.json under which compressed-tensors says how weights are stored.
var compressionKeys = []string{"quantization_config", "compression_config"}

// packedParts is where a weight in packed form lies. Its Tensor in an Inventory is
// that of the plain weight, in place of the values.
type packedParts struct {
	rows, cols            int
	offsets, mask, values Tensor
	shape                 Tensor

	integers tensor.Integers
	scale    Tensor // of integers
}

// stored returns the bytes that it takes in its files.
func (p *packedParts) stored() int64 {
	return p.shape.Size + p.offsets.Size + p.mask.Size + p.values.Size + p.scale.Size
}

// resident returns the bytes that it takes in memory: scales are float32 there.
func (p *packedParts) resident() int64 {
	n := p.stored()
	if p.integers.Bits > 0 {
		n += 4*p.scale.Elements() - p.scale.Size
	}
	return n
}

// Packed reports whether t is stored in packed form. Read gives it as a plain weight
// all the same.
func (inv *Inventory) Packed(t Tensor) bool {
	_, ok := inv.packed[t.Name]
	return ok
}

// Stored returns the bytes that t takes in its files: fewer than its Size, if it is
// packed.
func (inv *Inventory) Stored(t Tensor) int64 {
	if p, ok := inv.packed[t.Name]; ok {
		return p.stored()
	}
	return t.Size
}

// StoredBytes returns the bytes that all tensors take in their files.
func (inv *Inventory) StoredBytes() int64 {
	n := int64(0)
	for _, t := range inv.Tensors() {
		n += inv.Stored(t)
	}
	return n
}

// Resident returns the bytes that t takes in memory as ReadPacked gives it, if it is
// packed, and else its Size.
func (inv *Inventory) Resident(t Tensor) int64 {
	if p, ok := inv.packed[t.Name]; ok {
		return p.resident()
	}
	return t.Size
}

// Integers returns what the values of t are, if it is packed as integers, else zero.
func (inv *Inventory) Integers(t Tensor) tensor.Integers {
	if p, ok := inv.packed[t.Name]; ok {
		return p.integers
	}
	return tensor.Integers{}
}

// Kept returns how many elements of t are stored: all, unless it is packed. Of integers
// it reads the mask.
func (inv *Inventory) Kept(t Tensor) (int64, error) {
	p, ok := inv.packed[t.Name]
	switch {
	case !ok:
		return t.Elements(), nil
	case p.integers.Bits == 0:
		return p.values.Elements(), nil
	}
	mask := make([]byte, p.mask.Size)
	err := inv.Read(p.mask, mask)
	return int64(kernel.MaskCount(mask)), err
}

// unpackView makes inv, if its config says that weights are packed, show the plain
// folder: one tensor for each packed weight, and a config without that entry.
func (inv *Inventory) unpackView() error {
	plain, packed := plainConfig(inv.config)
	if !packed {
		return nil
	}
	if err := inv.gatherParts(); err != nil {
		return err
	}
	inv.config = plain
	return nil
}

// integersMethod is the quant_method of packed integers in config.json, which no other
// program knows, and integerFormats their formats.
const integersMethod = "crepe"

var integerFormats = []string{FormatOf(tensor.Integers{Bits: 8}), FormatOf(tensor.Integers{Bits: 4})}

// plainConfig returns a config.json without the entry that says that weights are in
// PackedFormat. One that says more, as of quantized weights, stays: whoever reads the
// config refuses it by name.
func plainConfig(config []byte) (plain []byte, packed bool) {
	var top map[string]json.RawMessage
	if pyjson.Unmarshal(config, &top) != nil {
		return nil, false // the config's reader says why
	}
	for _, key := range compressionKeys {
		var c struct {
			Method   string `json:"quant_method"`
			Format   *string
			Groups   json.RawMessage         `json:"config_groups"`
			Sparsity struct{ Format string } `json:"sparsity_config"`
		}
		if json.Unmarshal(top[key], &c) != nil {
			continue
		}
		ours := c.Method == integersMethod && c.Format != nil && slices.Contains(integerFormats, *c.Format)
		theirs := c.Sparsity.Format == PackedFormat &&
			(c.Format == nil || *c.Format == "dense") && slices.Contains([]string{"", "null", "{}"}, string(c.Groups))
		if !ours && !theirs {
			continue
		}
		if plain, ok := removeMember(config, key); ok {
			return plain, true
		}
	}
	return nil, false
}

// gatherParts puts one plain tensor in place of the parts of each packed weight.
func (inv *Inventory) gatherParts() error {
	inv.packed = map[string]*packedParts{}
	var tensors []Tensor
	for _, t := range inv.tensors {
		base, part := splitPart(t.Name)
		if _, packed := inv.byName[base+"."+partValues]; part == partScale && !packed {
			part = "" // a tensor of that name
		}
		switch part {
		case "":
			tensors = append(tensors, t)
		case partValues:
			plain, err := inv.gather(base, t)
			if err != nil {
				return fmt.Errorf("%s: packed weight %.200q: %w", filepath.Join(inv.dir, t.File), base, err)
			}
			tensors = append(tensors, plain)
		default:
			if _, ok := inv.byName[base+"."+partValues]; !ok {
				return fmt.Errorf("%s: tensor %.200q: no %s.%s beside it", filepath.Join(inv.dir, t.File), t.Name, base, partValues)
			}
		}
	}
	inv.tensors, inv.byName = tensors, map[string]int{}
	for i, t := range tensors {
		if j, twice := inv.byName[t.Name]; twice {
			return fmt.Errorf("%s: tensor %.200q is there plain and packed (in %s)", inv.dir, t.Name, tensors[j].File)
		}
		inv.byName[t.Name] = i
	}
	return nil
}

// splitPart splits the name of a part of a packed weight; part is empty for others.
func splitPart(name string) (base, part string) {
	base, part, ok := cutLast(name)
	if ok && slices.Contains([]string{partShape, partOffsets, partMask, partValues, partScale}, part) {
		return base, part
	}
	return "", ""
}

func cutLast(name string) (before, after string, ok bool) {
	i := strings.LastIndexByte(name, '.')
	if i < 0 {
		return name, "", false
	}
	return name[:i], name[i+1:], true
}

// plainWeight returns the name of the weight whose parts are called base and more.
func plainWeight(base string) string {
	if strings.HasSuffix(base, ".weight") {
		return base
	}
	return base + ".weight"
}

// gather checks the parts of a packed weight against each other and returns the plain
// one's tensor. Of data it reads the shape.
func (inv *Inventory) gather(base string, values Tensor) (Tensor, error) {
	p := &packedParts{values: values}
	for _, part := range []struct {
		name  string
		to    *Tensor
		dtype tensor.DType
		rank  int
	}{{partShape, &p.shape, tensor.I64, 1}, {partOffsets, &p.offsets, tensor.I64, 1}, {partMask, &p.mask, tensor.U8, 2}} {
		t, ok := inv.Tensor(base + "." + part.name)
		switch {
		case !ok:
			return t, fmt.Errorf("no tensor %s.%s", base, part.name)
		case t.DType != part.dtype || len(t.Shape) != part.rank:
			return t, fmt.Errorf("%s is %v %v, want %v of %d dimensions", part.name, t.DType, t.Shape, part.dtype, part.rank)
		}
		*part.to = t
	}
	p.scale, _ = inv.Tensor(base + "." + partScale)
	sizes, dtype := 2, values.DType
	if p.scale.Name != "" {
		sizes, dtype = 3, p.scale.DType
		p.integers.Bits = 8
		if values.DType == tensor.U8 {
			p.integers.Bits = 4
		}
	}
	switch {
	case len(values.Shape) != 1 || sizes == 2 && !values.DType.Computable():
		return values, fmt.Errorf("%s is %v %v, want F32, F16 or BF16 of 1 dimension", partValues, values.DType, values.Shape)
	case sizes == 3 && values.DType != tensor.I8 && values.DType != tensor.U8:
		return values, fmt.Errorf("%s is %v, want I8 or U8 beside a %s", partValues, values.DType, partScale)
	case sizes == 3 && (!p.scale.DType.Computable() || len(p.scale.Shape) != 2):
		return values, fmt.Errorf("%s is %v %v, want F32, F16 or BF16 of 2 dimensions", partScale, p.scale.DType, p.scale.Shape)
	case p.shape.Shape[0] != sizes:
		return values, fmt.Errorf("%s has %d elements, want %d", partShape, p.shape.Shape[0], sizes)
	}
	var raw [24]byte
	if err := inv.Read(p.shape, raw[:8*sizes]); err != nil {
		return values, err
	}
	rows, cols := binary.LittleEndian.Uint64(raw[:]), binary.LittleEndian.Uint64(raw[8:])
	if rows == 0 || cols == 0 {
		return values, fmt.Errorf("shape [%d %d], want one element at least", rows, cols)
	}
	// The mask is in the file, so what is believed is at most 8 times its bytes.
	if mask := p.mask.Shape; rows != uint64(mask[0]) || cols > 8*uint64(mask[1]) || mask[1] != kernel.MaskStride(int(cols)) || p.offsets.Shape[0] != mask[0] {
		return values, fmt.Errorf("shape [%d %d] with %s %v and %s %v, want [rows cols] with [rows cols/8] and [rows]",
			rows, cols, partMask, p.mask.Shape, partOffsets, p.offsets.Shape)
	}
	p.rows, p.cols = int(rows), int(cols)
	if sizes == 3 {
		p.integers.Group = int(min(binary.LittleEndian.Uint64(raw[16:]), 1<<20))
		if err := p.integers.Check(); err != nil {
			return values, fmt.Errorf("%s: %w", partShape, err)
		}
		if want := []int{p.rows, p.integers.ScaleGroups(p.cols)}; !slices.Equal(p.scale.Shape, want) {
			return values, fmt.Errorf("%s %v, want %v", partScale, p.scale.Shape, want)
		}
	}
	plain := Tensor{
		Name: plainWeight(base), DType: dtype, Shape: []int{p.rows, p.cols}, File: values.File, Offset: values.Offset,
	}
	size, err := byteSize(plain.DType, plain.Shape)
	if err != nil {
		return values, err
	}
	if values.Elements() > size/int64(plain.DType.Size()) {
		return values, fmt.Errorf("%d values for %d × %d elements", values.Elements(), rows, cols)
	}
	plain.Size = size
	inv.packed[plain.Name] = p
	return plain, nil
}

// ReadPacked reads a weight that is stored in packed form, and checks it.
func (inv *Inventory) ReadPacked(t Tensor) (*tensor.Packed, error) {
	p, ok := inv.packed[t.Name]
	if !ok {
		panic(fmt.Sprintf("checkpoint: ReadPacked of %s, which is not packed", t.Name))
	}
	return inv.readPackedRows(t, p, 0, p.rows)
}

// readPackedRows reads rows lo to hi-1.
func (inv *Inventory) readPackedRows(t Tensor, p *packedParts, lo, hi int) (*tensor.Packed, error) {
	offsets := make([]int64, min(hi+1, p.rows)-lo)
	if err := inv.ReadAt(p.offsets, bytes64(offsets), 8*int64(lo)); err != nil {
		return nil, err
	}
	if hi == p.rows {
		offsets = append(offsets, p.values.Elements())
	}
	fail := func(err error) (*tensor.Packed, error) {
		return nil, fmt.Errorf("%s: packed tensor %s: from row %d on: %w", inv.path(t.File), t.Name, lo, err)
	}
	first, kept := offsets[0], offsets[hi-lo]-offsets[0]
	if first < 0 || kept < 0 || kept > p.values.Elements() || first > p.values.Elements()-kept || kept > int64(hi-lo)*int64(p.cols) {
		return fail(fmt.Errorf("%s from %d to %d, want them in order and at most %d", partOffsets, first, offsets[hi-lo], p.values.Elements()))
	}
	var w *tensor.Packed
	size := int64(t.DType.Size())
	if p.integers.Bits > 0 {
		w, size = tensor.NewPackedIntegers(p.integers, t.DType, hi-lo, p.cols, int(kept)), 1
	} else {
		w = tensor.NewPacked(t.DType, hi-lo, p.cols, int(kept))
	}
	for i, at := range offsets {
		w.First()[i] = at - first
	}
	stride := int64(kernel.MaskStride(p.cols))
	err := errors.Join(inv.ReadAt(p.mask, w.Mask(), int64(lo)*stride), inv.ReadAt(p.values, w.Values(), first*size))
	if err != nil {
		return nil, err
	}
	if err := w.Check(); err != nil {
		return fail(err)
	}
	if p.integers.Bits > 0 {
		scales := tensor.NewWeight(t.DType, hi-lo, p.integers.ScaleGroups(p.cols))
		if err := inv.ReadAt(p.scale, scales.Bytes(), int64(lo)*int64(scales.Cols)*int64(t.DType.Size())); err != nil {
			return nil, err
		}
		if err := w.SetScales(scales); err != nil {
			return fail(err)
		}
	}
	return w, nil
}

// bytes64 returns the memory of s as bytes of a safetensors file.
func bytes64(s []int64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), 8*len(s))
}

// unpackGrain is the bytes of plain rows that are unpacked at a time.
const unpackGrain = 1 << 20

// readUnpacked is ReadAt of a packed weight.
func (inv *Inventory) readUnpacked(t Tensor, p *packedParts, dst []byte, off int64) error {
	if len(dst) == 0 {
		return nil
	}
	row := int64(p.cols) * int64(t.DType.Size())
	end := off + int64(len(dst))
	first, last := int(off/row), int((end+row-1)/row)
	var once sync.Once
	var failed error
	parallel.For(last-first, int(max(1, unpackGrain/row)), func(lo, hi int) {
		lo, hi = first+lo, first+hi
		w, err := inv.readPackedRows(t, p, lo, hi)
		if err != nil {
			once.Do(func() { failed = err })
			return
		}
		plain := tensor.NewWeight(t.DType, hi-lo, p.cols)
		w.Expand(plain, 0)
		from, to := max(off, int64(lo)*row), min(end, int64(hi)*row)
		copy(dst[from-off:to-off], plain.Bytes()[from-int64(lo)*row:])
	})
	return failed
}

// PackedTensors returns the tensors that w, the weight t, is stored as in packed form,
// with the bytes of each.
func PackedTensors(t Tensor, w *tensor.Packed) ([]Tensor, [][]byte) {
	shape := []int64{int64(w.Rows), int64(w.Cols)}
	k, stored := w.Integers(), w.Kept()
	data := [][]byte{bytes64(shape), bytes64(w.First()[:w.Rows]), w.Mask(), w.Values()}
	if k.Bits > 0 {
		stored = len(w.Values())
		data[0] = bytes64(append(shape, int64(k.Group)))
		data = append(data, w.Scales().Bytes())
	}
	return PackedLayout(t, k, stored), data
}

// PackedLayout returns the tensors that the weight t is in packed form: with so many
// stored elements or, as integers, bytes of them.
func PackedLayout(t Tensor, k tensor.Integers, stored int) []Tensor {
	base := strings.TrimSuffix(t.Name, ".weight")
	rows, cols := t.Shape[0], t.Shape[1]
	parts := []Tensor{
		{Name: base + "." + partShape, DType: tensor.I64, Shape: []int{2}},
		{Name: base + "." + partOffsets, DType: tensor.I64, Shape: []int{rows}},
		{Name: base + "." + partMask, DType: tensor.U8, Shape: []int{rows, kernel.MaskStride(cols)}},
		{Name: base + "." + partValues, DType: t.DType, Shape: []int{stored}},
	}
	if k.Bits > 0 {
		parts[0].Shape[0], parts[3].DType = 3, tensor.I8
		if k.Bits == 4 {
			parts[3].DType = tensor.U8
		}
		parts = append(parts, Tensor{Name: base + "." + partScale, DType: t.DType, Shape: []int{rows, k.ScaleGroups(cols)}})
	}
	for i := range parts {
		parts[i].Size, _ = byteSize(parts[i].DType, parts[i].Shape)
	}
	return parts
}

// PackedConfig returns config, a config.json, with an entry by which
// compressed-tensors knows that the matrices called so are packed, of which that share
// of all weights is zero; or, of integers, by which crepe does, and no other program
// takes the folder for something else.
func PackedConfig(config []byte, k tensor.Integers, matrices []string, sparsity float64) ([]byte, error) {
	var top map[string]json.RawMessage
	if err := pyjson.Unmarshal(config, &top); err != nil {
		return nil, fmt.Errorf("%s: %w", configName, err)
	}
	for _, key := range compressionKeys {
		if _, there := top[key]; there {
			return nil, fmt.Errorf("%s: it has a %s already, want none: it would say two things of the weights", configName, key)
		}
	}
	says := map[string]any{
		"quant_method": "compressed-tensors",
		"version":      "0.14.0",
		"sparsity_config": map[string]any{
			"format": PackedFormat, "targets": matrices, "ignore": []string{},
			"global_sparsity": sparsity, "sparsity_structure": "unstructured",
		},
	}
	if k.Bits > 0 {
		says = map[string]any{
			"quant_method": integersMethod, "format": FormatOf(k), "bits": k.Bits, "group_size": k.Group,
			"targets": matrices, "global_sparsity": sparsity,
		}
	}
	entry, err := json.MarshalIndent(says, "  ", "  ")
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(config, '}')
	body := bytes.TrimRight(config[:end], " \t\r\n")
	out := slices.Concat(body, []byte(",\n  "), appendString(nil, compressionKeys[0]), []byte(": "), entry, config[len(body):])
	if plain, packed := plainConfig(out); !packed || !bytes.Equal(plain, config) {
		return nil, fmt.Errorf("%s: it cannot be given an entry that can be taken away again", configName)
	}
	return out, nil
}

// UntiedConfig returns a config.json that says that embedding and head are not one
// matrix.
func UntiedConfig(config []byte) ([]byte, error) {
	const key = "tie_word_embeddings"
	if rest, there := removeMember(config, key); there {
		config = rest
	}
	end := bytes.LastIndexByte(config, '}')
	if end < 0 {
		return nil, fmt.Errorf("%s: no object", configName)
	}
	body := bytes.TrimRight(config[:end], " \t\r\n")
	comma := ","
	if body[len(body)-1] == '{' {
		comma = ""
	}
	out := slices.Concat(body, []byte(comma+"\n  "), appendString(nil, key), []byte(": false"), config[len(body):])
	var top map[string]json.RawMessage
	if err := pyjson.Unmarshal(out, &top); err != nil || string(top[key]) != "false" {
		return nil, fmt.Errorf("%s: it cannot be told that embedding and head are not one: %w", configName, err)
	}
	return out, nil
}

// removeMember returns the JSON object text without the member called key, and
// without the comma that parted it from its neighbour.
func removeMember(text []byte, key string) ([]byte, bool) {
	s := &scanner{data: text}
	var from, to, members, at int
	begin := 0 // of the member that is read: after the brace or the comma before it
	err := s.object(configName, func(name string) error {
		if members == 0 {
			begin = bytes.IndexByte(text, '{') + 1
		}
		if err := s.skip(configName, 0); err != nil {
			return err
		}
		if name == key {
			from, to, at = begin, s.pos, members
		}
		members++
		s.space()
		begin = s.pos + 1 // after the comma, if one follows
		return nil
	})
	switch {
	case err != nil || to == 0:
		return nil, false
	case at > 0:
		from-- // the comma before it
	case members > 1:
		for text[to] != ',' {
			to++
		}
		to++
	}
	return slices.Concat(text[:from], text[to:]), true
}
