package hidden

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tensor"
)

// Embed fills s with the embeddings of the sequences.
func (s *Store) Embed(m *model.Model, sequences [][]int32) error {
	for i, ids := range sequences {
		x, err := s.Get(i)
		if err != nil {
			return err
		}
		if err := m.Embed(x, ids); err != nil {
			return fmt.Errorf("sequence %d: %w", i, err)
		}
		if err := s.Put(i, x); err != nil {
			return err
		}
	}
	return nil
}

// Forward runs every sequence through block, calling step after each.
func (s *Store) Forward(ctx context.Context, block model.Block, st *model.State, step func()) error {
	return s.through(ctx, func(x tensor.Matrix) error { return block.Forward(st, x) }, step)
}

// Pass is Forward that calls tap with the input of every Linear.
func (s *Store) Pass(ctx context.Context, block model.Block, st *model.State, tap model.Tap, step func()) error {
	return s.through(ctx, func(x tensor.Matrix) error { return block.Pass(st, x, tap) }, step)
}

func (s *Store) through(ctx context.Context, f func(x tensor.Matrix) error, step func()) error {
	for i := range s.n {
		if err := ctx.Err(); err != nil {
			return err
		}
		x, err := s.Get(i)
		if err != nil {
			return err
		}
		if err := f(x); err != nil {
			return err
		}
		if err := s.Put(i, x); err != nil {
			return err
		}
		step()
	}
	return nil
}
