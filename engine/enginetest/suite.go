package enginetest

import (
	"fmt"
	"math"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// eps is half a unit in the last place of 1 in float32.
const eps = 0x1p-24

// Suite holds an engine against the reference, which computes in the same way
// (engine.Compute), operation by operation: on fresh random inputs, with outputs
// that hold NaN before.
type Suite struct {
	Engine, Reference engine.Engine

	// Attention is what queries, keys, values and the weights of values are off by,
	// relatively, before they are multiplied: 0 if they are float32.
	Attention float64

	// Gram is the same of what a Gram matrix and a Cross are made of.
	Gram float64
}

// Run runs every operation over its shapes.
func (s Suite) Run(t *testing.T) {
	for name, test := range map[string]func(*run){
		"Linear": (*run).linear, "Gated": (*run).gated, "Norm": (*run).norm, "Add": (*run).add, "Sub": (*run).sub, "Gradients": (*run).gradients,
		"Attend": (*run).attend, "Halves": (*run).halves, "Experts": (*run).experts,
		"Head": (*run).head, "Stats": (*run).stats, "Delta": (*run).delta,
	} {
		t.Run(name, func(t *testing.T) {
			test(&run{Suite: s, T: t, a: s.Engine.NewStream(), b: s.Reference.NewStream()})
		})
	}
}

type run struct {
	Suite
	*testing.T
	draws splitmix.Source
	a, b  engine.Stream // the engine's and the reference's
}

// uniform returns a number in [0, 1).
func (r *run) uniform() float64 { return float64(r.draws.Next()>>11) / (1 << 53) }

// normal returns a number of the standard normal distribution (Box and Muller).
func (r *run) normal() float32 {
	return float32(math.Sqrt(-2*math.Log(1-r.uniform())) * math.Cos(2*math.Pi*r.uniform()))
}

// tokens are the numbers of rows that products treat differently.
var tokens = []int{1, 2, 3, 4, 15, 16, 17, 31, 64, 67, 130}

func (r *run) matrix(rows, cols int) tensor.Matrix {
	m := tensor.NewMatrix(rows, cols)
	for i := range m.Data {
		m.Data[i] = r.normal()
	}
	return m
}

// both returns x in the memory of both engines.
func (r *run) both(x tensor.Matrix) (a, b engine.Mat) {
	return Upload(r.Engine, x), Upload(r.Reference, x)
}

// poisoned returns a result of NaN in the memory of both engines.
func (r *run) poisoned(rows, cols int) (a, b engine.Mat) {
	x := tensor.NewMatrix(rows, cols)
	for i := range x.Data {
		x.Data[i] = float32(math.NaN())
	}
	return r.both(x)
}

// proj is a projection in both engines, and its weight and bias.
type proj struct {
	a, b engine.Proj
	w    *tensor.Weight
	bias []float32
}

// proj returns features lo to lo+n-1 of out, of a random weight of that type.
func (r *run) proj(dtype tensor.DType, out, in, lo, n int, bias bool) proj {
	p := proj{w: tensor.NewWeight(dtype, out, in)}
	for i := range out {
		p.w.SetRow(i, 0, r.matrix(1, in).Data)
	}
	p.a, p.b = engine.Proj{Lo: lo, N: n}, engine.Proj{Lo: lo, N: n}
	for _, x := range []struct {
		e engine.Engine
		p *engine.Proj
	}{{r.Engine, &p.a}, {r.Reference, &p.b}} {
		own := tensor.NewWeight(dtype, out, in)
		copy(own.Bytes(), p.w.Bytes())
		var err error
		if x.p.W, err = x.e.Load(own); err != nil {
			r.Fatal(err)
		}
	}
	if bias {
		p.bias = r.matrix(1, out).Data
		p.a.Bias, p.b.Bias = r.Engine.NewVec(p.bias), r.Reference.NewVec(p.bias)
	}
	return p
}

// sizes returns Σ|x·w| of every product, by which its error is bounded.
func (p proj) sizes(x tensor.Matrix) tensor.Matrix {
	y, row := tensor.NewMatrix(x.Rows, p.a.N), make([]float32, p.w.Cols)
	for f := range p.a.N {
		p.w.Row(row, p.a.Lo+f)
		for t := range x.Rows {
			sum := 0.0
			for j, v := range row {
				sum += math.Abs(float64(v) * float64(x.Row(t)[j]))
			}
			if p.bias != nil {
				sum += math.Abs(float64(p.bias[p.a.Lo+f]))
			}
			y.Row(t)[f] = float32(sum)
		}
	}
	return y
}

// compare holds a to b: |a−b| ≤ bound, element by element.
func (r *run) compare(what string, a, b engine.Mat, bound func(t, j int, want float64) float64) {
	r.Helper()
	got, want := Download(r.Engine, a), Download(r.Reference, b)
	for t := range want.Rows {
		for j, w := range want.Row(t) {
			g, tol := float64(got.Row(t)[j]), bound(t, j, float64(w))
			if !(math.Abs(g-float64(w)) <= tol) {
				r.Fatalf("%s: [%d %d] is %v, the reference's %v ± %g", what, t, j, g, w, tol)
			}
		}
	}
}

// productBound is that of sums of n products in an order that is not known, twice
// rounded: by the engine and by the reference.
func productBound(n int, size float32) float64 { return float64(n+4) * 2 * eps * float64(size) }

func (r *run) linear() {
	for _, dtype := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16} {
		for _, n := range tokens {
			for _, shape := range [][4]int{{1, 1, 0, 1}, {5, 7, 1, 3}, {64, 48, 0, 64}, {97, 131, 13, 67}, {400, 33, 0, 400}} {
				out, in, lo, features := shape[0], shape[1], shape[2], shape[3]
				what := fmt.Sprintf("%v, %d tokens, features %d to %d of %d × %d", dtype, n, lo, lo+features-1, out, in)
				w, x := r.proj(dtype, out, in, lo, features, n%2 == 0), r.matrix(n, in)
				size := w.sizes(x)
				bound := func(t, j int, _ float64) float64 { return productBound(in, size.Row(t)[j]) }
				xa, xb := r.both(x)
				ya, yb := r.poisoned(n, features)
				r.a.Linear(ya, xa, w.a)
				r.b.Linear(yb, xb, w.b)
				r.compare(what, ya, yb, bound)
				mark := r.a.Mark()
				za, _ := r.poisoned(n, features)
				r.a.Linear(za, r.a.Operand(xa, nil, w.a, w.a), w.a)
				r.a.Release(mark)
				r.compare(what+", by an operand", za, yb, bound)
			}
		}
	}
}

