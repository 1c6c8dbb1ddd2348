package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/progress"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/windows"
)

// Masks are a pruned model that was not written: by Linear, the masks of its
// parts, row after row. A Linear that is left dense has none. They take a bit
// a weight.
type Masks map[string][]*mask.Mask

// applyTo prunes w, the weight of l, which has masks unless it is left dense.
func (m Masks) applyTo(l *model.Linear, w *tensor.Weight) {
	for _, s := range m.selected(l) {
		part := s.part.Take(w)
		s.kept.Apply(part)
		s.part.Return(w, part)
	}
}

// apply prunes w, the weight of l, which has to have masks.
func (m Masks) apply(l *model.Linear, w *tensor.Weight) error {
	if len(m[l.Name]) == 0 {
		return errors.New("the masks to write have none for it")
	}
	m.applyTo(l, w)
	return nil
}

// selected returns what m selects of l, part by part.
func (m Masks) selected(l *model.Linear) []selected {
	masks := m[l.Name]
	if len(masks) == 1 {
		return []selected{{part: model.Part{Hi: l.Rows}, kept: masks[0]}}
	}
	var parts []selected
	for i, k := range masks {
		parts = append(parts, selected{part: l.Parts[i], kept: k})
	}
	return parts
}

// InMemory prunes one model by several recipes without writing it, to the very
// weights that Run writes. What enters the first block does not depend on the
// recipe and is gathered once.
type InMemory struct {
	SpillDir string // folder for hidden states; empty keeps them in memory
	Progress progress.Func
	Warn     func(format string, args ...any) // may be nil

	m     *model.Model
	text  *windows.Set
	first []*stats.Input // of the first block's inputs; nil before the first Prune

	measured map[string][]allocate.Block // by what they were measured with
}

// NewInMemory returns a pruner of m, calibrated on text. All experts of a block
// must fit in memory: m.ExpertBytes() is 0.
func NewInMemory(m *model.Model, text *windows.Set) *InMemory {
	if m.ExpertBytes() != 0 {
		panic(fmt.Sprintf("prune: NewInMemory: ExpertBytes is %d, want 0", m.ExpertBytes()))
	}
	return &InMemory{m: m, text: text}
}

// Prune prunes by rec and calls each with every block once it is pruned; the
// block is each's until it returns. name is that of the step.
func (p *InMemory) Prune(ctx context.Context, name string, rec recipe.Recipe, each func(block *model.Block) error) (Masks, error) {
	return p.prune(ctx, name, rec, p.text.Tokens, p.observe, each)
}

// observer returns what the inputs of block b, which is dense, see of r's
// sequences.
type observer func(ctx context.Context, r *runner, b int, block *model.Block) (map[*model.Input]*stats.Input, error)

// prune is Prune on sequences, by what observe makes of them.
func (p *InMemory) prune(ctx context.Context, name string, rec recipe.Recipe, sequences [][]int32, observe observer, each func(block *model.Block) error) (Masks, error) {
	resolved, err := rec.Resolve()
	if err != nil {
		return nil, err
	}
	if resolved.Update != nil {
		return nil, fmt.Errorf("update %s: makes new weights, which masks alone cannot hold", resolved.Update.Name)
	}
	plan := &Plan{resolved: resolved, engine: p.m.Engine(), skip: map[string]bool{}}
	if err := plan.addLinears(p.m, resolved); err != nil {
		return nil, err
	}
	r := &runner{
		opt:  Options{Recipe: rec, Calibration: p.text, Progress: p.Progress, Warn: p.Warn},
		plan: plan, m: p.m, report: &Report{}, masks: Masks{}, spill: p.SpillDir,
	}
	if err := p.allocate(ctx, r); err != nil {
		return nil, err
	}
	if r.store, err = hidden.New(p.m.Engine(), len(sequences), p.text.SeqLen, p.m.Width(), p.SpillDir); err != nil {
		return nil, err
	}
	defer r.store.Close()
	if err := r.store.Embed(p.m, sequences); err != nil {
		return nil, fmt.Errorf("calibration: %w", err)
	}
	const passes = 2
	r.bar = p.Progress.Start(name, int64(passes*r.store.Len()*p.m.Blocks()), "sequences")
	for b := range p.m.Blocks() {
		if err := p.block(ctx, r, b, observe, each); err != nil {
			return nil, fmt.Errorf("block %d: %w", b, err)
		}
	}
	return r.masks, nil
}

// block takes block b from dense to pruned, and the hidden states past it.
func (p *InMemory) block(ctx context.Context, r *runner, b int, observe observer, each func(*model.Block) error) error {
	r.target = r.targetOf(b)
	block, err := r.load(p.m, b)
	if err != nil {
		return err
	}
	defer block.Release()
	seen, err := observe(ctx, r, b, block)
	if err != nil {
		return err
	}
	if _, err := r.pruneLinears(ctx, block, seen); err != nil {
		return err
	}
	if b < p.m.Blocks()-1 {
		if err := r.propagate(ctx, block); err != nil {
			return err
		}
	} else {
		r.bar.Add(int64(r.store.Len()))
	}
	return each(block)
}

// allocate finds r's shares. Blocks are measured once for all recipes that
// measure alike.
func (p *InMemory) allocate(ctx context.Context, r *runner) error {
	a := r.plan.resolved.Allocate
	if a == nil {
		return nil
	}
	key := fmt.Sprintf("%s %v %s", a.Name, r.plan.resolved.Params.Only(a.Params), r.opt.Recipe.Skip)
	r.allocated = slices.Clone(p.measured[key])
	if err := r.allocate(ctx); err != nil {
		return err
	}
	if p.measured == nil {
		p.measured = map[string][]allocate.Block{}
	}
	p.measured[key] = slices.Clone(r.allocated)
	return nil
}

// observe is the observer of Prune.
func (p *InMemory) observe(ctx context.Context, r *runner, b int, block *model.Block) (map[*model.Input]*stats.Input, error) {
	if b == 0 && p.hasFirst(r.plan, block) {
		seen := map[*model.Input]*stats.Input{}
		for i, in := range block.Inputs() {
			seen[in] = p.first[i]
		}
		r.bar.Add(int64(r.store.Len()))
		return seen, nil
	}
	seen, err := r.observe(ctx, block)
	if err == nil && b == 0 {
		p.first = inOrder(block, seen)
	}
	return seen, err
}

// hasFirst reports whether first has all that plan asks for.
func (p *InMemory) hasFirst(plan *Plan, block *model.Block) bool {
	if p.first == nil {
		return false
	}
	for i, in := range block.Inputs() {
		needs := plan.observes(in)
		if needs.Gram && p.first[i].Gram == nil || needs.Moments && p.first[i].ColVar == nil {
			return false
		}
	}
	return true
}
