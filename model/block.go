package model

import (
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
)

// Block is one decoder block with its weights in memory: its branches, one after
// the other.
type Block struct{ branches []*Branch }

// Branch is a part of a block that adds what it computes to the residual stream x:
//
//	x += post(layer(norm(x)))
type Branch struct {
	norm  *engine.Norm
	gain  string // the tensor of norm's weights
	layer sublayer
	post  *engine.Norm // nil for none
}

// sublayer is attention or a feed-forward network, or what replaces it.
type sublayer interface {
	inputs() []*Input

	// forward adds the output for norm of x to out, which may be x; norm may be nil.
	// It calls the pass's Tap with the input of every Linear. With out nil it stops
	// before its last product.
	forward(p *pass, x engine.Mat, norm *engine.Norm, out *residual) error
}

// Mode says what a Run does beside computing the block. The zero Mode replaces
// the hidden states of one whole sequence by those that leave the block.
type Mode struct {
	// Tap, if not nil, is called with the input of every Linear.
	Tap Tap

	// Keep leaves the hidden states as they are: the Tap is all that the Run is
	// for, and the last product, whose result no Input needs, is not made.
	Keep bool

	// Pieces are several sequences whose hidden states lie one after another in
	// x, each of which takes up where its Cache ended. Products with weights are of
	// all rows together, which for short pieces is several times as fast. Rows of x
	// after the last piece belong to no sequence and are of no use afterwards.
	// With PiecesRows rows or more a piece's result does not depend on the
	// others, but for its last bits where there are experts.
	Pieces []Piece
}

// Piece is the next tokens of one sequence.
type Piece struct {
	Cache  *Cache
	Tokens int
}

// PiecesRows is how many rows products take not to change with their number:
// fewer are computed otherwise, which moves the last bits.
const PiecesRows = 16

// Run computes the block for the hidden states x, tokens × width, that enter it.
// An error is one of reading weights that are not in memory, and x is then of no
// use unless it is kept.
func (b *Block) Run(st *State, x engine.Mat, mode Mode) error { return runAll(b.branches, st, x, mode) }

// Run is Block.Run of the branch alone.
func (b *Branch) Run(st *State, x engine.Mat, mode Mode) error {
	return runAll([]*Branch{b}, st, x, mode)
}

func runAll(branches []*Branch, st *State, x engine.Mat, mode Mode) error {
	p := &pass{Stream: st.stream, st: st, mode: mode, pieces: mode.Pieces}
	if mode.Pieces == nil {
		p.pieces = []Piece{{Tokens: x.Rows}}
	}
	p.check(x)
	if mode.Keep {
		defer p.Release(p.Mark())
		y := p.Alloc(x.Rows, x.Cols)
		p.Copy(y, x)
		x = y
	}
	for i, b := range branches {
		out := &residual{x: x, post: b.post}
		if mode.Keep && i == len(branches)-1 {
			out = nil
		}
		if err := b.layer.forward(p, x, b.norm, out); err != nil {
			return err
		}
	}
	return nil
}

// Branches returns the block's branches in their order.
func (b *Block) Branches() []*Branch { return b.branches }

// Inputs returns the branch's part of Block.Inputs.
func (b *Branch) Inputs() []*Input { return b.layer.inputs() }

// Normed reports whether what the branch computes passes a norm before it is added.
func (b *Branch) Normed() bool { return b.post != nil }

// Inputs returns the prunable Linears in the order in which a forward pass
// reaches them, grouped by the input they share.
func (b *Block) Inputs() []*Input {
	var all []*Input
	for _, branch := range b.branches {
		all = append(all, branch.Inputs()...)
	}
	return all
}

// Linears returns the prunable Linears in that order.
func (b *Block) Linears() []*Linear { return linears(b.Inputs()) }

func linears(inputs []*Input) []*Linear {
	var all []*Linear
	for _, in := range inputs {
		all = append(all, in.Linears...)
	}
	return all
}

// FirstInput returns the first Input, whose first Linear holds the query.
func (b *Block) FirstInput() *Input { return b.Inputs()[0] }

// Enter writes what enters the first Input for the hidden states x into dst, which
// may be x: one norm, and nothing of the block's products.
func (b *Block) Enter(st *State, dst, x engine.Mat) { b.branches[0].Enter(st, dst, x) }

// Enter is Block.Enter of the branch alone.
func (b *Branch) Enter(st *State, dst, x engine.Mat) { st.stream.Norm(dst, x, b.norm) }

