package prune

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/stats"
)

// retargeting puts in a weight's place the one that is best for the dense model's
// output: what comes after it fits to that one. A Linear without a Cross stays.
func retargeting() step {
	type shared struct{ *fit.Correction }
	return step{
		name:    "fit",
		seconds: func(s *Seconds) *float64 { return &s.Update },
		needs:   stats.Needs{Gram: true},
		cost: func(rows, cols int) cost {
			most := max(rows, cols) // a Cross has as many rows as the Linear, or as its input
			held, making := fit.Bytes(most, cols)
			return cost{
				kept: 4 * int64(rows) * int64(cols), shared: making, held: held,
				sharedFLOP: fit.FLOP(most, cols), flop: 2 * float64(rows) * float64(cols) * float64(cols),
			}
		},
		share: func(in *input) (any, error) {
			if in.Cross == nil {
				return shared{}, nil
			}
			c, err := fit.New(in.Gram, in.Cross)
			if err != nil {
				return nil, fmt.Errorf("input of %s: Gram %w", in.of.Name, err)
			}
			in.Cross = nil
			return shared{c}, nil
		},
		run: func(_ context.Context, j *job) error {
			if c := j.shared.(shared).Correction; c != nil {
				j.stored, j.w = j.w, c.Weight(j.w, j.part.Lo)
			}
			return nil
		},
	}
}

// store rounds a result that was worked on in float32 to the weight's type.
func (j *job) store() error {
	if j.stored == nil {
		return nil
	}
	row := make([]float32, j.w.Cols)
	for i := range j.w.Rows {
		j.w.Row(row, i)
		j.stored.SetRow(i, 0, row)
	}
	if k := j.stored.FirstNonFinite(); k >= 0 {
		row, col := k/j.stored.Cols, k%j.stored.Cols
		return fmt.Errorf("fitted weight [%d, %d] is %v in %v, want a finite number", row, col, j.stored.At(row, col), j.stored.DType)
	}
	j.w, j.stored = j.stored, nil
	return nil
}

func notFinite(v float32) bool { return math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }

