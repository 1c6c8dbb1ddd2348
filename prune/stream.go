package prune

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/stats"
)

// stream takes the calibration sequences through the blocks of a model, one block
// after the other: each is the only loop over blocks. Where no step needs data there
// are no sequences, and the blocks are visited alone.
type stream struct {
	m       *model.Model
	seconds *Seconds
	store   *hidden.Store // of what enters the next block; nil: there are no sequences
	bar     *progress.Bar // sequences, or blocks where there are none
	name    string        // of the work, in its progress
	phases  bool          // the progress says what is done with a block, in place of name

	// also, if not nil, is called with every input that is watched.
	also model.Tap

	// written is a folder with the tensors of m, pruned as far as the blocks are
	// done. Experts that are not in memory are read from there once they are pruned.
	written string
}

// open fills the store with what enters the first block.
func (s *stream) open(sequences [][]int32, seqLen int, at engine.Place) error {
	var err error
	if s.store, err = hidden.New(s.m.Engine(), len(sequences), seqLen, s.m.Width(), at); err != nil {
		return err
	}
	if err := s.store.Embed(s.m, sequences); err != nil {
		return fmt.Errorf("calibration: %w", err)
	}
	return nil
}

// close closes the store.
func (s *stream) close() {
	if s.store != nil {
		s.store.Close()
		s.store = nil
	}
}

// sequences returns how many there are.
func (s *stream) sequences() int {
	if s.store == nil {
		return 0
	}
	return s.store.Len()
}

// start begins the progress of so many passes of all sequences through so many
// blocks.
func (s *stream) start(f progress.Func, name string, passes, blocks int) {
	s.name = name
	if s.store == nil {
		s.bar = f.Start(name, int64(blocks), "blocks")
		return
	}
	s.bar = f.Start(name, int64(passes*s.sequences()*blocks), "sequences")
}

// phase begins a pass of all sequences through block b.
func (s *stream) phase(b int, what string) {
	block := fmt.Sprintf("block %d of %d", b+1, s.m.Blocks())
	label := s.name + ": " + block
	if s.phases {
		label = block + ": " + what
	}
	if s.store == nil {
		s.bar.Phase(label)
		return
	}
	s.bar.Part(label, int64(s.sequences()))
}

// each calls visit with the blocks from, …, to−1. The block is visit's until it
// returns.
func (s *stream) each(ctx context.Context, from, to int, visit func(ctx context.Context, b int, block *model.Block) error) error {
	blocks := s.m.Read(from, to)
	defer blocks.Close()
	for b := from; b < to; b++ {
		err := ctx.Err()
		if err == nil {
			err = s.one(ctx, b, blocks, visit)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", b, err)
		}
		if s.store == nil {
			s.bar.Add(1)
		}
	}
	return nil
}

func (s *stream) one(ctx context.Context, b int, blocks *model.Reader, visit func(ctx context.Context, b int, block *model.Block) error) error {
	block, err := s.load(blocks.Next)
	if err != nil {
		return err
	}
	defer block.Release()
	return visit(ctx, b, block)
}

// load counts the time of reading a block, as far as it is waited for.
func (s *stream) load(read func() (*model.Block, error)) (*model.Block, error) {
	defer timed(&s.seconds.Load)()
	return read()
}

// watch returns the statistics of the inputs of block b, which is still dense, over
// all sequences. Their hidden states stay those that enter b.
func (s *stream) watch(ctx context.Context, b int, block *model.Block, needs func(in *model.Input) stats.Needs) (seen, error) {
	s.phase(b, "calibrate")
	defer timed(&s.seconds.Calibrate)()
	return s.see(ctx, block, block.Inputs(), needs, true)
}

// see runs the sequences through part and returns what its inputs see; keep: they stay
// before it.
func (s *stream) see(ctx context.Context, part hidden.Runner, inputs []*model.Input, needs func(in *model.Input) stats.Needs, keep bool) (seen, error) {
	g := gather(s.m.Engine(), inputs, needs)
	if err := s.store.Run(ctx, part, s.m.NewState(), model.Mode{Tap: s.watched(g), Keep: keep}, s.step); err != nil {
		return nil, err
	}
	return g.seen(inputs, s.sequences())
}

// watched returns the Tap that gathers, and calls also.
func (s *stream) watched(g gatherers) model.Tap {
	if s.also == nil {
		return g.tap
	}
	return func(in *model.Input, x engine.Mat) {
		g.tap(in, x)
		s.also(in, x)
	}
}

// pass is watch for block b, which stays dense: it takes the sequences past it at
// once. Nothing reads what leaves the last block.
func (s *stream) pass(ctx context.Context, b int, block *model.Block) (seen, error) {
	return s.see(ctx, block, block.Inputs(), norms, s.last(b))
}

// part is a block or a branch of one.
type part interface {
	hidden.Runner
	ReadFrom(inv *checkpoint.Inventory) error
}

// propagate takes the sequences past a part of block b that is pruned: the block, or a
// branch. end says that the block ends with it: nothing reads what leaves the last.
func (s *stream) propagate(ctx context.Context, b int, part part, end bool) error {
	switch {
	case s.store == nil:
		return nil
	case s.last(b) && end:
		s.phase(b, "done")
		s.bar.Add(int64(s.sequences()))
		return nil
	}
	s.phase(b, "propagate")
	defer timed(&s.seconds.Calibrate)()
	if s.m.ExpertBytes() > 0 {
		written, err := checkpoint.Open(s.written)
		if err != nil {
			return err
		}
		defer written.Close()
		if err := part.ReadFrom(written); err != nil {
			return err
		}
	}
	return s.through(ctx, part)
}

// through takes the sequences past part.
func (s *stream) through(ctx context.Context, part hidden.Runner) error {
	return s.store.Run(ctx, part, s.m.NewState(), model.Mode{}, s.step)
}

func (s *stream) last(b int) bool { return b == s.m.Blocks()-1 }

func (s *stream) step() { s.bar.Add(1) }