// ReadFrom makes weights that are not in memory be read from inv from now on,
// which has the tensors of the Model's checkpoint, pruned.
func (b *Block) ReadFrom(inv *checkpoint.Inventory) error {
	for _, branch := range b.branches {
		if err := branch.ReadFrom(inv); err != nil {
			return err
		}
	}
	return nil
}

// ReadFrom is Block.ReadFrom of the branch alone.
func (b *Branch) ReadFrom(inv *checkpoint.Inventory) error {
	for _, l := range linears(b.Inputs()) {
		t, ok := inv.Tensor(l.Name + ".weight")
		if was := l.stored.tensor; !ok || t.DType != was.DType || !slices.Equal(t.Shape, was.Shape) {
			return fmt.Errorf("%s: tensor %s: want it as in %s", inv.Dir(), was.Name, l.stored.inv.Dir())
		}
		l.stored.inv, l.stored.tensor = inv, t
	}
	return nil
}

// Release gives the weights' memory to the next LoadBlock; the block must not be
// used afterwards.
func (b *Block) Release() {
	for _, l := range b.Linears() {
		l.release()
	}
}

// pass is one Run under way. Its operations are those of the State's Stream.
type pass struct {
	engine.Stream
	st     *State
	mode   Mode
	pieces []Piece // of one whole sequence, it has no Cache
}

// check panics if the pieces and x do not fit.
func (p *pass) check(x engine.Mat) {
	rows := 0
	for _, piece := range p.mode.Pieces {
		if piece.Cache == nil {
			panic("model: Run: a piece without a Cache, want one of NewCache")
		}
		rows += piece.Tokens
	}
	if rows > x.Rows || p.mode.Keep && p.mode.Pieces != nil {
		panic(fmt.Sprintf("model: Run: %d tokens in %d rows of hidden states, which are kept: %v; want at most as many, and not kept",
			rows, x.Rows, p.mode.Keep))
	}
}

// tap calls the Tap, if there is one.
func (p *pass) tap(in *Input, x engine.Mat) {
	if p.mode.Tap != nil {
		p.mode.Tap(in, x)
	}
}

// enter returns what enters in's projections ws: norm of x, once for all of them.
func (p *pass) enter(in *Input, x engine.Mat, norm *engine.Norm, ws ...proj) engine.Mat {
	if p.mode.Tap != nil {
		x, norm = p.normed(x, norm), nil
		p.tap(in, x)
	}
	return p.Operand(x, norm, projs(ws)...)
}

// normed returns norm of x, which is x itself for nil.
func (p *pass) normed(x engine.Mat, norm *engine.Norm) engine.Mat {
	if norm == nil {
		return x
	}
	y := p.Alloc(x.Rows, x.Cols)
	p.Norm(y, x, norm)
	return y
}

// residual is the stream that a layer's output is added to:
//
//	x += post(output)
type residual struct {
	x      engine.Mat
	post   *engine.Norm    // nil for none
	routed []engine.Routed // of an expert's tokens: their rows of x and their weights; else nil
}

// chunkTokens is how many tokens pass at once where an intermediate result
// would be large. A chunk's product packs the weights again, which at 512 tokens
// costs a fortieth of it. Tests lower it.
var chunkTokens = 2048

// eachChunk calls f with the ends of chunks of rows.
func (p *pass) eachChunk(rows int, f func(lo, hi int)) {
	for lo := 0; lo < rows; lo += chunkTokens {
		mark := p.Mark()
		f(lo, min(lo+chunkTokens, rows))
		p.Release(mark)
	}
}

// project adds the products of w with h to r, chunk by chunk; to nowhere it adds
// nothing.
func (p *pass) project(r *residual, h engine.Mat, w proj) {
	if r == nil {
		return
	}
	p.eachChunk(h.Rows, func(lo, hi int) {
		p.projectAt(r, lo, p.Operand(h.Slice(lo, hi), nil, w.engine()), w)
	})
}

// projectAt adds the products of w with x to r's tokens from lo on.
func (p *pass) projectAt(r *residual, lo int, x engine.Mat, w proj) {
	defer p.Release(p.Mark())
	y := p.Alloc(x.Rows, r.x.Cols)
	p.Linear(y, x, w.engine())
	if r.routed != nil {
		p.ScatterAdd(r.x, y, r.routed[lo:lo+y.Rows])
		return
	}
	p.Add(r.x.Slice(lo, lo+y.Rows), y, r.post)
}