// branches prunes block b branch by branch, and the last Linear of a branch by what
// enters it once the others are pruned. What is known of the tokens besides is what
// plan.Fit asks for: the weights of tokens, and what they lack of the dense model's.
// Experts' tokens have no counterpart in the dense model: a branch with experts is
// pruned as a whole, to its own weights.
func (p *pruner) branches(ctx context.Context, b int, block *model.Block) ([]LinearReport, error) {
	f := &fitting{pruner: p, b: b, state: p.m.NewState(), stream: p.m.Engine().NewStream()}
	var twins []*model.Branch
	if p.dense != nil {
		twin, err := p.dense.load(func() (*model.Block, error) { return p.dense.m.LoadBlock(b) })
		if err != nil {
			return nil, err
		}
		defer twin.Release()
		twins = twin.Branches()
	}
	var all []LinearReport
	for k, branch := range block.Branches() {
		f.branch, f.twin = branch, nil
		if twins != nil {
			f.twin = twins[k]
		}
		linears, err := f.prune(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, linears...)
		end := k == len(block.Branches())-1
		if err := p.propagate(ctx, b, branch, end); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// fitPasses is how often a sequence passes a block, or a part of it, while branches
// prunes it.
const fitPasses = 6

// fitting is a branch at work.
type fitting struct {
	*pruner
	b            int
	branch, twin *model.Branch // twin: of the dense model; nil without
	state        *model.State
	stream       engine.Stream
}

// prune prunes the branch's Linears.
func (f *fitting) prune(ctx context.Context) ([]LinearReport, error) {
	inputs := f.branch.Inputs()
	if inputs[0].Linears[0].Expert {
		s, err := f.experts(ctx)
		if err != nil {
			return nil, err
		}
		return f.linears(ctx, f.b, inputs, s)
	}
	if len(inputs) != 2 {
		panic(fmt.Sprintf("prune: a branch of %d inputs, want that of its first Linears and that of its last", len(inputs)))
	}
	s, err := f.first(ctx, inputs[0])
	if err != nil {
		return nil, err
	}
	first, err := f.linears(ctx, f.b, inputs[:1], s)
	if err != nil {
		return nil, err
	}
	if s, err = f.outputs(ctx, inputs[1]); err != nil {
		return nil, err
	}
	last, err := f.linears(ctx, f.b, inputs[1:], s)
	if err != nil {
		return nil, err
	}
	all := append(first, last...)
	if f.plan.resolved.Rebuild != nil {
		result, err := f.rebuild(ctx)
		if err != nil {
			return nil, err
		}
		all[len(all)-1].Rebuilt = &result
	}
	return all, f.deliver()
}

// deliver gives the sink what waits for it.
func (p *pruner) deliver() error {
	for _, give := range p.pending {
		if err := give(); err != nil {
			return err
		}
	}
	p.pending = nil
	return nil
}

// experts returns the statistics of all inputs of a branch of experts, and takes the
// dense stream past it.
func (f *fitting) experts(ctx context.Context) (seen, error) {
	f.phase(f.b, "calibrate")
	defer timed(&f.seconds.Calibrate)()
	s, err := f.see(ctx, f.branch, f.branch.Inputs(), f.plan.needs, true)
	if err != nil {
		return nil, err
	}
	if f.twin != nil {
		if err := f.dense.store.Run(ctx, f.twin, f.state, model.Mode{}, func() {}); err != nil {
			return nil, err
		}
	}
	f.bar.Add(int64(f.sequences())) // the pass that outputs is for other branches
	return s, nil
}

// first returns the statistics of the branch's first input, with what it lacks.
func (f *fitting) first(ctx context.Context, in *model.Input) (seen, error) {
	needs := f.plan.needs(in)
	if f.plan.resolved.Fit.Dense && needs.Gram {
		needs.Cross = in.Linears[0].Cols
	}
	var enters, lacks engine.Mat
	return f.gather(ctx, in, needs, func(i int, x engine.Mat, s engine.Stats) error {
		enters = f.sized(enters, x.Rows, x.Cols)
		f.branch.Enter(f.state, enters, x)
		if f.also != nil {
			f.also(in, enters)
		}
		var of engine.Fit
		if needs.Cross > 0 {
			d, err := f.dense.store.Get(i)
			if err != nil {
				return err
			}
			lacks = f.sized(lacks, x.Rows, x.Cols)
			f.twin.Enter(f.state, lacks, d)
			f.stream.Sub(lacks, lacks, enters)
			of.Lacks = lacks
		}
		s.AddFit(enters, of)
		return nil
	}, true)
}

// outputs returns the statistics of the branch's last input, with what the output
// lacks, and takes the dense stream past the branch. Behind a norm of the output it
// is what the input lacks, and the tokens' weights are by the energy of the input.
func (f *fitting) outputs(ctx context.Context, in *model.Input) (seen, error) {
	l, needs, normed := in.Linears[0], f.plan.needs(in), f.branch.Normed()
	if f.plan.resolved.Fit.Dense && needs.Gram {
		needs.Cross = l.Rows
		if normed {
			needs.Cross = l.Cols
		}
	}
	// What enters l; and what leaves the branch, or, behind a norm, what enters l: here
	// and in the dense model.
	var own, have, want engine.Mat
	var weights []float64
	return f.gather(ctx, in, needs, func(i int, x engine.Mat, s engine.Stats) error {
		own, have = f.sized(own, x.Rows, l.Cols), f.sized(have, x.Rows, x.Cols)
		f.stream.Copy(have, x)
		if err := f.branch.Run(f.state, have, model.Mode{Tap: f.copyTo(own, in)}); err != nil {
			return err
		}
		has := have
		if normed {
			has = own
		}
		wants := has
		if f.twin != nil {
			want = f.sized(want, has.Rows, has.Cols)
			if err := f.pass(i, want, in); err != nil {
				return err
			}
			wants = want
		}
		var of engine.Fit
		if f.plan.resolved.Fit.Energy && needs.Gram {
			weights = f.weights(weights, wants)
			of.Weights = weights
		}
		if needs.Cross > 0 {
			f.stream.Sub(want, want, has)
			of.Lacks = want
		}
		s.AddFit(own, of)
		if f.also != nil {
			f.also(in, own)
		}
		return nil
	}, normed)
}

// pass takes sequence i of the dense stream past the branch and copies to want what
// leaves it, or, behind a norm, what enters its last Linear.
func (f *fitting) pass(i int, want engine.Mat, in *model.Input) error {
	d, err := f.dense.store.Get(i)
	if err != nil {
		return err
	}
	var mode model.Mode
	if f.branch.Normed() {
		mode.Tap = f.copyTo(want, in)
	}
	if err := f.twin.Run(f.state, d, mode); err != nil {
		return err
	}
	if !f.branch.Normed() {
		f.stream.Copy(want, d)
	}
	return f.dense.store.Put(i, d)
}

// copyTo returns a Tap that copies what enters in, here or in the twin.
func (f *fitting) copyTo(to engine.Mat, in *model.Input) model.Tap {
	return func(at *model.Input, x engine.Mat) {
		if at.Name == in.Name {
			f.stream.Copy(to, x)
		}
	}
}

// weights returns the tokens' weights by what is computed for each: the inverse of
// the mean square, 0 where that is 0.
func (f *fitting) weights(memory []float64, x engine.Mat) []float64 {
	w := slices.Grow(memory[:0], x.Rows)[:x.Rows]
	f.stream.Squares(w, x)
	for t, v := range w {
		if v != 0 {
			w[t] = float64(x.Cols) / v
		}
	}
	return w
}

// gather returns the statistics of in that add makes of every sequence; ofInput: a
// Cross is of what the input lacks.
func (f *fitting) gather(ctx context.Context, in *model.Input, needs stats.Needs, add func(i int, x engine.Mat, s engine.Stats) error, ofInput bool) (seen, error) {
	f.phase(f.b, "calibrate")
	defer timed(&f.seconds.Calibrate)()
	s := f.m.Engine().NewStats(in.Linears[0].Cols, needs)
	for i := range f.sequences() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x, err := f.store.Get(i)
		if err != nil {
			return nil, err
		}
		if err := add(i, x, s); err != nil {
			return nil, err
		}
		f.step()
	}
	all, err := gatherers{in: s}.seen([]*model.Input{in}, f.sequences())
	if err == nil && all[in].Cross != nil {
		all[in].Cross.OfInput = ofInput
	}
	return all, err
}

// sized returns a matrix of that size, m if it is.
func (f *fitting) sized(m engine.Mat, rows, cols int) engine.Mat {
	if m.Rows == rows && m.Cols == cols {
		return m
	}
	return f.m.Engine().NewMat(rows, cols)
}