func (r *run) gated() {
	for _, dtype := range []tensor.DType{tensor.F32, tensor.BF16} {
		for _, act := range []engine.Activation{engine.SiLU, engine.GELU} {
			for _, n := range tokens {
				const in, out = 43, 70
				gate, up := r.proj(dtype, out, in, 3, 51, n%2 == 0), r.proj(dtype, out, in, 10, 51, n%2 == 0)
				down := r.proj(dtype, 9, 51, 0, 9, false)
				x := r.matrix(n, in)
				g, u := gate.sizes(x), up.sizes(x)
				// |act(x)| ≤ |x| + 1 and its slope is below 1.2; act itself errs by some 8 eps.
				bound := func(t, j int, want float64) float64 {
					dg, du := productBound(in, g.Row(t)[j]), productBound(in, u.Row(t)[j])
					return 1.2*dg*(float64(u.Row(t)[j])+du) + (float64(g.Row(t)[j])+1)*du + 32*eps*(math.Abs(want)+float64(u.Row(t)[j]))
				}
				what := fmt.Sprintf("%v, activation %d, %d tokens", dtype, act, n)
				xa, xb := r.both(x)
				ya, yb := r.poisoned(n, 51)
				r.a.Gated(ya, r.a.Operand(xa, nil, gate.a, up.a), gate.a, up.a, act)
				r.b.Gated(yb, xb, gate.b, up.b, act)
				r.compare(what, ya, yb, bound)
				r.fused(what, xa, ya, gate, up, down, act)
			}
		}
	}
}

// fused demands that what Gated writes for the next product is what that makes of
// the plain result, to the bit.
func (r *run) fused(what string, x, plain engine.Mat, gate, up, down proj, act engine.Activation) {
	defer r.a.Release(r.a.Mark())
	o := r.a.OperandFor(x.Rows, down.a)
	r.a.Gated(o, r.a.Operand(x, nil, gate.a, up.a), gate.a, up.a, act)
	got, want := r.Engine.NewMat(x.Rows, 9), r.Engine.NewMat(x.Rows, 9)
	r.a.Linear(got, o, down.a)
	r.a.Linear(want, plain, down.a)
	golden.Compare(r.T, what+", fused", Download(r.Engine, got).Data, Download(r.Engine, want).Data, golden.Tolerance{})
}

// norms returns one in both engines.
func (r *run) norms(n int) (a, b *engine.Norm) {
	w := r.matrix(1, n).Data
	return &engine.Norm{W: r.Engine.NewVec(w), Eps: 0.1}, &engine.Norm{W: r.Reference.NewVec(w), Eps: 0.1}
}

// normBound is that of a norm over n: the sum of squares, its root, two products.
func normBound(n int) func(t, j int, want float64) float64 {
	return func(_, _ int, want float64) float64 { return float64(n+8) * eps * math.Abs(want) }
}

