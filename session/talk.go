package session

import (
	"fmt"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/talk"
)

// Talk reads the model into memory and returns it as one that answers. Close its
// Runner before the Session. Without a bound on keys and values they take what
// the memory budget leaves, and at most what opt.Texts of the model's longest take.
func (s *Session) Talk(opt batch.Options) (*talk.Model, error) {
	budget := s.budget()
	if need, least := batch.Bytes(s.Model, opt), s.Model.CacheBytes(1); budget > 0 && need+least > budget {
		return nil, fmt.Errorf("%s: %w: %d MiB, want at least %d MiB, since all weights stay in memory", s.Name, prune.ErrMemory, budget>>20, (need+least)>>20+1)
	} else if budget > 0 && opt.CacheBytes == 0 {
		opt.CacheBytes = min(budget-need, int64(max(1, opt.Texts))*s.Model.CacheBytes(s.Model.Config.MaxPositions))
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
