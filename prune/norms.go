package prune

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
)

// Norms holds the norms of the inputs of every block, as one recipe leaves them, by which
// others are tried without calibrating for each.
type Norms struct {
	m   *InMemory
	all [][]*stats.Input // by block and input
}

// Norms prunes by rec, and keeps the norms that each block was pruned by.
func (m *InMemory) Norms(ctx context.Context, name string, rec recipe.Recipe) (*Norms, error) {
	n := &Norms{m: m, all: make([][]*stats.Input, m.m.Blocks())}
	keep := func(ctx context.Context, p *pruner, b int, block *model.Block) (seen, error) {
		if err := normsOnly(p.plan, block); err != nil {
			return nil, err
		}
		s, err := m.observe(ctx, p, b, block)
		if err == nil {
			n.all[b] = s.list(block)
		}
		return s, err
	}
	_, err := m.prune(ctx, name, rec, m.text.Tokens, keep, func(*model.Block) error { return nil })
	return n, err
}

// NormsBytes returns what the Norms of m hold.
func NormsBytes(m *model.Model) int64 {
	const size = 8 // float64
	n := int64(0)
	for b := range m.Blocks() {
		linears := m.Linears(b)
		for i, l := range linears {
			if i == 0 || linears[i-1].Input != l.Input {
				n += size * int64(l.Cols)
			}
		}
	}
	return n
}

// Prune prunes by rec as if the blocks before had been pruned by the recipe of n. It runs
// no sequence. each is as for InMemory.Prune.
func (n *Norms) Prune(ctx context.Context, name string, rec recipe.Recipe, each func(block *model.Block) error) (Masks, error) {
	return n.m.prune(ctx, name, rec, nil, n.observe, each)
}

// observe is the observer of Prune.
func (n *Norms) observe(_ context.Context, p *pruner, b int, block *model.Block) (seen, error) {
	if err := normsOnly(p.plan, block); err != nil {
		return nil, err
	}
	return seenOf(block, n.all[b]), nil
}

// normsOnly refuses a recipe that reads more of block's inputs.
func normsOnly(p *Plan, block *model.Block) error {
	for _, in := range block.Inputs() {
		if p.needs(in) != (stats.Needs{}) {
			return fmt.Errorf("input of %s: the recipe reads more of it than norms: nothing can be screened by that", in.Name)
		}
	}
	return nil
}
