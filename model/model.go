// Package model runs decoder models block by block: embedding, blocks, head.
//
// One block is in memory at a time, or two (Options.Ahead). A sequence's hidden states are a
// tokens × width engine.Mat that the blocks change in place; the caller keeps it
// between blocks. Weights are out × in, in the type they are stored in. This
// package says what is computed; an engine.Engine computes it.
//
// An architecture is one file that registers a class: which config keys it reads,
// how it binds the tensors of a block, and the block's forward pass (llama.go is
// the one to read first). So the package has more files than most. What the classes
// share lies in attention.go, mlp.go, moe.go, deltanet.go, rope.go.
package model

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// Model is an open checkpoint whose architecture is known. It does not change;
// With makes another of the same checkpoint. Several goroutines may use it; a Block,
// State or Head is for one at a time.
type Model struct {
	Config *Config

	opt   Options
	inv   *checkpoint.Inventory
	embed checkpoint.Tensor // the matrix whose rows are the tokens' embeddings
	head  checkpoint.Tensor // the matrix that makes logits; may be embed
	pool  *pool
	plain bool // packed weights are read as plain ones
}

// Options say how a Model computes.
type Options struct {
	Engine engine.Engine

	// ExpertBytes bounds the memory that the experts of a block take. Those it
	// has no room for are read when tokens reach them, one at a time; the least
	// is the largest expert's bytes. 0 keeps all of a block's experts in memory.
	ExpertBytes int64

	// Ahead has a Reader read the next block while one is at work: two are in
	// memory then.
	Ahead bool

	// KeepHead has a Head keep all of its matrix, HeadBytes, once it is read.
	KeepHead bool
}

// Open reads the config of inv and holds the headers of all tensors against
// it. It reads no weights. inv must stay open as long as the Model is used. An
// engine that lacks what the model computes is an error.
func Open(inv *checkpoint.Inventory, opt Options) (*Model, error) {
	config, err := ParseConfig(inv.Config())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(inv.Dir(), "config.json"), err)
	}
	config.findPrefix(inv)
	m := &Model{Config: config, opt: opt, inv: inv, pool: newPool()}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", inv.Dir(), err)
	}
	return m, nil
}

// With returns the model of the same checkpoint with other options. It costs
// nothing; the two share the memory of weights. It panics if the engine lacks
// what the model computes: Open is where that is an error.
func (m *Model) With(opt Options) *Model {
	with := *m
	with.opt = opt
	if err := with.checkEngine(); err != nil {
		panic("model: With: " + err.Error())
	}
	return &with
}

// Plain returns the model with every weight in plain form in memory, also those that
// the checkpoint has packed: whoever changes weights plans the memory so.
func (m *Model) Plain() *Model {
	plain := *m
	plain.plain = true
	return &plain
}

// WithExpertBytes is With for another bound on the memory of experts.
func (m *Model) WithExpertBytes(n int64) *Model {
	opt := m.opt
	opt.ExpertBytes = n
	return m.With(opt)
}

// Options returns those of m.
func (m *Model) Options() Options { return m.opt }

// Engine returns what computes m.
func (m *Model) Engine() engine.Engine { return m.opt.Engine }

// ExpertBytes returns Options.ExpertBytes.
func (m *Model) ExpertBytes() int64 { return m.opt.ExpertBytes }

// Blocks returns the number of decoder blocks.
func (m *Model) Blocks() int { return m.Config.Blocks }

// Width returns the width of the hidden states.
func (m *Model) Width() int { return m.Config.Width }

// NewMat returns a Mat of zeros for the hidden states of that many tokens.
func (m *Model) NewMat(tokens int) engine.Mat { return m.opt.Engine.NewMat(tokens, m.Config.Width) }

func (m *Model) layers() string { return m.Config.prefix + "layers." }

func (m *Model) binder() *binder {
	return &binder{
		inv: m.inv, pool: m.pool, engine: m.opt.Engine, normEps: m.Config.NormEps,
		zeroCentred: m.Config.class.zeroCentred, expertBytes: m.opt.ExpertBytes, plain: m.plain, bound: map[string]bool{},
	}
}

func (m *Model) bind(b *binder, i int) *Block {
	b.prefix = fmt.Sprintf("%s%d.", m.layers(), i)
	return &Block{branches: m.Config.class.block(m.Config, b, i)}
}

// check binds everything without reading, and refuses tensors of blocks and
// head that nothing asks for: what they would add to the computation is not
// known.
func (m *Model) check() error {
	if err := m.checkEngine(); err != nil {
		return err
	}
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

// checkEngine refuses an engine without the optional operations that m needs.
func (m *Model) checkEngine() error {
	if _, ok := m.opt.Engine.NewStream().(engine.Delta); !ok && m.Config.linear != nil {
		return fmt.Errorf("engine %s has no Gated DeltaNet, which %s needs", m.opt.Engine.ID(), m.Config.Architecture)
	}
	return nil
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
func (m *Model) Embed(dst engine.Mat, ids []int32) error {
	c := m.Config
	if dst.Rows != len(ids) || dst.Cols != c.Width {
		panic(fmt.Sprintf("model: Embed: dst is %d × %d, want %d × %d", dst.Rows, dst.Cols, len(ids), c.Width))
	}
	const some = 64 // tokens that are uploaded together
	row := tensor.NewWeight(m.embed.DType, 1, c.Width)
	x := tensor.NewMatrix(min(some, len(ids)), c.Width)
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
		row.Row(x.Row(i%some), 0)
		if done := i + 1; done%some == 0 || done == len(ids) {
			first := i / some * some
			part := x.Slice(0, done-first)
			if c.class.scaledEmbed {
				m.scaleEmbeddings(part.Data)
			}
			m.opt.Engine.Upload(dst.Slice(first, done), part)
		}
	}
	return nil
}

// scaleEmbeddings multiplies x by √Width, which a model that runs in bfloat16
// rounds to it.
func (m *Model) scaleEmbeddings(x []float32) {
	by := float32(math.Sqrt(float64(m.Config.Width)))
	if m.opt.Engine.Rounds(m.embed.DType) {
		by = tensor.RoundBF16(by)
	}
	for i := range x {
		x[i] *= by
	}
}

// Trim gives up the memory that is kept for the next LoadBlock.
func (m *Model) Trim() { m.pool.clear() }

// LoadBlock reads block i into memory, into that of released blocks where it fits.
func (m *Model) LoadBlock(i int) (*Block, error) {
	b := m.binder()
	b.read = true
	block := m.bind(b, i)
	if err := b.err(); err != nil {
		return nil, err
	}
	return block, nil
}
