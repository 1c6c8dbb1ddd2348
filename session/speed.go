package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/internal/sysinfo"
)

// Speed is how fast a model runs on this machine, and what it takes.
type Speed struct {
	Stored  int64   `json:"stored_bytes"` // of all tensors, in files
	Memory  int64   `json:"memory_bytes"` // of blocks and head, in memory
	Prompt  int     `json:"prompt_tokens"`
	New     int     `json:"new_tokens"`
	Prefill float64 `json:"prefill"` // tokens a second: the prompt, until the first new token
	Decode  float64 `json:"decode"`  // tokens a second: those after the first
}

// Race measures models beside each other: each continues the prompt by so many tokens,
// one model after the other, runs times, and the fastest run of each counts. All are in
// memory at once.
func Race(ctx context.Context, models []*Session, prompt []int32, tokens, runs int) ([]Speed, error) {
	if len(prompt) == 0 || tokens < 2 || runs < 1 {
		return nil, errors.New("a race needs a prompt, at least two tokens and a run")
	}
	speeds, gens := make([]Speed, len(models)), make([]*generate.Generator, len(models))
	all, budget := int64(0), sysinfo.Budget()
	for i, s := range models {
		if limit := s.Model.Config.MaxPositions; len(prompt)+tokens > limit {
			return nil, fmt.Errorf("%s: %d tokens and %d new ones, want at most %d in all", s.Name, len(prompt), tokens, limit)
		}
		whole := s.Model.WholeHeadBytes()
		for b := range s.Model.Blocks() {
			whole += s.Model.BlockBytes(b)
		}
		if all += whole; all > budget && budget > 0 {
			return nil, fmt.Errorf("%s: weights of %d MiB with those that it is measured beside, of the memory %d MiB may be taken: a model that does not fit would be timed by its disk", s.Name, all>>20, budget>>20)
		}
		var err error
		if gens[i], err = generate.New(s.Model, 0, s.opt.Progress); err != nil {
			return nil, err
		}
		speeds[i] = Speed{Stored: s.Inventory.StoredBytes(), Memory: whole, Prompt: len(prompt), New: tokens}
	}
	for range runs {
		for i, g := range gens {
			if err := speeds[i].run(ctx, g, prompt); err != nil {
				return nil, fmt.Errorf("%s: %w", models[i].Name, err)
			}
		}
	}
	return speeds, nil
}

// run takes one run of g into s.
func (s *Speed) run(ctx context.Context, g *generate.Generator, prompt []int32) error {
	start := time.Now()
	var first, last time.Duration
	n := 0
	_, err := g.Run(ctx, prompt, generate.Options{MaxTokens: s.New}, func(int32) error {
		if last = time.Since(start); n == 0 {
			first = last
		}
		n++
		return nil
	})
	if err != nil {
		return err
	}
	s.Prefill = max(s.Prefill, float64(len(prompt))/first.Seconds())
	s.Decode = max(s.Decode, float64(n-1)/(last-first).Seconds())
	return nil
}
