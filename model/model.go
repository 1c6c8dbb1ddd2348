// Package model computes decoders block by block: embedding, blocks, head.
//
// Nothing but the block at work is in memory. A sequence's hidden states are a
// tokens × width matrix that the blocks change in place; the caller keeps it
// between blocks. Weights are out × in, in the type they are stored in; all
// activations are float32.
//
// An architecture is one file that registers a class: which config keys it
// reads, and how it binds the tensors of a block (llama.go is the model for
// it). So the package has more files than most. What the classes share lies in
// attention.go, mlp.go, moe.go, deltanet.go, rope.go.
package model

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// Model is an open checkpoint whose architecture is known. One goroutine uses
// it at a time.
type Model struct {
	Config  *Config
	Compute Compute // may be changed between calls

	// ExpertBytes bounds the memory that the experts of a block take. Those it
	// has no room for are read when tokens reach them, one at a time; the least
	// is the largest expert's bytes. 0 keeps all of a block's experts in memory.
	ExpertBytes int64

	inv   *checkpoint.Inventory
	embed checkpoint.Tensor // the matrix whose rows are the tokens' embeddings
	head  checkpoint.Tensor // the matrix that makes logits; may be embed
	pool  *pool
}

// Open reads the config of inv and holds the headers of all tensors against
// it. It reads no weights. inv must stay open as long as the Model is used.
func Open(inv *checkpoint.Inventory) (*Model, error) {
	config, err := ParseConfig(inv.Config())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(inv.Dir(), "config.json"), err)
	}
	config.findPrefix(inv)
	m := &Model{Config: config, inv: inv, pool: &pool{free: map[poolKey][]*tensor.Weight{}}}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", inv.Dir(), err)
	}
	return m, nil
}

// Blocks returns the number of decoder blocks.
func (m *Model) Blocks() int { return m.Config.Blocks }

// Width returns the width of the hidden states.
func (m *Model) Width() int { return m.Config.Width }

func (m *Model) layers() string { return m.Config.prefix + "layers." }

func (m *Model) binder() *binder {
	return &binder{
		inv: m.inv, pool: m.pool, compute: &m.Compute,
		zeroCentred: m.Config.class.zeroCentred, expertBytes: m.ExpertBytes, bound: map[string]bool{},
	}
}

func (m *Model) bind(b *binder, i int) *decoder {
	b.prefix = fmt.Sprintf("%s%d.", m.layers(), i)
	return m.Config.class.block(m.Config, b, i)
}

// check binds everything without reading, and refuses tensors of blocks and
// head that nothing asks for: what they would add to the computation is not
// known.
func (m *Model) check() error {
	b := m.binder()
	m.embed, m.head = m.findEmbedding(b)
	b.find(m.Config.prefix+"norm.weight", m.Config.Width)
	for i := 0; i < m.Config.Blocks && len(b.errs) == 0; i++ {
		m.bind(b, i)
	}
	if len(b.errs) > 0 {
		return b.err() // of the first block that has any
	}
	named := ""
	if m.Config.named != "" {
		named = fmt.Sprintf(" (architectures says %s, but model_type %s, by which transformers goes)", m.Config.named, m.Config.class.modelType)
	}
	for _, t := range m.inv.Tensors() {
		ours := strings.HasPrefix(t.Name, m.layers()) || strings.HasPrefix(t.Name, "lm_head.")
		if ours && !b.bound[t.Name] && !ignorable(t.Name) {
			b.errs = append(b.errs, fmt.Errorf("%s: tensor %s: not known to %s with %d blocks and these settings%s",
				t.File, excerpt(t.Name), m.Config.Architecture, m.Config.Blocks, named))
		}
	}
	return b.err()
}

// findEmbedding returns the matrices of embedding and head. A stored head is
// used also where the config ties it: it is equal to the embedding, or
// meant not to be. Where both are one and only lm_head is stored, it is both.
func (m *Model) findEmbedding(b *binder) (embed, head checkpoint.Tensor) {
	embedName, headName := m.Config.prefix+"embed_tokens.weight", "lm_head.weight"
	c := m.Config
	_, hasEmbed := m.inv.Tensor(embedName)
	_, hasHead := m.inv.Tensor(headName)
	name := embedName
	if !hasEmbed && hasHead && c.Tied {
		name = headName
	}
	embed, _ = b.find(name, c.Vocab, c.Width)
	if hasHead || !c.Tied {
		name = headName
	}
	head, _ = b.find(name, c.Vocab, c.Width)
	return embed, head
}

// Embed writes the embeddings of ids into the rows of dst. It reads those rows only.
func (m *Model) Embed(dst tensor.Matrix, ids []int32) error {
	c := m.Config
	if dst.Rows != len(ids) || dst.Cols != c.Width {
		panic(fmt.Sprintf("model: Embed: dst is %d × %d, want %d × %d", dst.Rows, dst.Cols, len(ids), c.Width))
	}
	row := tensor.NewWeight(m.embed.DType, 1, c.Width)
	for i, id := range ids {
		if id < 0 || int(id) >= c.Vocab {
			return fmt.Errorf("token %d has id %d, want one in [0, %d)", i, id, c.Vocab)
		}
		if err := m.inv.ReadAt(m.embed, row.Bytes(), int64(id)*int64(len(row.Bytes()))); err != nil {
			return err
		}
		if err := checkFinite(m.embed, row, int(id)); err != nil {
			return err
		}
		row.Row(dst.Row(i), 0)
	}
	if c.class.scaledEmbed {
		scale(dst.Data, m.embedScale())
	}
	return nil
}

// embedScale returns √Width, which a model that runs in bfloat16 rounds to it.
func (m *Model) embedScale() float32 {
	s := []float32{float32(math.Sqrt(float64(m.Config.Width)))}
	if m.Compute == BF16 && m.embed.DType == tensor.BF16 {
		half := make([]uint16, 1)
		kernel.NarrowBF16(half, s)
		kernel.WidenBF16(s, half)
	}
	return s[0]
}

func scale(x []float32, by float32) {
	for i := range x {
		x[i] *= by
	}
}

// Trim gives up the memory that is kept for the next LoadBlock.
func (m *Model) Trim() { m.pool.free = map[poolKey][]*tensor.Weight{} }

// LoadBlock reads block i into memory, into that of released blocks where it fits.
func (m *Model) LoadBlock(i int) (Block, error) {
	b := m.binder()
	b.read = true
	block := m.bind(b, i)
	if err := b.err(); err != nil {
		return nil, err
	}
	return block, nil
}
