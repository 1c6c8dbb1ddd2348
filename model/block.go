package model

import (
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// Block is one decoder block with its weights in memory.
type Block interface {
	// Inputs returns the prunable Linears in the order in which a forward
	// pass reaches them, grouped by the input they share.
	Inputs() []*Input

	// Observe calls tap with the input of every Linear for the sequence x,
	// tokens × width, which is left as it is. It stops before the last
	// product, whose result no Input needs. st must not be a decoder, tap not nil.
	// An error is one of reading weights that are not in memory.
	Observe(st *State, x tensor.Matrix, tap Tap) error

	// Forward replaces the hidden states x that enter the block by those that
	// leave it. An error is as in Observe, and x is then of no use.
	Forward(st *State, x tensor.Matrix) error

	// ForwardPieces is Forward for several sequences at once: x has the hidden
	// states of the pieces one after another, each of which takes up where its
	// State ended. Products with weights are of all rows together, which for
	// short pieces is several times as fast. st must not be a decoder. Rows of x
	// after the last piece belong to no sequence and are of no use afterwards.
	// With PiecesRows rows or more a piece's result does not depend on the
	// others, but for its last bits where there are experts.
	ForwardPieces(st *State, x tensor.Matrix, pieces []Piece) error

	// Pass is Observe and Forward at once, for less than both: the last product
	// is made, too.
	Pass(st *State, x tensor.Matrix, tap Tap) error

	// ReadFrom makes weights that are not in memory be read from inv from now
	// on, which has the tensors of the Model's checkpoint, pruned.
	ReadFrom(inv *checkpoint.Inventory) error

	// Release gives the weights' memory to the next LoadBlock; the block must
	// not be used afterwards.
	Release()
}

// decoder is a Block of branches, each added to the residual stream:
//
//	x += post(mixer(norm(x)))
type decoder struct {
	branches []branch
	eps      float32
}

type branch struct {
	norm  []float32
	mixer mixer
	post  []float32 // norm of the branch's output; nil for none
}

// mixer is what a branch computes.
type mixer interface {
	inputs() []*Input

	// run takes the tokens × width input h, calls tap, if not nil, with the input
	// of every Linear, and adds its output to out, which may be what h is the norm
	// of. With out nil it stops before its last product.
	run(st *State, h normed, out *residual, tap Tap) error
}

func (d *decoder) Inputs() []*Input {
	var all []*Input
	for _, b := range d.branches {
		all = append(all, b.mixer.inputs()...)
	}
	return all
}

func (d *decoder) Forward(st *State, x tensor.Matrix) error {
	return d.runAll(st, d.branches, x, nil)
}

func (d *decoder) Pass(st *State, x tensor.Matrix, tap Tap) error {
	return d.runAll(st, d.branches, x, tap)
}

func (d *decoder) Observe(st *State, x tensor.Matrix, tap Tap) error {
	if st.memory != nil {
		panic("model: Observe: the State is a decoder, want one from NewState")
	}
	defer st.release(st.mark())
	y := st.alloc(x.Rows, x.Cols)
	copy(y.Data, x.Data)
	last := len(d.branches) - 1
	if err := d.runAll(st, d.branches[:last], y, tap); err != nil {
		return err
	}
	return d.run(st, &d.branches[last], y, nil, tap)
}

// runAll adds the outputs of the branches to x, one after the other.
func (d *decoder) runAll(st *State, branches []branch, x tensor.Matrix, tap Tap) error {
	for i := range branches {
		if err := d.run(st, &branches[i], x, &residual{x: x, post: branches[i].post, eps: d.eps}, tap); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) run(st *State, b *branch, x tensor.Matrix, out *residual, tap Tap) error {
	return b.mixer.run(st, normed{x, b.norm, d.eps}, out, tap)
}

func (d *decoder) ReadFrom(inv *checkpoint.Inventory) error {
	for _, l := range d.linears() {
		t, ok := inv.Tensor(l.Name + ".weight")
		if was := l.stored.tensor; !ok || t.DType != was.DType || !slices.Equal(t.Shape, was.Shape) {
			return fmt.Errorf("%s: tensor %s: want it as in %s", inv.Dir(), was.Name, l.stored.inv.Dir())
		}
		l.stored.inv, l.stored.tensor = inv, t
	}
	return nil
}

func (d *decoder) linears() []*Linear {
	var all []*Linear
	for _, in := range d.Inputs() {
		all = append(all, in.Linears...)
	}
	return all
}

func (d *decoder) Release() {
	for _, l := range d.linears() {
		l.release()
	}
}

// residual is the stream that a branch's output is added to.
type residual struct {
	x      tensor.Matrix
	post   []float32
	eps    float32
	routed []routing // of an expert's tokens: their rows of x and their weights; else nil
}

// chunkTokens is how many tokens pass at once where an intermediate result
// would be large. A chunk's product packs the weights again, which at 512 tokens
// costs a fortieth of it. Tests lower it.
var chunkTokens = 2048

// project adds l's products with h, chunk by chunk.
func (r *residual) project(st *State, h tensor.Matrix, l *Linear) {
	for lo := 0; lo < h.Rows; lo += chunkTokens {
		mark := st.mark()
		r.projectAt(st, lo, share(st, h.Slice(lo, min(lo+chunkTokens, h.Rows)), l.all()), l)
		st.release(mark)
	}
}

// projectAt adds l's products with x to the tokens from lo on.
func (r *residual) projectAt(st *State, lo int, x operand, l *Linear) {
	defer st.release(st.mark())
	y := st.alloc(x.Rows, r.x.Cols)
	l.all().apply(y, x)
	r.add(lo, y)
}

// add adds a branch's outputs y for the tokens from lo on. It overwrites y.
func (r *residual) add(lo int, y tensor.Matrix) {
	eachToken(y.Rows, func(t int) {
		if r.routed != nil {
			to := r.routed[lo+t]
			kernel.AddScaled(r.x.Row(to.token), y.Row(t), to.weight)
			return
		}
		if r.post != nil {
			kernel.RMSNorm(y.Row(t), y.Row(t), r.post, r.eps)
		}
		kernel.Add(r.x.Row(lo+t), y.Row(t))
	})
}
