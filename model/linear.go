package model

import (
	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/tensor"
)

// Linear computes y = W x + b.
type Linear struct {
	Name       string // of the checkpoint, without ".weight"
	Rows, Cols int    // out, in

	// Expert marks a Linear of one of a mixture of experts: only the tokens
	// routed to it enter.
	Expert bool

	// Attention marks a Linear of what mixes the tokens: q, k, v, o, fused or
	// not, and of Gated DeltaNet, which stands in their place, all it has.
	Attention bool

	// Output marks the last Linear of the attention or of a feed-forward network,
	// whose products are added to the residual stream.
	Output bool

	// Parts are what a fused matrix holds; nil for one that is not fused.
	Parts []Part

	// Gate marks the few rows that set how fast a recurrent state decays and
	// learns: pruning them saves nothing and costs much, so the default is not to.
	Gate bool

	bias     engine.Vec // [out], nil for none
	op       engine.Op  // nil while it is not in memory
	engine   engine.Engine
	stored   stored
	streamed bool // in memory only between Read and Unload, or while its tokens pass
}

// stored says where a weight is.
type stored struct {
	inv    *checkpoint.Inventory
	tensor checkpoint.Tensor
	pool   *pool
	plain  bool // as in Model
}

// packer returns what of e keeps the weight in packed form in memory, if it is packed there.
func (s *stored) packer(e engine.Engine) (engine.Packer, bool) {
	p, ok := e.(engine.Packer)
	return p, ok && !s.plain && s.inv.Packed(s.tensor)
}

// bytes returns what the weight takes in the memory of e.
func (s *stored) bytes(e engine.Engine) int64 {
	if _, ok := s.packer(e); ok {
		return s.inv.Resident(s.tensor)
	}
	return s.tensor.Size
}

// loadPacked reads the weight, which is packed.
func (s *stored) loadPacked(p engine.Packer) (engine.Op, error) {
	w, err := readPacked(s.inv, s.tensor)
	if err != nil {
		return nil, err
	}
	return p.LoadPacked(w)
}

// bytes returns what l's weight takes in memory.
func (l *Linear) bytes() int64 { return l.stored.bytes(l.engine) }

// Read returns the weight, from the checkpoint if it is not in memory: only
// experts that Options.ExpertBytes leaves no room for are not. It may be edited;
// products are to see an edited weight only after Write. It is of use until
// Unload or the block's Release.
func (l *Linear) Read() (*tensor.Weight, error) {
	if err := l.load(); err != nil {
		return nil, err
	}
	if w := l.op.Weight(); w != nil {
		return w, nil
	}
	w := tensor.NewWeight(l.stored.tensor.DType, l.Rows, l.Cols)
	l.op.Read(w)
	return w, nil
}

// Write makes w, which Read returned, the weight that products read.
func (l *Linear) Write(w *tensor.Weight) error {
	op, err := l.engine.Load(w)
	if err == nil {
		engine.Free(l.op)
		l.op = op
	}
	return err
}

// Op returns the weight as products read it, between Read and Unload.
func (l *Linear) Op() engine.Op { return l.op }

// WritePruned is Write of a w that differs from the weight that products read in what the
// masks of its parts prune, which is 0: one that lies on a device need not go there again.
func (l *Linear) WritePruned(w *tensor.Weight, parts []Part, masks []*mask.Mask) error {
	s, ok := l.engine.(engine.Selector)
	for _, p := range parts {
		ok = ok && p.Step == 0
	}
	if !ok || l.op.Weight() != w {
		return l.Write(w)
	}
	for i, p := range parts {
		s.Apply(l.op, p.Lo, masks[i])
	}
	return nil
}

// Unload gives up a weight that does not stay in memory, and with it every change.
func (l *Linear) Unload() {
	if l.streamed {
		l.release()
	}
}

