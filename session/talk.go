package session

import (
	"fmt"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/talk"
)

// Talk reads the model into memory and returns it as one that answers. Close its
// Runner before the Session. Without a bound on keys and values they take what
// the memory budget leaves, of the memory that the engine computes in, and at most what
// opt.Texts of the model's longest take.
func (s *Session) Talk(opt batch.Options) (*talk.Model, error) {
	need := batch.Bytes(s.Model, opt)
	fits := func(what string, budget int64) error {
		if least := need + s.Model.CacheBytes(1); budget > 0 && least > budget {
			return fmt.Errorf("%s: %s%w: %d MiB, want at least %d MiB, since all weights stay in memory", s.Name, what, prune.ErrMemory, budget>>20, least>>20+1)
		}
		return nil
	}
	room := s.budget()
	if err := fits("", room); err != nil {
		return nil, err
	}
	if own, separate := engine.OwnMemory(s.Model.Engine()); separate {
		if err := fits("device ", own); err != nil {
			return nil, err
		}
		room = own
	}
	if room > 0 && opt.CacheBytes == 0 {
		opt.CacheBytes = min(room-need, int64(max(1, opt.Texts))*s.Model.CacheBytes(s.Model.Config.MaxPositions))
	}
	c := s.Model.Config
	m, err := talk.Load(s.Name, c.Vocab, c.MaxPositions, s.Inventory.ReadFile, s.Dir, s.Inventory.Config())
	if err != nil {
		return nil, err
	}
	if m.Runner, err = batch.New(s.Model, opt, s.opt.Progress); err != nil {
		return nil, err
	}
	return m, nil
}
