package prune

import (
	"context"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Allocation is how the sparsity was spread over the blocks.
type Allocation struct {
	Method string           `json:"method"`
	Blocks []allocate.Block `json:"blocks"`
}

// shares are the blocks' shares of the sparsity.
type shares struct {
	blocks  []allocate.Block // nil: every block gets the same
	uniform bool             // they turned out the same
}

// target returns what is to be pruned of block b where t is of the whole.
func (s shares) target(t pattern.Target, b int) pattern.Target {
	if s.blocks != nil && !s.uniform {
		t.Sparsity, t.Level = s.blocks[b].Share, true
	}
	return t
}

// sharesOf spreads the sparsity of p over blocks, which have been measured.
func (p *Plan) sharesOf(blocks []allocate.Block, warn func(format string, args ...any)) (shares, error) {
	a := p.resolved.Allocate
	uniform, err := a.Allocate(blocks, p.resolved.Target.Sparsity, p.resolved.Params)
	if err != nil {
		return shares{}, fmt.Errorf("allocate: %w", err)
	}
	if uniform {
		warn("allocation %s finds no difference between blocks: every block is pruned alike", a.Name)
	}
	return shares{blocks, uniform}, nil
}

func stepMeasure(b int) string { return fmt.Sprintf("measure block %d", b) }

// allocate measures the dense blocks, but those that the journal calls done, and
// spreads the sparsity over them.
func (r *runner) allocate(ctx context.Context) error {
	a := r.plan.resolved.Allocate
	switch {
	case a == nil:
		return nil
	case !a.Reads():
		var err error
		r.shares, err = r.plan.sharesOf(r.plan.blocks(r.m), r.opt.warn)
		return err
	}
	defer timed(&r.report.Seconds.Allocate)()
	s := r.stream()
	defer s.close()
	done := r.done(stepMeasure)
	m := &measurer{stream: s, plan: r.plan, blocks: r.plan.blocks(r.m)}
	for b := range done {
		if err := r.w.Info(stepMeasure(b), &m.blocks[b].Measure); err != nil {
			return err
		}
	}
	m.done = func(b int) error {
		if err := r.states.save(b+1, copied{s, statesDense}); err != nil {
			return err
		}
		return r.w.Mark(stepMeasure(b), m.blocks[b].Measure)
	}
	if done < r.m.Blocks() {
		if a.NeedsData() {
			if err := r.open(ctx, s, statesDense, done); err != nil {
				return err
			}
		}
		s.start(r.opt.Progress, "allocate", 1, r.m.Blocks()-done)
		if err := s.each(ctx, done, r.m.Blocks(), m.visit); err != nil {
			return err
		}
	}
	var err error
	r.shares, err = r.plan.sharesOf(m.blocks, r.opt.warn)
	return err
}

// blocks returns how many weights of each block of m may be pruned.
func (p *Plan) blocks(m *model.Model) []allocate.Block {
	blocks := make([]allocate.Block, m.Blocks())
	for b := range blocks {
		for _, l := range m.Linears(b) {
			if !p.skip[l.Name] {
				blocks[b].Weights += l.Rows * l.Cols
			}
		}
	}
	return blocks
}

// measurer measures block after block of a stream for an allocation.
type measurer struct {
	*stream
	plan   *Plan
	blocks []allocate.Block
	done   func(b int) error // is called once block b is measured
	memory buffer
}

// visit measures block b and takes the hidden states past it.
func (m *measurer) visit(ctx context.Context, b int, block *model.Block) error {
	m.phase(b, "measure")
	var s seen
	if m.store != nil {
		var err error
		if s, err = m.pass(ctx, b, block); err != nil {
			return err
		}
	}
	if to := &m.blocks[b]; to.Weights > 0 {
		var err error
		if to.Measure, err = m.measure(ctx, block, s); err != nil {
			return err
		}
		if math.IsNaN(to.Measure) {
			return fmt.Errorf("allocation %s finds nothing in it to measure", m.plan.resolved.Allocate.Name)
		}
	}
	m.memory = buffer{}
	return m.done(b)
}

// measure returns the measure of the dense block. Linears that the recipe leaves
// dense have no part in it, nor do experts that saw too few tokens for a score.
func (m *measurer) measure(ctx context.Context, block *model.Block, s seen) (float64, error) {
	a := m.plan.resolved.Allocate
	if a.FromWeight != nil {
		sum, n := 0.0, 0
		err := m.weights(ctx, block, func(_ *model.Input, _ *model.Linear, w *tensor.Weight) error {
			v, err := a.FromWeight(w)
			if err == nil && !math.IsNaN(v) {
				sum, n = sum+v, n+1
			}
			return err
		})
		return sum / float64(n), err
	}
	scores := func(f func(s []float32)) error {
		return m.weights(ctx, block, func(in *model.Input, l *model.Linear, w *tensor.Weight) error {
			if tooFewTokens(l, s[in]) {
				return nil
			}
			x := m.memory.take(l.Rows * l.Cols)
			if err := score.Wanda.Score(x, w, s[in], nil); err != nil {
				return err
			}
			f(x)
			return nil
		})
	}
	return a.FromScores(scores, m.plan.resolved.Params)
}

// weights calls f with every weight of block that may be pruned.
func (m *measurer) weights(ctx context.Context, block *model.Block, f func(in *model.Input, l *model.Linear, w *tensor.Weight) error) error {
	for _, in := range block.Inputs() {
		for _, l := range in.Linears {
			if m.plan.skip[l.Name] {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			w, err := l.Read()
			if err == nil {
				err = f(in, l, w)
			}
			l.Unload()
			if err != nil {
				return fmt.Errorf("tensor %s.weight: %w", l.Name, err)
			}
		}
	}
	return nil
}

// tooFewTokens reports whether l is of an expert to which routing has brought fewer
// than MinTokens tokens; s is what its input saw, nil if nothing was gathered.
func tooFewTokens(l *model.Linear, s *stats.Input) bool {
	return s != nil && l.Expert && s.Tokens < MinTokens
}