func (r *run) norm() {
	for _, n := range tokens {
		for _, width := range []int{1, 7, 64, 131, 1030} {
			na, nb := r.norms(width)
			xa, xb := r.both(r.matrix(n, width))
			ya, yb := r.poisoned(n, width)
			r.a.Norm(ya, xa, na)
			r.b.Norm(yb, xb, nb)
			r.compare(fmt.Sprintf("%d × %d", n, width), ya, yb, normBound(width))
			r.a.Norm(xa, xa, na)
			r.compare(fmt.Sprintf("%d × %d in place", n, width), xa, yb, normBound(width))
			w := r.proj(tensor.BF16, 5, width, 0, 5, false)
			oa := r.a.Operand(xa, nil, w.a)
			za, zb := r.poisoned(n, 5)
			r.a.Linear(za, oa, w.a)
			r.b.Linear(zb, Upload(r.Reference, Download(r.Engine, xa)), w.b)
			size := w.sizes(Download(r.Engine, xa))
			r.compare("its product", za, zb, func(t, j int, _ float64) float64 { return productBound(width, size.Row(t)[j]) })
			r.a.Release(0)
		}
	}
}

func (r *run) add() {
	for _, n := range tokens {
		for _, post := range []bool{false, true} {
			const width = 67
			x, y := r.matrix(n, width), r.matrix(n, width)
			xa, xb := r.both(x)
			ya, yb := r.both(y)
			var na, nb *engine.Norm
			if post {
				na, nb = r.norms(width)
			}
			r.a.Add(xa, ya, na)
			r.b.Add(xb, yb, nb)
			r.compare(fmt.Sprintf("%d tokens, post %v", n, post), xa, xb, func(_, _ int, want float64) float64 {
				return float64(width+8) * eps * (math.Abs(want) + 16)
			})
		}
	}
}

func (r *run) halves() {
	for _, n := range tokens {
		const heads, dim = 3, 10
		x := r.matrix(n, 2*heads*dim)
		xa, xb := r.both(x)
		ya, yb := r.poisoned(n, heads*dim)
		r.a.FirstHalves(ya, xa, dim)
		r.b.FirstHalves(yb, xb, dim)
		r.compare("first halves", ya, yb, func(_, _ int, _ float64) float64 { return 0 })
		r.a.GateHalves(ya, xa, dim)
		r.b.GateHalves(yb, xb, dim)
		r.compare("gated", ya, yb, func(_, _ int, want float64) float64 { return 16 * eps * (math.Abs(want) + 1) })
	}
}

func (r *run) experts() {
	for _, n := range tokens {
		for _, renormalise := range []bool{false, true} {
			const width, count, used = 24, 11, 3
			router := r.proj(tensor.F32, count, width, 0, count, false)
			x := r.matrix(n, width)
			x.Row(n - 1)[0] = float32(math.NaN()) // goes nowhere
			xa, xb := r.both(x)
			got, want := r.a.Route(xa, router.a, used, renormalise), r.b.Route(xb, router.b, used, renormalise)
			routed := 0
			for e := range want {
				if len(got[e]) != len(want[e]) {
					r.Fatalf("%d tokens: expert %d gets %d, the reference's %d", n, e, len(got[e]), len(want[e]))
				}
				for i, w := range want[e] {
					if g := got[e][i]; g.Token != w.Token || !(math.Abs(float64(g.Weight-w.Weight)) <= 1e-5) {
						r.Fatalf("%d tokens: expert %d gets %+v, the reference's %+v", n, e, g, w)
					}
				}
				routed += len(want[e])
				r.pass(xa, xb, want[e], width)
			}
			if routed != used*(n-1) {
				r.Fatalf("%d of %d tokens are routed", routed, used*(n-1))
			}
		}
	}
}

// pass gathers an expert's tokens and adds them, weighted, to a sum.
func (r *run) pass(xa, xb engine.Mat, tokens []engine.Routed, width int) {
	ga, gb := r.poisoned(len(tokens), width)
	r.a.Gather(ga, xa, tokens)
	r.b.Gather(gb, xb, tokens)
	r.compare("gathered", ga, gb, func(_, _ int, _ float64) float64 { return 0 })
	sa, sb := r.both(r.matrix(xa.Rows, width))
	r.a.ScatterAdd(sa, ga, tokens)
	r.b.ScatterAdd(sb, gb, tokens)
	r.compare("scattered", sa, sb, func(_, _ int, want float64) float64 { return 4 * eps * (math.Abs(want) + 8) })
}

