package pho

import (
	"fmt"

	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
)

// Fit holds a search of m to a budget in bytes, 0 for what the system has to give:
// a whole block is in memory, while hidden states go to a file in dir where they
// would not fit. An error is a prune.ErrMemory.
func (o *Options) Fit(m *model.Model, budget int64, dir string) error {
	if budget == 0 {
		budget = sysinfo.Budget()
	}
	if budget == 0 {
		return nil // nobody knows
	}
	const program = 128 << 20 // with scores and a sequence's activations
	others := program + prune.DenseBytes(m)
	experts, block := m.Plain().FitBlocks(budget)
	if experts > 0 || block+others > budget {
		return fmt.Errorf("%w: %d MiB, want at least %d MiB: a search holds a whole block (%d MiB) and %d MiB for the rest",
			prune.ErrMemory, budget>>20, (block+others)>>20+1, block>>20, others>>20)
	}
	states := hidden.Bytes(len(o.Calibration.Tokens), o.Calibration.SeqLen, m.Width()) +
		hidden.Bytes(len(o.Verify.Tokens), o.Verify.SeqLen, m.Width())
	if block+others+states > budget {
		o.SpillDir = dir
	}
	return nil
}
