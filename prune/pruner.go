package prune

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// MinTokens is what an expert must have seen of the calibration text for its
// activation norms to say more than chance: with fewer tokens than this its
// Linears are pruned by magnitude.
const MinTokens = 64

// pruner prunes block after block of a stream.
type pruner struct {
	*stream
	dense  *stream // through the dense blocks, for a fit to what they yield; nil without
	plan   *Plan
	target func(b int) pattern.Target
	warn   func(format string, args ...any)
	sink   sink

	// observe returns the statistics of the inputs of block b, which is still dense.
	observe func(ctx context.Context, b int, block *model.Block) (seen, error)

	inOrder            bool // Linears are pruned in the order of their inputs, see branches
	steps, withoutData []step
	gauge              *gauge // nil: nothing is measured
	memory             buffer
	selected           Selected
	pending            []func() error // give the branch's Linears to the sink, once it is rebuilt
	warned             string         // the expert that was last warned of
}

// sink takes what has been pruned.
type sink interface {
	// linear takes a Linear, whose weight is w; none of its matrices went through
	// the steps if it is left dense. Nothing changes w before settle returns, or, of a
	// weight that does not stay in memory, before linear does.
	linear(l *model.Linear, w *tensor.Weight, matrices []*job) error

	// settle waits until all that linear took is dealt with.
	settle() error

	// block takes block b, once the hidden states have passed it.
	block(b int, block *model.Block, linears []LinearReport) error
}

// visit takes block b from dense to pruned, and the hidden states past it.
func (p *pruner) visit(ctx context.Context, b int, block *model.Block) error {
	defer p.sink.settle() // whatever happens: the block's memory is given back
	work := p.whole
	if p.inOrder {
		work = p.branches
	}
	linears, err := work(ctx, b, block)
	if err != nil {
		return err
	}
	if err := p.sink.settle(); err != nil {
		return err
	}
	return p.sink.block(b, block, linears)
}

// whole prunes all Linears of block b by what they see while it is dense.
func (p *pruner) whole(ctx context.Context, b int, block *model.Block) ([]LinearReport, error) {
	s, err := p.observe(ctx, b, block)
	if err != nil {
		return nil, err
	}
	linears, err := p.linears(ctx, b, block.Inputs(), s)
	if err != nil {
		return nil, err
	}
	return linears, p.propagate(ctx, b, block, true)
}

// linears prunes the Linears of some inputs of block b. Scores and the scratch of a
// forward pass are both large and never in use at the same time: each is collected
// before the other is taken.
func (p *pruner) linears(ctx context.Context, b int, inputs []*model.Input, s seen) ([]LinearReport, error) {
	runtime.GC()
	var linears []LinearReport
	for _, in := range inputs {
		at := p.input(in, s)
		for _, l := range in.Linears {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			done, err := p.linear(ctx, l, at, p.target(b))
			if err != nil {
				return nil, fmt.Errorf("tensor %s.weight: %w", l.Name, err)
			}
			linears = append(linears, done)
		}
		at.close()
	}
	p.memory = buffer{}
	p.gauge.release()
	runtime.GC()
	return linears, nil
}

// input returns in as the steps will read it.
func (p *pruner) input(in *model.Input, s seen) *input {
	at := &input{Input: s[in], of: in, warn: p.warn, steps: p.steps}
	if tooFewTokens(in.Linears[0], at.Input) {
		at.steps = p.withoutData
	}
	at.left, at.shared = make([]int, len(at.steps)), make([]any, len(at.steps))
	for _, l := range in.Linears {
		if p.plan.skip[l.Name] {
			continue
		}
		for i, s := range at.steps {
			if s.on(l.Attention) {
				at.left[i] += len(matrices(p.plan.resolved, l.Parts, l.Rows))
			}
		}
	}
	return at
}

// linear prunes l, whose input is in.
func (p *pruner) linear(ctx context.Context, l *model.Linear, in *input, t pattern.Target) (LinearReport, error) {
	out := LinearReport{Name: l.Name, Rows: l.Rows, Cols: l.Cols, Skipped: p.plan.skip[l.Name]}
	w, err := l.Read()
	if err != nil {
		return out, err
	}
	defer l.Unload()
	var jobs []*job
	if !out.Skipped {
		if tooFewTokens(l, in.Input) {
			p.warnOfFewTokens(l, in)
		}
		p.gauge.begin(l, in.of)
		for i, part := range matrices(p.plan.resolved, l.Parts, l.Rows) {
			j := &job{linear: l, part: part, at: i, w: part.Take(w), input: in, target: t, report: &out, memory: &p.memory, engine: p.m.Engine(), selected: &p.selected}
			err := p.matrix(ctx, j)
			if err == nil {
				part.Return(w, j.w)
			}
			j.release()
			if err != nil {
				return out, inPart(part, err)
			}
			jobs = append(jobs, j)
		}
		if err := write(l, w, jobs); err != nil {
			return out, err
		}
		p.gauge.end(l, in.of)
	}
	out.Zeros = w.Zeros()
	out.Sparsity = float64(out.Zeros) / float64(l.Rows*l.Cols)
	if p.plan.resolved.Rebuild != nil { // its weight changes once more
		p.pending = append(p.pending, func() error {
			w, err := l.Read()
			if err != nil {
				return err
			}
			return p.sink.linear(l, w, jobs)
		})
		return out, nil
	}
	return out, p.sink.linear(l, w, jobs)
}

// write makes w, of which jobs are the matrices, the weight that products read.
func write(l *model.Linear, w *tensor.Weight, jobs []*job) error {
	var parts []model.Part
	var masks []*mask.Mask
	for _, j := range jobs {
		if !j.masked {
			return l.Write(w)
		}
		parts, masks = append(parts, j.part), append(masks, j.kept)
	}
	return l.WritePruned(w, parts, masks)
}

// matrix takes a matrix through the steps.
func (p *pruner) matrix(ctx context.Context, j *job) error {
	last := len(j.input.steps) - 1 // works on every Linear
	for i, s := range j.input.steps {
		if !s.on(j.linear.Attention) {
			continue
		}
		if i == last {
			p.gauge.before(j)
		}
		if s.name != "" {
			p.bar.Phase(s.name + " of " + j.linear.Name)
		}
		err := p.timed(s, func() (err error) {
			if j.shared, err = j.input.shareOf(i); err != nil {
				return err
			}
			return s.run(ctx, j)
		})
		if err != nil {
			return err
		}
		j.shared = nil
		j.input.done(i)
		p.gauge.selected(j)
	}
	p.gauge.after(j)
	return j.store()
}

// timed counts what f takes as the time of s.
func (p *pruner) timed(s step, f func() error) error {
	defer timed(s.seconds(p.seconds))()
	return f()
}

// inPart says which part of a Linear err is about, if it is split.
func inPart(p model.Part, err error) error {
	if p.Name != "" {
		return fmt.Errorf("part %s: %w", p.Name, err)
	}
	return err
}

// warnOfFewTokens names an expert that is pruned by magnitude, once.
func (p *pruner) warnOfFewTokens(l *model.Linear, in *input) {
	expert := l.Name[:strings.LastIndexByte(l.Name, '.')]
	if p.warned != expert {
		p.warn("%s saw %d tokens, fewer than %d: pruned by magnitude", expert, in.Tokens, MinTokens)
	}
	p.warned = expert
}