func (r *run) head() {
	for _, n := range tokens {
		for _, softCap := range []float32{0, 3} {
			const width, vocab = 29, 301
			head := r.proj(tensor.BF16, vocab, width, 0, vocab, false)
			x := r.matrix(n, width)
			xa, xb := r.both(x)
			size := head.sizes(x)
			bound := func(t, j int, want float64) float64 {
				return productBound(width, size.Row(t)[j]) + 16*eps*math.Abs(want) + 8*eps
			}
			ya, yb := r.poisoned(n, vocab)
			targets := make([]int32, n)
			for t := range targets {
				targets[t] = int32(r.uniform() * vocab)
			}
			sums := [2][]engine.LogSum{make([]engine.LogSum, n), make([]engine.LogSum, n)}
			for first := 0; first < vocab; first += 127 {
				part := func(p engine.Proj) engine.Proj {
					p.Lo, p.N = first, min(127, vocab-first)
					return p
				}
				r.a.Logits(ya, xa, part(head.a), first, softCap)
				r.b.Logits(yb, xb, part(head.b), first, softCap)
				r.a.LogSums(sums[0], xa, part(head.a), first, softCap, targets)
				r.b.LogSums(sums[1], xb, part(head.b), first, softCap, targets)
			}
			r.compare(fmt.Sprintf("%d tokens, cap %v", n, softCap), ya, yb, bound)
			for t := range sums[0] {
				// No logit is off by more than the largest bound, nor is their log-sum.
				worst := 0.0
				for j := range vocab {
					worst = max(worst, bound(t, j, 40))
				}
				if a, b := sums[0][t].NLL(), sums[1][t].NLL(); !(math.Abs(a-b) <= 2*worst+1e-6) {
					r.Fatalf("%d tokens, cap %v: token %d: %v nats, the reference's %v", n, softCap, t, a, b)
				}
			}
		}
	}
}

// sub tests Sub and Squares.
func (r *run) sub() {
	for _, rows := range tokens {
		const cols = 37
		xa, xb := r.both(r.matrix(rows, cols))
		ya, yb := r.both(r.matrix(rows, cols))
		da, db := r.poisoned(rows, cols)
		r.a.Sub(da, xa, ya)
		r.b.Sub(db, xb, yb)
		exact := func(_, _ int, _ float64) float64 { return 0 }
		r.compare("Sub", da, db, exact)
		got, want := make([]float64, rows), make([]float64, rows)
		r.a.Squares(got, da)
		r.b.Squares(want, db)
		golden.Compare(r.T, "Squares", got, want, golden.Tolerance{Rel: cols * 0x1p-52})
		r.a.Sub(xa, xa, ya) // in place
		r.compare("Sub in place", xa, db, exact)
	}
}

func (r *run) stats() {
	for _, in := range []int{1, 9, 300} {
		const lacks = 7
		needs := stats.Needs{Gram: true, Moments: true, Cross: lacks}
		a, b := r.Engine.NewStats(in, needs), r.Reference.NewStats(in, needs)
		size := 0.0 // the most that a channel's squares sum to
		for i, n := range []int{33, 0, 1, 17} {
			xa, xb := r.both(r.matrix(n, in))
			ya, yb := r.both(r.matrix(n, lacks))
			if i == 0 { // no weights, nothing lacks
				a.Add(xa)
				b.Add(xb)
				continue
			}
			weights := make([]float64, n)
			for t := range weights {
				weights[t] = r.uniform()
			}
			a.AddFit(xa, engine.Fit{Weights: weights, Lacks: ya})
			b.AddFit(xb, engine.Fit{Weights: weights, Lacks: yb})
		}
		got, want := a.Input(4), b.Input(4)
		for _, v := range want.ColSq {
			size = max(size, v)
		}
		exact := golden.Tolerance{Abs: 1e-12 * size, Rel: 1e-12}
		golden.Compare(r.T, "ColSq", got.ColSq, want.ColSq, exact)
		golden.Compare(r.T, "ColSum", got.ColSum, want.ColSum, exact)
		golden.Compare(r.T, "ColVar", got.ColVar, want.ColVar, exact)
		for i := range in {
			for j := range in {
				// float32 sums of at most 33 products; H is twice their mean.
				if g, w := got.Gram.At(i, j), want.Gram.At(i, j); !(math.Abs(g-w) <= (33*2*eps+2*r.Gram)*2*size) {
					r.Fatalf("%d columns: H[%d %d] is %v, the reference's %v", in, i, j, g, w)
				}
			}
		}
		for i := range lacks {
			for j := range in {
				// As above; the sizes of 18 tokens' y and x are below 6 each.
				if g, w := got.Cross.At(i, j), want.Cross.At(i, j); !(math.Abs(g-w) <= (18*3*eps+2*r.Gram)*2*36) {
					r.Fatalf("%d columns: C[%d %d] is %v, the reference's %v", in, i, j, g, w)
				}
			}
		}
		if got.Tokens != 51 || got.Sequences != 4 {
			r.Fatalf("%d tokens, %d sequences, want 51 and 4", got.Tokens, got.Sequences)
		}
	}
}
