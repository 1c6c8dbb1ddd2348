package enginetest

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// gradients tests the backward passes, where the engine has them.
func (r *run) gradients() {
	a, ok := r.a.(engine.Gradients)
	if !ok {
		r.Skipf("%s has no backward passes", r.Engine.ID())
	}
	b := r.b.(engine.Gradients)
	for _, rows := range []int{1, 3, 17, 67} {
		r.linearBack(a, b, rows)
		r.elementsBack(a, b, rows)
	}
	for i, conf := range attentions {
		ra, rb := conf, conf
		if i%2 == 1 {
			ra.QNorm, rb.QNorm = r.norms(conf.HeadDim)
			ra.KNorm, rb.KNorm = r.norms(conf.HeadDim)
		}
		for _, tokens := range []int{1, 5, 130} {
			r.attendBack(fmt.Sprintf("%+v, %d tokens", conf, tokens), a, b, &ra, &rb, tokens)
		}
	}
}

// near holds a to b within what float32 sums of so many products are off by, relative
// to the largest element.
func (r *run) near(what string, a, b engine.Mat, products int) {
	r.Helper()
	top := 0.0
	for _, v := range Download(r.Reference, b).Data {
		top = max(top, math.Abs(float64(v)))
	}
	r.compare(what, a, b, func(_, _ int, _ float64) float64 { return float64(products+16) * 8 * eps * (top + 1e-3) })
}

func (r *run) linearBack(a, b engine.Gradients, rows int) {
	const out, in, lo, n = 9, 21, 2, 5
	p := r.proj(tensor.F32, out, in, lo, n, true)
	xa, xb := r.both(r.matrix(rows, in))
	ya, yb := r.both(r.matrix(rows, n))
	wa, wb := r.both(r.matrix(n, in)) // is added to
	da, db := r.poisoned(rows, in)
	a.LinearBack(da, wa, ya, xa, p.a)
	b.LinearBack(db, wb, yb, xb, p.b)
	r.near("LinearBack, x", da, db, n)
	r.near("LinearBack, w", wa, wb, rows)
	a.LinearBack(engine.Mat{}, wa, ya, xa, p.a)
	b.LinearBack(engine.Mat{}, wb, yb, xb, p.b)
	r.near("LinearBack, w twice", wa, wb, 2*rows)
	da, db = r.poisoned(rows, in)
	a.LinearBack(da, engine.Mat{}, ya, xa, p.a)
	b.LinearBack(db, engine.Mat{}, yb, xb, p.b)
	r.near("LinearBack, x alone", da, db, n)
}

func (r *run) elementsBack(a, b engine.Gradients, rows int) {
	const cols = 29
	na, nb := r.norms(cols)
	xa, xb := r.both(r.matrix(rows, cols))
	ua, ub := r.both(r.matrix(rows, cols))
	ya, yb := r.both(r.matrix(rows, cols))
	da, db := r.poisoned(rows, cols)
	a.NormBack(da, ya, xa, na)
	b.NormBack(db, yb, xb, nb)
	r.near("NormBack", da, db, cols)
	for _, act := range []engine.Activation{engine.SiLU, engine.GELU} {
		da, db = r.poisoned(rows, cols)
		ea, eb := r.poisoned(rows, cols)
		a.Activate(da, xa, ua, act)
		b.Activate(db, xb, ub, act)
		r.near("Activate", da, db, 8)
		a.ActivateBack(da, ea, ya, xa, ua, act)
		b.ActivateBack(db, eb, yb, xb, ub, act)
		r.near("ActivateBack, gate", da, db, 8)
		r.near("ActivateBack, up", ea, eb, 8)
	}
	by := make([]float64, rows)
	for t := range by {
		by[t] = r.uniform()
	}
	a.Scale(xa, by)
	b.Scale(xb, by)
	r.near("Scale", xa, xb, 1)
}

func (r *run) attendBack(what string, a, b engine.Gradients, ra, rb *engine.Attention, tokens int) {
	inv := make([]float32, max(1, ra.HeadDim/4))
	for i := range inv {
		inv[i] = float32(math.Pow(100, -float64(i)/float64(len(inv))))
	}
	rotary := func() *engine.Rotary { return &engine.Rotary{Inv: inv, Scale: 1.1} }
	q, k := ra.Heads*ra.HeadDim, ra.KVHeads*ra.HeadDim
	qa, qb := r.both(r.matrix(tokens, q))
	ka, kb := r.both(r.matrix(tokens, k))
	va, vb := r.both(r.matrix(tokens, k))
	ya, yb := r.both(r.matrix(tokens, q))
	dqa, dqb := r.poisoned(tokens, q)
	dka, dkb := r.poisoned(tokens, k)
	dva, dvb := r.poisoned(tokens, k)
	a.AttendBack(dqa, dka, dva, ya, qa, ka, va, rotary(), ra)
	b.AttendBack(dqb, dkb, dvb, yb, qb, kb, vb, rotary(), rb)
	r.near(what+": AttendBack, q", dqa, dqb, tokens+ra.HeadDim)
	r.near(what+": AttendBack, k", dka, dkb, tokens+ra.HeadDim)
	r.near(what+": AttendBack, v", dva, dvb, tokens+ra.HeadDim)
}
