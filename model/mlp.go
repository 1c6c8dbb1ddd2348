package model

import (
	"slices"

	"github.com/crepe-llm/crepe/internal/kernel"
)

// mlp is the gated feed-forward network:
//
//	out = Down · (act(Gate h) · Up h)
type mlp struct {
	gate, up rows
	down     *Linear
	gelu     bool // act is gelu, else silu
	ins      []*Input
}

// newMLP binds gate_proj, up_proj and down_proj under mlp.
func newMLP(c *Config, b *binder) *mlp {
	return newGated(c, b, c.Intermediate, "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
}

// newGated binds an MLP of that inner width by the names of its Linears.
func newGated(c *Config, b *binder, inner int, gateName, upName, downName string) *mlp {
	gate := b.linear(gateName, inner, c.Width, c.mlpBias)
	up := b.linear(upName, inner, c.Width, c.mlpBias)
	down := b.linear(downName, c.Width, inner, c.mlpBias)
	return &mlp{
		gate: rows{gate, 0, inner}, up: rows{up, 0, inner}, down: down, gelu: c.class.gelu,
		ins: []*Input{newInput(gate, up), newInput(down)},
	}
}

// newFusedMLP binds gate_up_proj, whose rows are those of gate, then up, and
// down_proj.
func newFusedMLP(c *Config, b *binder) *mlp {
	inner := c.Intermediate
	both := b.fused("mlp.gate_up_proj", c.Width, c.mlpBias, partSize{"gate", inner}, partSize{"up", inner})
	down := b.linear("mlp.down_proj", c.Width, inner, c.mlpBias)
	return &mlp{
		gate: both.part(0), up: both.part(1), down: down, gelu: c.class.gelu,
		ins: []*Input{newInput(both), newInput(down)},
	}
}

func (f *mlp) inputs() []*Input { return f.ins }

func (f *mlp) linears() []*Linear { return slices.Concat(f.ins[0].Linears, f.ins[1].Linears) }

// bytes returns the size of the weights.
func (f *mlp) bytes() int64 {
	n := int64(0)
	for _, l := range f.linears() {
		n += l.stored.tensor.Size
	}
	return n
}

// load and unload frame a run, with or without its last product, where weights
// do not stay in memory.
func (f *mlp) load(output bool) error {
	needed := f.ins[0].Linears
	if output {
		needed = f.linears()
	}
	for _, l := range needed {
		if err := l.Load(); err != nil {
			return err
		}
	}
	return nil
}

func (f *mlp) unload() {
	for _, l := range f.linears() {
		l.Unload()
	}
}

func (f *mlp) run(st *State, h normed, out *residual, tap Tap) error {
	if tap == nil {
		f.runChunks(st, h, out)
		return nil
	}
	defer st.release(st.mark())
	x := h.matrix(st)
	tap(f.ins[0], x)
	act := st.alloc(x.Rows, f.gate.n)
	for lo := 0; lo < x.Rows; lo += chunkTokens {
		hi := min(lo+chunkTokens, x.Rows)
		f.activate(st, operand{Matrix: act.Slice(lo, hi)}, normed{x: x.Slice(lo, hi)})
	}
	tap(f.ins[1], act)
	if out != nil {
		out.project(st, act, f.down)
	}
	return nil
}

// runChunks is run without a tap: the wide activations of a chunk of tokens
// exist at a time.
func (f *mlp) runChunks(st *State, h normed, out *residual) {
	for lo := 0; lo < h.x.Rows; lo += chunkTokens {
		part := h.slice(lo, min(lo+chunkTokens, h.x.Rows))
		mark := st.mark()
		act := newOperand(st, part.x.Rows, f.down.all())
		f.activate(st, act, part)
		out.projectAt(st, lo, act, f.down)
		st.release(mark)
	}
}

// activate stores act(Gate h) · Up h into dst.
func (f *mlp) activate(st *State, dst operand, h normed) {
	defer st.release(st.mark())
	act := kernel.SiluMul
	if f.gelu {
		act = kernel.GeluMul
	}
	f.gate.applyPair(f.up, h.share(st, f.gate, f.up), func(t, i int, gate, up []float32) {
		act(gate, gate, up)
		dst.store(t, i, gate)
	})
}
