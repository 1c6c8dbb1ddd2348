package hidden

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
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

// Runner is a block or a branch of one.
type Runner interface {
	Run(st *model.State, x engine.Mat, mode model.Mode) error
}

// Run runs every sequence through block, calling step after each. With
// model.Mode.Keep the sequences stay as they are.
func (s *Store) Run(ctx context.Context, block Runner, st *model.State, mode model.Mode, step func()) error {
	for i := range s.n {
		if err := ctx.Err(); err != nil {
			return err
		}
		x, err := s.Get(i)
		if err != nil {
			return err
		}
		if err := block.Run(st, x, mode); err != nil {
			return err
		}
		if !mode.Keep {
			if err := s.Put(i, x); err != nil {
				return err
			}
		}
		step()
	}
	return nil
}
