package model

import (
	"fmt"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
)

// Frame says which tensors of a model have the residual stream's directions as rows
// or columns, and which those of the heads' values. A turn of these directions, done
// to all of them, changes none of the model's logits.
type Frame struct {
	// Fixed says why the stream's directions cannot be turned; nil if they can.
	Fixed error

	Axes  map[string]Axes // by tensor; of all that meets the stream
	Norms []string        // that divide the stream by its size, the last one among them
	Heads []Heads         // by block

	// Embedding and Head are the matrices' tensors, which may be one.
	Embedding, Head checkpoint.Tensor
}

// Axes says where a tensor meets the residual stream.
type Axes struct {
	Rows bool // what it yields is added to the stream; of a bias: its elements
	Cols bool // it reads the stream

	// Norm is the tensor of the norm between stream and columns; "" for the embedding.
	Norm string
}

// Heads says where the values of a block's heads are: head h of KVHeads in HeadDim
// rows of V, and in the columns of O of those query heads that read it.
type Heads struct {
	Fixed error // why they cannot be turned; nil if they can

	V, Bias string // tensors; Bias "" for none
	First   int    // row of V that is the first head's first
	O       string
}

// Frame returns that of m. It reads no weights.
func (m *Model) Frame() *Frame {
	b := m.binder()
	f := &Frame{Axes: map[string]Axes{}, Embedding: m.embed, Head: m.head}
	last := m.Config.prefix + "norm.weight"
	for i := range m.Blocks() {
		heads := Heads{Fixed: fmt.Errorf("block %d has no attention by heads", i)}
		for _, br := range m.bind(b, i).branches {
			f.Norms = append(f.Norms, br.gain)
			if br.post != nil && f.Fixed == nil {
				f.Fixed = fmt.Errorf("%s: block %d has a norm behind %s, whose weights belong to directions of the stream", m.Config.Architecture, i, br.Inputs()[0].Name)
			}
			reads, writes := ends(br.layer)
			for _, l := range reads {
				f.Axes[l.Name+".weight"] = Axes{Cols: true, Norm: br.gain}
			}
			for _, l := range writes {
				f.Axes[l.Name+".weight"] = Axes{Rows: true}
				if bias := l.Name + ".bias"; b.bound[bias] {
					f.Axes[bias] = Axes{Rows: true}
				}
			}
			if a, ok := br.layer.(*attention); ok {
				heads = a.values(b, i)
			}
		}
		f.Heads = append(f.Heads, heads)
	}
	f.Norms = append(f.Norms, last)
	f.Axes[m.embed.Name] = Axes{Cols: true}
	if m.head.Name != m.embed.Name {
		f.Axes[m.head.Name] = Axes{Cols: true, Norm: last}
	}
	b.bound[m.embed.Name], b.bound[m.head.Name], b.bound[last] = true, true, true
	for _, t := range m.inv.Tensors() {
		if f.Fixed == nil && !b.bound[t.Name] && !ignorable(t.Name) {
			f.Fixed = fmt.Errorf("%s: tensor %s is not of the text model, and may read the stream or add to it", m.Config.Architecture, excerpt(t.Name))
		}
	}
	return f
}

// Final returns the norm before the head.
func (f *Frame) Final() string { return f.Norms[len(f.Norms)-1] }

// Twin returns the name of the tensor that f.Embedding is stored under a second time
// once head and embedding differ.
func (f *Frame) Twin() string {
	if strings.HasPrefix(f.Embedding.Name, "lm_head.") {
		return strings.TrimSuffix(f.Final(), "norm.weight") + "embed_tokens.weight"
	}
	return "lm_head.weight"
}

// ends returns the Linears of a layer that read the residual stream, and those whose
// products are added to it.
func ends(layer sublayer) (reads, writes []*Linear) {
	switch l := layer.(type) {
	case *attention:
		return l.ins[0].Linears, []*Linear{l.o}
	case *deltaNet:
		return l.ins[0].Linears, []*Linear{l.out}
	case *mlp:
		return l.ins[0].Linears, []*Linear{l.down}
	case *moe:
		reads = append(reads, l.router.Linear)
		for _, f := range l.experts {
			r, w := ends(f)
			reads, writes = append(reads, r...), append(writes, w...)
		}
		return reads, writes
	}
	panic(fmt.Sprintf("model: ends of %T", layer))
}

// values returns the Heads of a.
func (a *attention) values(b *binder, block int) Heads {
	if a.gated {
		return Heads{Fixed: fmt.Errorf("block %d has a gate on each element of the heads' output", block)}
	}
	h := Heads{V: a.v.Name + ".weight", First: a.v.lo, O: a.o.Name + ".weight"}
	if bias := a.v.Name + ".bias"; b.bound[bias] {
		h.Bias = bias
	}
	return h
}

// Gain returns what the norm of that tensor multiplies each direction with.
func (m *Model) Gain(norm string) ([]float32, error) {
	b := m.binder()
	b.read = true
	v := b.gain(norm, m.Config.Width)
	return v, b.err()
}

// UnitGain is what the weights of a norm are that multiplies with 1.
func (m *Model) UnitGain() float32 {
	if m.Config.class.zeroCentred {
		return 0
	}
	return 1
}