// load reads the weight unless it is in memory.
func (l *Linear) load() error {
	if l.op != nil {
		return nil
	}
	if p, ok := l.stored.packer(l.engine); ok {
		op, err := l.stored.loadPacked(p)
		if err == nil {
			l.op = op
		}
		return err
	}
	w := l.stored.pool.get(l.stored.tensor.DType, l.Rows, l.Cols)
	err := readWeight(l.stored.inv, l.stored.tensor, w)
	if err == nil {
		l.op, err = l.engine.Load(w)
	}
	if err != nil || l.op.Weight() == nil {
		l.stored.pool.put(w)
	}
	return err
}

func (l *Linear) release() {
	if l.op == nil {
		return
	}
	if w := l.op.Weight(); w != nil {
		l.stored.pool.put(w)
	}
	engine.Free(l.op)
	l.op = nil
}

// Part is what of a Linear's rows is a Linear of its own in models that do not
// fuse: rows Lo to Hi-1, or, where the parts are interleaved by heads, the first
// Run of every Step of them.
type Part struct {
	Name      string // "q"
	Lo, Hi    int
	Run, Step int // 0: all rows
}

// Rows returns the number of rows.
func (p Part) Rows() int {
	if p.Step == 0 {
		return p.Hi - p.Lo
	}
	return (p.Hi - p.Lo + p.Step - p.Run) / p.Step * p.Run
}

// Take returns the part's rows of w: w's memory if they follow each other, else
// a copy.
func (p Part) Take(w *tensor.Weight) *tensor.Weight {
	if p.Step == 0 {
		return w.Slice(p.Lo, p.Hi)
	}
	part := tensor.NewWeight(w.DType, p.Rows(), w.Cols)
	p.runs(w, part, func(all, own []byte) { copy(own, all) })
	return part
}

// Return writes what Take returned back into w.
func (p Part) Return(w, part *tensor.Weight) {
	if p.Step != 0 {
		p.runs(w, part, func(all, own []byte) { copy(all, own) })
	}
}

// runs calls f with each run of rows, in w and in the part.
func (p Part) runs(w, part *tensor.Weight, f func(all, own []byte)) {
	for lo, at := p.Lo, 0; lo < p.Hi; lo, at = lo+p.Step, at+p.Run {
		f(w.Slice(lo, lo+p.Run).Bytes(), part.Slice(at, at+p.Run).Bytes())
	}
}

// proj is a projection: a Linear's output features lo to lo+n-1. A fused matrix
// holds several. It sees every Write.
type proj struct {
	*Linear
	lo, n int
}

// all returns every feature of l.
func (l *Linear) all() proj { return proj{Linear: l, n: l.Rows} }

// part returns the i-th of l's Parts.
func (l *Linear) part(i int) proj {
	p := l.Parts[i]
	return proj{Linear: l, lo: p.Lo, n: p.Hi - p.Lo}
}

// engine returns it as operations take it.
func (r proj) engine() engine.Proj { return engine.Proj{W: r.op, Bias: r.bias, Lo: r.lo, N: r.n} }

func projs(ws []proj) []engine.Proj {
	all := make([]engine.Proj, len(ws))
	for i, w := range ws {
		all[i] = w.engine()
	}
	return all
}

// Input is one activation and the Linears it enters, which share a statistic.
type Input struct {
	Name    string // of the first Linear
	Linears []*Linear
}

// Tap is called with the tokens × in activation that enters in's Linears. x is
// valid during the call only and must not be changed.
type Tap func(in *Input, x engine.Mat)

func newInput(linears ...*Linear) *Input {
	return &Input{Name: linears[0].Name, Linears: linears}
}

// outputInput is the input of a Linear that ends a branch.
func outputInput(l *Linear) *Input {
	l.Output = true
	return newInput(l)
}

// attentionInputs marks the Linears of ins and returns ins.
func attentionInputs(ins ...*Input) []*Input {
	for _, in := range ins {
		for _, l := range in.Linears {
			l.Attention = true
		}
	}
	return ins
}
