package pho

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
)

// Fit holds a search of m to a budget in bytes, 0 for what the system has to give, and to
// the engine's own memory: a whole block is in memory, while hidden states go to a file in
// dir where they would not fit. The next block is read ahead, and the head kept, if there is
// room for them too. An error is a prune.ErrMemory.
func (o *Options) Fit(m *model.Model, budget int64, dir string) error {
	m = m.Plain()
	own, separate := m.OwnLeft(max(o.Calibration.SeqLen, o.Verify.SeqLen))
	if separate && own < 0 {
		return fmt.Errorf("device %w: want %d MiB more for a whole block and its activations", prune.ErrMemory, -own>>20+1)
	}
	if budget == 0 {
		budget = sysinfo.Budget()
	}
	host := int64(math.MaxInt64) // nobody knows
	if budget > 0 {
		const program = 128 << 20 // with scores and a sequence's activations
		others := program + prune.NormsBytes(m)
		experts, block := m.FitBlocks(budget)
		if host = budget - block - others; experts > 0 || host < 0 {
			return fmt.Errorf("%w: %d MiB, want at least %d MiB: a search holds a whole block (%d MiB) and %d MiB for the rest",
				prune.ErrMemory, budget>>20, (block+others)>>20+1, block>>20, others>>20)
		}
	}
	states := hidden.Bytes(len(o.Calibration.Tokens), o.Calibration.SeqLen, m.Width()) +
		hidden.Bytes(len(o.Verify.Tokens), o.Verify.SeqLen, m.Width())
	o.States = engine.PlaceFor(m.Engine(), states, own, host, dir)
	switch o.States {
	case engine.Place{Host: true}:
		host -= states
	case engine.Place{}:
		if own -= states; !separate {
			host -= states
		}
	}
	_, block := m.FitBlocks(math.MaxInt64)
	if host = max(host, 0); separate {
		host = min(host, own)
	}
	if o.Ahead = block <= host; o.Ahead {
		host -= block
	}
	o.KeepHead = m.HeadBytes() <= host
	return nil
}
