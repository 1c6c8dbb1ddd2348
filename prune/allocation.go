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

func stepMeasure(b int) string { return fmt.Sprintf("measure block %d", b) }

// targetOf returns what is to be pruned of block b.
func (r *runner) targetOf(b int) pattern.Target {
	t := r.plan.resolved.Target
	if r.allocated != nil && !r.alike {
		t.Sparsity, t.Level = r.allocated[b].Share, true
	}
	return t
}

// allocate fills in r.allocated, by a pass through the dense blocks unless the
// recipe treats them alike or they have been measured already.
func (r *runner) allocate(ctx context.Context) error {
	a := r.plan.resolved.Allocate
	if a == nil {
		return nil
	}
	if r.allocated == nil {
		if err := r.measureBlocks(ctx, a); err != nil {
			return err
		}
	}
	var err error
	r.alike, err = a.Allocate(r.allocated, r.plan.resolved.Target.Sparsity, r.plan.resolved.Params)
	if err != nil {
		return fmt.Errorf("allocate: %w", err)
	}
	if r.alike {
		r.opt.warn("allocation %s finds no difference between blocks: every block is pruned alike", a.Name)
	}
	return nil
}

// measureBlocks measures every block, but those that the journal calls done.
func (r *runner) measureBlocks(ctx context.Context, a *allocate.Method) error {
	defer timed(&r.report.Seconds.Allocate)()
	blocks := make([]allocate.Block, r.m.Blocks())
	done := 0
	for b := range blocks {
		for _, l := range r.m.Linears(b) {
			if !r.plan.skip[l.Name] {
				blocks[b].Weights += l.Rows * l.Cols
			}
		}
		if done == b && r.w != nil && r.w.Done(stepMeasure(b)) {
			if err := r.w.Info(stepMeasure(b), &blocks[b].Measure); err != nil {
				return err
			}
			done++
		}
	}
	total, unit := len(blocks)-done, "blocks"
	if a.NeedsData() && done < len(blocks) {
		if err := r.enter(ctx, done, enteringDense); err != nil {
			return err
		}
		defer func() {
			r.store.Close()
			r.store = nil
		}()
		total, unit = total*r.store.Len(), "sequences"
	}
	if done < len(blocks) {
		r.bar = r.opt.Progress.Start("allocate", int64(total), unit)
	}
	for b := done; b < len(blocks); b++ {
		if err := r.measureBlock(ctx, a, b, &blocks[b]); err != nil {
			return fmt.Errorf("block %d: %w", b, err)
		}
	}
	r.allocated = blocks
	return nil
}

// measureBlock measures block b and takes the hidden states past it.
func (r *runner) measureBlock(ctx context.Context, a *allocate.Method, b int, to *allocate.Block) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.bar.Phase(fmt.Sprintf("block %d of %d: measure", b+1, r.m.Blocks()))
	block, err := r.load(r.m, b)
	if err != nil {
		return err
	}
	defer block.Release()
	var seen map[*model.Input]*stats.Input
	if a.NeedsData() {
		if seen, err = r.pass(ctx, block, b == r.m.Blocks()-1); err != nil {
			return err
		}
	}
	if to.Weights > 0 {
		if to.Measure, err = r.measureOf(ctx, a, block, seen); err != nil {
			return err
		}
		if math.IsNaN(to.Measure) {
			return fmt.Errorf("allocation %s finds nothing in it to measure", a.Name)
		}
	}
	r.scores = nil
	if !a.NeedsData() {
		r.bar.Add(1)
	}
	if r.w == nil {
		return nil
	}
	if a.NeedsData() && b < r.m.Blocks()-1 {
		if err := r.save(b + 1); err != nil {
			return err
		}
	}
	return r.w.Mark(stepMeasure(b), to.Measure)
}

// pass runs every sequence through the dense block and returns what each input
// saw. Nothing reads what leaves the last block.
func (r *runner) pass(ctx context.Context, block *model.Block, last bool) (map[*model.Input]*stats.Input, error) {
	acc := accumulators(r.m.Engine(), block, norms)
	if last {
		return r.gather(ctx, block, acc, 0, r.store.Len())
	}
	if err := r.store.Run(ctx, block, r.m.NewState(), model.Mode{Tap: acc.tap}, func() { r.bar.Add(1) }); err != nil {
		return nil, err
	}
	return acc.inputs(block, r.store.Len())
}

// measureOf returns a's measure of the dense block. Linears that the recipe
// leaves dense have no part in it, nor do experts that saw too few tokens for a
// score.
func (r *runner) measureOf(ctx context.Context, a *allocate.Method, block *model.Block, seen map[*model.Input]*stats.Input) (float64, error) {
	each := func(f func(l *model.Linear, w *tensor.Weight, s *stats.Input) error) error {
		for _, in := range block.Inputs() {
			for _, l := range in.Linears {
				if r.plan.skip[l.Name] {
					continue
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				w, err := l.Read()
				if err == nil {
					err = f(l, w, seen[in])
				}
				l.Unload()
				if err != nil {
					return fmt.Errorf("tensor %s.weight: %w", l.Name, err)
				}
			}
		}
		return nil
	}
	if a.FromWeight != nil {
		sum, n := 0.0, 0
		err := each(func(_ *model.Linear, w *tensor.Weight, _ *stats.Input) error {
			v, err := a.FromWeight(w)
			if err == nil && !math.IsNaN(v) {
				sum, n = sum+v, n+1
			}
			return err
		})
		return sum / float64(n), err
	}
	scores := func(f func(s []float32)) error {
		return each(func(l *model.Linear, w *tensor.Weight, s *stats.Input) error {
			if l.Expert && s.Tokens < MinTokens {
				return nil
			}
			buf := r.buffer(l.Rows * l.Cols)
			if err := score.Wanda.Score(buf, w, s, nil); err != nil {
				return err
			}
			f(buf)
			return nil
		})
	}
	return a.FromScores(scores, r.plan.resolved.Params)
}

// buffer returns memory for n scores.
func (r *runner) buffer(n int) []float32 {
	if cap(r.scores) < n {
		r.scores = make([]float32, n)
	}
	return r.scores[:n]
}
