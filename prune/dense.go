package prune

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
)

// Dense holds the norms of the inputs of every block of the dense model, by which
// recipes are tried without calibrating for each.
type Dense struct {
	m   *InMemory
	all [][]*stats.Input // by block and input
}

// Dense takes the calibration sequences through the dense model once.
func (m *InMemory) Dense(ctx context.Context) (*Dense, error) {
	d := &Dense{m: m, all: make([][]*stats.Input, m.m.Blocks())}
	s := m.stream()
	if err := s.open(m.text.Tokens, m.text.SeqLen, m.States); err != nil {
		return nil, err
	}
	defer s.close()
	s.start(m.Progress, "calibrate", 1, m.m.Blocks())
	return d, s.each(ctx, 0, m.m.Blocks(), func(ctx context.Context, b int, block *model.Block) error {
		s.phase(b, "calibrate")
		seen, err := s.pass(ctx, b, block)
		if err != nil {
			return err
		}
		d.all[b] = seen.list(block)
		return nil
	})
}

// DenseBytes returns what a Dense of m holds.
func DenseBytes(m *model.Model) int64 {
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

// Prune prunes by rec as if no block before had been pruned: by the norms of the dense
// model's inputs. It runs no sequence. each is as for InMemory.Prune.
func (d *Dense) Prune(ctx context.Context, name string, rec recipe.Recipe, each func(block *model.Block) error) (Masks, error) {
	return d.m.prune(ctx, name, rec, nil, d.observe, each)
}

// observe is the observer of Prune.
func (d *Dense) observe(_ context.Context, p *pruner, b int, block *model.Block) (seen, error) {
	if err := normsOnly(p.plan, block); err != nil {
		return nil, err
	}
	return seenOf(block, d.all[b]), nil
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
