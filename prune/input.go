package prune

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/stats"
)

// seen is the statistic of each input of a block; nil where nothing reads it.
type seen map[*model.Input]*stats.Input

// gatherers gather what the inputs of a block see.
type gatherers map[*model.Input]engine.Stats

// gather returns those of what needs says of each of some inputs.
func gather(e engine.Engine, inputs []*model.Input, needs func(in *model.Input) stats.Needs) gatherers {
	g := gatherers{}
	for _, in := range inputs {
		g[in] = e.NewStats(in.Linears[0].Cols, needs(in))
	}
	return g
}

// norms are the needs of what reads no more of an input.
func norms(*model.Input) stats.Needs { return stats.Needs{} }

func (g gatherers) tap(in *model.Input, x engine.Mat) { g[in].Add(x) }

// seen returns what has been gathered of so many sequences.
func (g gatherers) seen(inputs []*model.Input, sequences int) (seen, error) {
	all := seen{}
	for _, in := range inputs {
		s := g[in].Input(sequences)
		if err := s.Check(); err != nil {
			return nil, fmt.Errorf("input of %s: %w", in.Name, err)
		}
		all[in] = s
	}
	return all, nil
}

// list returns what block's inputs saw in their order, which another load of the
// block shares.
func (s seen) list(block *model.Block) []*stats.Input {
	var list []*stats.Input
	for _, in := range block.Inputs() {
		list = append(list, s[in])
	}
	return list
}

// seenOf is seen.list's inverse.
func seenOf(block *model.Block, list []*stats.Input) seen {
	all := seen{}
	for i, in := range block.Inputs() {
		all[in] = list[i]
	}
	return all
}

// input is the statistic of an input while its Linears are pruned. It owns the Gram
// matrix, the largest thing beside the block, and what steps made of it: each is
// released as soon as no matrix reads it any more, since the next takes as much.
type input struct {
	*stats.Input // nil: nothing was gathered
	of           *model.Input
	warn         func(format string, args ...any)

	steps  []step
	left   []int // by step: matrices that it will work on
	shared []any // by step: what these share; nil before the first and after the last
}

// shareOf returns what the matrices of in share at step i.
func (in *input) shareOf(i int) (any, error) {
	if in.steps[i].share == nil {
		return nil, nil
	}
	if in.shared[i] == nil {
		made, err := in.steps[i].share(in)
		if err != nil {
			return nil, err
		}
		in.shared[i] = made
		in.release()
	}
	return in.shared[i], nil
}

// done says that step i has worked on a matrix.
func (in *input) done(i int) {
	if in.left[i]--; in.left[i] == 0 {
		in.shared[i] = nil
	}
	in.release()
}

// release gives up the Gram matrix unless a step still has to read it.
func (in *input) release() {
	if in.Input == nil {
		return
	}
	for i, s := range in.steps {
		if s.needs.Gram && in.left[i] > 0 && in.shared[i] == nil {
			return
		}
	}
	in.Gram = nil
}

// close gives up everything.
func (in *input) close() {
	clear(in.left)
	clear(in.shared)
	in.release()
}
