package model

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
)

// trainable is a sublayer with a backward pass.
type trainable interface {
	sublayer

	// train writes into y what the layer computes for h, which is normed already, for
	// one whole sequence. back adds to grads, by Linear, what the gradient dy of y is of
	// the weights. It uses the pass's scratch.
	train(p *pass, y, h engine.Mat) (back func(g engine.Gradients, dy engine.Mat, grads map[*Linear]engine.Mat))
}

// CheckTrainable returns an error that names the first layer of m without a backward
// pass: all but attention and gated MLPs.
func (m *Model) CheckTrainable() error {
	if _, ok := m.opt.Engine.NewStream().(engine.Gradients); !ok {
		return fmt.Errorf("engine %s has no backward passes", m.opt.Engine.ID())
	}
	for i := range m.Blocks() {
		for _, b := range m.bind(m.binder(), i).branches {
			what := ""
			switch l := b.layer.(type) {
			case *moe:
				what = "a mixture of experts"
			case *deltaNet:
				what = "Gated DeltaNet"
			case *attention:
				if l.gated {
					what = "attention with a gate on its output"
				}
			case *mlp:
			default:
				what = fmt.Sprintf("%T", l)
			}
			if what != "" {
				return fmt.Errorf("%s: block %d has %s, which has no backward pass", m.Config.Architecture, i, what)
			}
		}
	}
	return nil
}

// Loss returns how far the branch is from what is wanted,
//
//	L = Σ_t w_t·‖x_t + branch(x)_t − y_t‖²
//
// for the hidden states x of one whole sequence, which enter it, and y, which should
// leave it. Unless grads is nil, ∂L/∂W is added to grads[l], out × in, for every Linear
// l there. x and y stay as they are. CheckTrainable must allow it.
func (b *Branch) Loss(st *State, x, y engine.Mat, weights []float64, grads map[*Linear]engine.Mat) float64 {
	p := &pass{Stream: st.stream, st: st, pieces: []Piece{{Tokens: x.Rows}}}
	g := st.stream.(engine.Gradients)
	defer p.Release(p.Mark())
	own, e, h := p.Alloc(x.Rows, x.Cols), p.Alloc(x.Rows, x.Cols), p.Alloc(x.Rows, x.Cols)
	p.Norm(h, x, b.norm)
	back := b.layer.(trainable).train(p, own, h)
	p.Sub(e, x, y)
	out := own
	if b.post != nil {
		out = p.Alloc(x.Rows, x.Cols)
		p.Norm(out, own, b.post)
	}
	p.Add(e, out, nil) // what is too much
	loss, squares := 0.0, make([]float64, x.Rows)
	p.Squares(squares, e)
	for t, v := range squares {
		loss += weights[t] * v
		squares[t] = 2 * weights[t]
	}
	if grads == nil {
		return loss
	}
	g.Scale(e, squares)
	if b.post != nil {
		d := p.Alloc(x.Rows, x.Cols)
		g.NormBack(d, e, own, b.post)
		e = d
	}
	back(g, e, grads)
	return loss
}

// back adds the gradient of r's weight, and writes that of its input into dx, if it
// has rows.
func (r proj) back(g engine.Gradients, dx, dy, x engine.Mat, grads map[*Linear]engine.Mat) {
	var dw engine.Mat
	if all, ok := grads[r.Linear]; ok {
		dw = all.Slice(r.lo, r.lo+r.n)
	}
	g.LinearBack(dx, dw, dy, x, r.engine())
}

func (a *attention) train(p *pass, y, h engine.Mat) func(engine.Gradients, engine.Mat, map[*Linear]engine.Mat) {
	width := a.conf.Heads * a.conf.HeadDim
	q, k, v := p.Alloc(h.Rows, width), p.Alloc(h.Rows, a.k.n), p.Alloc(h.Rows, a.v.n)
	x := p.Operand(h, nil, a.q.engine(), a.k.engine(), a.v.engine())
	p.Linear(q, x, a.q.engine())
	p.Linear(k, x, a.k.engine())
	p.Linear(v, x, a.v.engine())
	heads, keys, values := p.Alloc(h.Rows, width), p.Alloc(h.Rows, a.k.n), p.Alloc(h.Rows, a.v.n)
	p.Copy(heads, q)
	p.Copy(keys, k)
	p.Copy(values, v)
	o := a.o.all()
	seqs := p.sequences(a.block, a.rope, func(old engine.Cache) engine.Cache { return p.AttentionCache(&a.conf, o.engine(), old) })
	p.Attend(heads, keys, values, seqs, &a.conf)
	p.Linear(y, p.Operand(heads, nil, o.engine()), o.engine())
	return func(g engine.Gradients, dy engine.Mat, grads map[*Linear]engine.Mat) {
		d, dq, dk, dv := p.Alloc(h.Rows, width), p.Alloc(h.Rows, width), p.Alloc(h.Rows, a.k.n), p.Alloc(h.Rows, a.v.n)
		o.back(g, d, dy, heads, grads)
		g.AttendBack(dq, dk, dv, d, q, k, v, seqs[0].Rotary, &a.conf)
		a.q.back(g, engine.Mat{}, dq, h, grads)
		a.k.back(g, engine.Mat{}, dk, h, grads)
		a.v.back(g, engine.Mat{}, dv, h, grads)
	}
}

func (f *mlp) train(p *pass, y, h engine.Mat) func(engine.Gradients, engine.Mat, map[*Linear]engine.Mat) {
	gate, up, act := p.Alloc(h.Rows, f.gate.n), p.Alloc(h.Rows, f.up.n), p.Alloc(h.Rows, f.up.n)
	x := p.Operand(h, nil, f.gate.engine(), f.up.engine())
	p.Linear(gate, x, f.gate.engine())
	p.Linear(up, x, f.up.engine())
	p.Stream.(engine.Gradients).Activate(act, gate, up, f.act)
	down := f.down.all()
	p.Linear(y, p.Operand(act, nil, down.engine()), down.engine())
	return func(g engine.Gradients, dy engine.Mat, grads map[*Linear]engine.Mat) {
		d, dGate, dUp := p.Alloc(h.Rows, f.up.n), p.Alloc(h.Rows, f.gate.n), p.Alloc(h.Rows, f.up.n)
		down.back(g, d, dy, act, grads)
		g.ActivateBack(dGate, dUp, d, gate, up, f.act)
		f.gate.back(g, engine.Mat{}, dGate, h, grads)
		f.up.back(g, engine.Mat{}, dUp, h, grads)
	}
}
