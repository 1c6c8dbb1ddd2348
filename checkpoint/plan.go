package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
)

// MaxShard is the default size of a shard in bytes: "5GB" as transformers
// writes and reads it.
const MaxShard = 5_000_000_000

// Shard is one safetensors file of the output.
type Shard struct {
	Name    string
	Size    int64    // bytes of the whole file
	Tensors []Tensor // in the order of the file; File and Offset are the output's
	head    []byte   // length, header and padding
}

// Plan says what the output folder will hold. It is a value: nothing is
// written by making one.
type Plan struct {
	Shards  []Shard
	Aux     []AuxFile // carried over byte for byte
	LeftOut []LeftOut // in the input's folder, not in the output's
	index   []byte    // nil if there is one shard
	byName  map[string]place
}

// place is where a tensor lies in a Plan.
type place struct{ shard, tensor int }

// NewPlan lays out a copy of inv: every tensor with its dtype and shape, in
// the input's order (by file, then offset), in shards of at most maxShard
// bytes of tensors, a shard being closed when the next tensor would exceed
// them; one that is larger gets a shard for itself. One shard is called
// model.safetensors, several model-00001-of-0000N.safetensors with an index.
// maxShard 0 means MaxShard.
//
// In a shard with a tensor whose offset would not be a multiple of its
// element's size, tensors of larger elements come first, as the safetensors
// library orders them: PyTorch cannot view a misaligned tensor.
//
// __metadata__ is the input's (where its files disagree, that of the first),
// with {"format": "pt"} if it names no format: transformers demands one.
func NewPlan(inv *Inventory, maxShard int64) (*Plan, error) {
	switch {
	case maxShard == 0:
		maxShard = MaxShard
	case maxShard < 0:
		return nil, fmt.Errorf("shards of at most %d bytes, want more than 0", maxShard)
	}
	return PlanFiles(inv, layouts(inv.tensors, maxShard))
}

// Layout says what one file of an output holds.
type Layout struct {
	Name    string
	Tensors []Tensor // in the order of the file, if that leaves none misaligned
}

// Layouts returns the weight files of inv with their tensors; those that NewPlan would
// write where inv is of a Source.
func (inv *Inventory) Layouts() []Layout {
	if inv.source != nil {
		return layouts(inv.tensors, MaxShard)
	}
	var files []Layout
	for _, t := range inv.tensors {
		if n := len(files); n == 0 || files[n-1].Name != t.File {
			files = append(files, Layout{Name: t.File})
		}
		last := &files[len(files)-1]
		last.Tensors = append(last.Tensors, t)
	}
	return files
}

// layouts shares tensors out among files of at most maxShard bytes of tensors.
func layouts(tensors []Tensor, maxShard int64) []Layout {
	groups := group(tensors, maxShard)
	files := make([]Layout, len(groups))
	for i, tensors := range groups {
		files[i] = Layout{singleName, tensors}
		if len(groups) > 1 {
			files[i].Name = fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(groups))
		}
	}
	return files
}

// PlanFiles is NewPlan for an output of just these weight files. Several need names
// that an index may have.
func PlanFiles(inv *Inventory, files []Layout) (*Plan, error) {
	metadata := slices.Clone(inv.metadata)
	if !inv.metaKeys["format"] {
		metadata = append(metadata, pair{"format", "pt"})
	}
	p := &Plan{LeftOut: slices.Clone(inv.leftOut), byName: map[string]place{}}
	names := map[string]bool{}
	for i, f := range files {
		if !plainName(f.Name) || !strings.HasSuffix(f.Name, ".safetensors") || names[f.Name] {
			return nil, fmt.Errorf("weight file %.200q: want the names of different *.safetensors files in the folder", f.Name)
		}
		names[f.Name] = true
		s, err := newShard(f.Name, f.Tensors, metadata)
		if err != nil {
			return nil, err
		}
		p.Shards = append(p.Shards, s)
		for j, t := range s.Tensors {
			p.byName[t.Name] = place{i, j}
		}
	}
	if len(files) > 1 {
		p.index = encodeIndex(inv.index, p.Shards)
	}
	p.addAux(inv.aux)
	return p, nil
}

