package prune

import (
	"context"
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/windows"
)

// InMemory prunes one model by several recipes without writing it, to the very
// weights that Run writes. What enters the first block does not depend on the
// recipe and is gathered once.
type InMemory struct {
	States   engine.Place // of the hidden states between blocks
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
	return &InMemory{m: m.Plain(), text: text, measured: map[string][]allocate.Block{}}
}

// Prune prunes by rec and calls each with every block once it is pruned; the block
// is valid until each returns. name labels the progress.
func (m *InMemory) Prune(ctx context.Context, name string, rec recipe.Recipe, each func(block *model.Block) error) (Masks, error) {
	return m.prune(ctx, name, rec, m.text.Tokens, m.observe, each)
}

// observer returns the statistics of the inputs of block b, which is still dense,
// over the sequences that p prunes by.
type observer func(ctx context.Context, p *pruner, b int, block *model.Block) (seen, error)

// prune is Prune on sequences, by what observe makes of them.
func (m *InMemory) prune(ctx context.Context, name string, rec recipe.Recipe, sequences [][]int32, observe observer, each func(block *model.Block) error) (Masks, error) {
	resolved, err := rec.Resolve()
	if err != nil {
		return nil, err
	}
	if resolved.Rotate != nil {
		return nil, fmt.Errorf("rotation %s: makes new weights, which masks alone cannot hold", resolved.Rotate.Name)
	}
	if resolved.Update != nil {
		return nil, fmt.Errorf("update %s: makes new weights, which masks alone cannot hold", resolved.Update.Name)
	}
	if resolved.Rebuild != nil {
		return nil, fmt.Errorf("rebuilding %s: makes new weights, which masks alone cannot hold", resolved.Rebuild.Name)
	}
	if resolved.Fit.InOrder() {
		return nil, fmt.Errorf("refinement %s: fit_to %s and fit_tokens %s, want %s and %s: masks alone cannot hold more",
			resolved.Refine.Name, resolved.Params["fit_to"], resolved.Params["fit_tokens"], fit.Own, fit.Equal)
	}
	plan, err := planLinears(m.m, resolved)
	if err != nil {
		return nil, err
	}
	shares, err := m.allocate(ctx, plan)
	if err != nil {
		return nil, err
	}
	s := m.stream()
	if len(sequences) > 0 {
		if err := s.open(sequences, m.text.SeqLen, m.States); err != nil {
			return nil, err
		}
		defer s.close()
	}
	const passes = 2 // dense and pruned
	s.start(m.Progress, name, passes, m.m.Blocks())
	masks := Masks{}
	p := &pruner{
		stream: s, plan: plan, warn: m.warn, sink: &maskSink{masks, each}, steps: plan.steps, withoutData: withoutData(resolved),
		target: func(b int) pattern.Target { return shares.target(resolved.Target, b) },
	}
	p.observe = func(ctx context.Context, b int, block *model.Block) (seen, error) { return observe(ctx, p, b, block) }
	return masks, s.each(ctx, 0, m.m.Blocks(), p.visit)
}

func (m *InMemory) stream() *stream { return &stream{m: m.m, seconds: new(Seconds)} }

func (m *InMemory) warn(format string, args ...any) {
	if m.Warn != nil {
		m.Warn(format, args...)
	}
}

// allocate returns the blocks' shares. Blocks are measured once for all recipes
// that measure alike.
func (m *InMemory) allocate(ctx context.Context, plan *Plan) (shares, error) {
	a := plan.resolved.Allocate
	switch {
	case a == nil:
		return shares{}, nil
	case !a.Reads():
		return plan.sharesOf(plan.blocks(m.m), m.warn)
	}
	key := fmt.Sprintf("%s %v %v", a.Name, plan.resolved.Params.Only(a.Params), plan.resolved.Skip)
	if m.measured[key] == nil {
		blocks, err := m.measure(ctx, plan)
		if err != nil {
			return shares{}, err
		}
		m.measured[key] = blocks
	}
	return plan.sharesOf(slices.Clone(m.measured[key]), m.warn)
}

// measure measures the dense blocks.
func (m *InMemory) measure(ctx context.Context, plan *Plan) ([]allocate.Block, error) {
	s := m.stream()
	if plan.resolved.Allocate.NeedsData() {
		if err := s.open(m.text.Tokens, m.text.SeqLen, m.States); err != nil {
			return nil, err
		}
		defer s.close()
	}
	s.start(m.Progress, "allocate", 1, m.m.Blocks())
	by := &measurer{stream: s, plan: plan, blocks: plan.blocks(m.m), done: func(int) error { return nil }}
	return by.blocks, s.each(ctx, 0, m.m.Blocks(), by.visit)
}

// observe is the observer of Prune.
func (m *InMemory) observe(ctx context.Context, p *pruner, b int, block *model.Block) (seen, error) {
	if b == 0 && m.hasFirst(p.plan, block) {
		p.phase(b, "calibrate")
		p.bar.Add(int64(p.sequences()))
		return seenOf(block, m.first), nil
	}
	s, err := p.watch(ctx, b, block, p.plan.needs)
	if err == nil && b == 0 {
		m.first = s.list(block)
	}
	return s, err
}

// hasFirst reports whether first has all that plan asks for.
func (m *InMemory) hasFirst(plan *Plan, block *model.Block) bool {
	if m.first == nil {
		return false
	}
	for i, in := range block.Inputs() {
		needs := plan.needs(in)
		if needs.Gram && m.first[i].Gram == nil || needs.Moments && m.first[i].ColVar == nil {
			return false
		}
	}
	return true
}
