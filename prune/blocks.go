package prune

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// prune prunes the blocks that are not done.
func (r *runner) prune(ctx context.Context) error {
	done := r.done(stepBlock)
	if done == r.m.Blocks() {
		return nil
	}
	steps := r.plan.steps
	if r.opt.Masks != nil {
		steps = []step{taking(r.opt.Masks), applying()}
	} else {
		r.warnOfFewTokens()
	}
	s := r.stream()
	defer s.close()
	g := r.newGauge()
	sink := &outputSink{runner: r, streams: []copied{{s, statesPruned}}, g: g}
	p := &pruner{
		stream: s, plan: r.plan, target: r.target, warn: r.opt.warn, sink: sink, steps: steps, withoutData: withoutData(r.plan.resolved), gauge: g,
		observe: func(context.Context, int, *model.Block) (seen, error) { return nil, nil },
	}
	if r.plan.resolved.Observes && r.opt.Masks == nil {
		if err := r.open(ctx, s, statesPruned, done); err != nil {
			return err
		}
		s.also = g.tap
		p.observe = func(ctx context.Context, b int, block *model.Block) (seen, error) {
			return s.watch(ctx, b, block, r.plan.needs)
		}
	}
	passes := 2 // dense and pruned
	if f := r.plan.resolved; f.InOrder() && r.opt.Masks == nil {
		p.inOrder, passes = true, fitPasses
		if f.Rebuild != nil {
			passes += 2 * rebuildPasses(f.Params) // attention and MLP
		}
		if f.Dense() {
			p.dense = r.stream()
			defer p.dense.close()
			if err := r.open(ctx, p.dense, statesDense, done); err != nil {
				return err
			}
			sink.streams = append(sink.streams, copied{p.dense, statesDense})
		}
	}
	s.start(r.opt.Progress, "prune", passes, r.m.Blocks()-done)
	defer func() { r.report.Selected = p.selected }()
	return s.each(ctx, done, r.m.Blocks(), p.visit)
}

// done returns how many blocks the journal calls done.
func (r *runner) done(step func(b int) string) int {
	n := 0
	for n < r.m.Blocks() && r.w.Done(step(n)) {
		n++
	}
	return n
}

func (r *runner) stream() *stream {
	return &stream{m: r.m, seconds: &r.report.Seconds, written: r.w.Folder(), phases: true}
}

// open takes the calibration sequences into s, before block b of blocks that are
// pruned or dense, as kind says.
func (r *runner) open(ctx context.Context, s *stream, kind string, b int) error {
	c := r.opt.Calibration
	if err := s.open(c.Tokens, c.SeqLen, r.place()); err != nil {
		return err
	}
	return r.states.restore(ctx, s, kind, b, func() (*model.Model, func(), error) {
		if kind == statesDense {
			return r.m, func() {}, nil
		}
		inv, pruned, err := r.openPruned()
		return pruned, func() { inv.Close() }, err
	}, r.opt.Progress)
}

// target returns what is to be pruned of block b.
func (r *runner) target(b int) pattern.Target {
	return r.shares.target(r.plan.resolved.Target, b)
}

// outputSink writes what is pruned.
type outputSink struct {
	*runner
	streams []copied // that go on with what has passed a block
	g       *gauge
	writing beside // of Linears, while others are pruned and the sequences pass the block
}

// blockDone is what the journal has of a block.
type blockDone struct {
	Linears  []LinearReport  `json:"linears"`
	Measures []LinearMeasure `json:"measures,omitempty"`
}

// newGauge returns a gauge for what the run prunes.
func (r *runner) newGauge() *gauge {
	return newGauge(r.m.Engine(), r.opt.tokens(), &r.report.Seconds.Measure)
}

func (o *outputSink) linear(l *model.Linear, w *tensor.Weight, matrices []*job) error {
	defer timed(&o.report.Seconds.Write)()
	if err := verify(w, matrices); err != nil {
		return err
	}
	write := func() error { return o.w.WriteTensor(l.Name+".weight", w.Bytes()) }
	if o.m.ExpertBytes() > 0 { // w may be given up at once, and is read from the output
		return write()
	}
	o.writing.do(func() error {
		if err := write(); err != nil {
			return fmt.Errorf("tensor %s.weight: %w", l.Name, err)
		}
		return nil
	})
	return nil
}

// settle counts as writing only what is waited for.
func (o *outputSink) settle() error {
	defer timed(&o.report.Seconds.Write)()
	return o.writing.wait()
}

func (o *outputSink) block(b int, _ *model.Block, linears []LinearReport) error {
	if err := o.states.save(b+1, o.streams...); err != nil {
		return err
	}
	defer timed(&o.report.Seconds.Write)()
	return o.w.Mark(stepBlock(b), blockDone{linears, o.g.take()})
}

// warnOfFewTokens says what a Gram matrix of too few tokens is worth.
func (r *runner) warnOfFewTokens() {
	fits := ""
	for _, s := range r.plan.steps {
		if s.needs.Gram {
			fits = s.name
		}
	}
	if fits == "" {
		return
	}
	cols := 0
	for _, l := range r.plan.Linears {
		cols = max(cols, l.Cols)
	}
	if n := r.opt.tokens(); n < cols {
		r.opt.warn("%d calibration tokens are fewer than the %d columns of the widest Linear: the %s fits those tokens, not what the model sees", n, cols, fits)
	}
}