// group cuts tensors into runs of at most limit bytes.
func group(tensors []Tensor, limit int64) [][]Tensor {
	var groups [][]Tensor
	start, size := 0, int64(0)
	for i, t := range tensors {
		if i > start && t.Size > limit-size {
			groups = append(groups, tensors[start:i])
			start, size = i, 0
		}
		size += t.Size
	}
	return append(groups, tensors[start:])
}

func newShard(name string, tensors []Tensor, metadata []pair) (Shard, error) {
	h := header{tensors: slices.Clone(tensors), metadata: metadata}
	head := h.encode()
	if !aligned(h.tensors) {
		slices.SortStableFunc(h.tensors, func(a, b Tensor) int { return b.DType.Bits() - a.DType.Bits() })
		head = h.encode()
	}
	if len(head)-8 > maxHeader {
		return Shard{}, fmt.Errorf("%s: header of %d bytes for %d tensors, want at most %d: ask for smaller shards", name, len(head)-8, len(tensors), maxHeader)
	}
	s := Shard{Name: name, Size: int64(len(head)), Tensors: h.tensors, head: head}
	for i := range s.Tensors {
		s.Tensors[i].File = name
		s.Size += s.Tensors[i].Size
	}
	return s, nil
}

func aligned(tensors []Tensor) bool {
	return !slices.ContainsFunc(tensors, func(t Tensor) bool { return t.Offset%int64(max(t.DType.Size(), 1)) != 0 })
}

// addAux takes over the aux files but for those whose place a shard of the
// output has, or its index.
func (p *Plan) addAux(aux []AuxFile) {
	p.Aux = slices.Clone(aux)
	for _, s := range p.Shards {
		p.leaveOut(s.Name, "the output's weights have that name")
	}
	if p.index != nil {
		p.leaveOut(indexName, "the output's index has that name")
	}
}

// Replace leaves the aux file called name out: another of that name is to be written by
// Writer.WriteFile or Commit.
func (p *Plan) Replace(name string) { p.leaveOut(name, "the output has another of that name") }

// leaveOut leaves out the aux files called name, and those in a folder of that name.
func (p *Plan) leaveOut(name, reason string) {
	p.Aux = slices.DeleteFunc(p.Aux, func(a AuxFile) bool {
		first, _, _ := strings.Cut(path.Clean(a.Path), "/")
		taken := strings.EqualFold(first, name) // some file systems take both for one
		if taken {
			p.LeftOut = append(p.LeftOut, LeftOut{a.Path, reason})
		}
		return taken
	})
}

// Bytes returns the size of all that the plan writes.
func (p *Plan) Bytes() int64 {
	n := int64(len(p.index))
	for _, s := range p.Shards {
		n += s.Size
	}
	for _, a := range p.Aux {
		n += a.Size
	}
	return n
}

// Tensor returns the tensor called name as it lies in the output.
func (p *Plan) Tensor(name string) (Tensor, bool) {
	at, ok := p.byName[name]
	if !ok {
		return Tensor{}, false
	}
	return p.Shards[at.shard].Tensors[at.tensor], true
}

// Fingerprint returns a hash of the layout: two plans have the same if and
// only if what one has written, the other can go on with.
func (p *Plan) Fingerprint() string {
	h := sha256.New()
	for _, s := range p.Shards {
		fmt.Fprintf(h, "shard %q %d\n%s\n", s.Name, s.Size, s.head)
	}
	fmt.Fprintf(h, "index %d\n%s\n", len(p.index), p.index)
	for _, a := range p.Aux {
		fmt.Fprintf(h, "aux %q %d\n", path.Clean(a.Path), a.Size)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}
