// Package generate continues a text with a model, token by token.
package generate

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/tensor"
)

// Generator holds as many blocks of a model in memory as the budget has room
// for; the others are read again for each token, which is slow and works for a
// model of any size. One goroutine uses it at a time.
type Generator struct {
	m        *model.Model
	resident []*model.Block // the first blocks
	head     *model.Head
	state    *model.State
	cache    *model.Cache // nil before a text
	logits   engine.Mat   // of the last token
	fed      int          // tokens that it has seen
}

// New reads the blocks of m that fit bytes of memory; 0 takes all.
func New(m *model.Model, bytes int64, report progress.Func) (*Generator, error) {
	keep := m.Blocks()
	if bytes > 0 {
		if _, block := m.FitBlocks(bytes); int64(keep)*block > bytes {
			experts, block := m.FitBlocks(bytes / 2)
			m = m.WithExpertBytes(experts)
			keep = int(min(int64(keep), bytes/2/max(1, block)))
		}
	}
	g := &Generator{m: m, state: m.NewState(), logits: m.Engine().NewMat(1, m.Config.Vocab)}
	var bar *progress.Bar
	for i := range keep {
		if bar == nil {
			bar = report.Start("load", int64(keep), "blocks")
		}
		b, err := m.LoadBlock(i)
		if err != nil {
			return nil, err
		}
		g.resident = append(g.resident, b)
		bar.Add(1)
	}
	load := m.LoadHead
	_, block := m.FitBlocks(math.MaxInt64)
	if bytes == 0 || int64(m.Blocks())*block+m.WholeHeadBytes() <= bytes {
		load = m.LoadWholeHead
	}
	var err error
	g.head, err = load()
	return g, err
}

// Resident returns how many of the model's blocks are in memory.
func (g *Generator) Resident() int { return len(g.resident) }

// Options say how a text goes on and where it ends. The zero value is greedy
// and goes on to the model's maximum.
type Options struct {
	MaxTokens int     // new ones; 0: as many as the model takes
	Stop      []int32 // tokens that end the text
	Sampling
}

// Reason says why a text ended.
type Reason string

// The reasons: a token of Options.Stop, Options.MaxTokens, or the longest
// sequence that the model was made for.
const (
	AtStop      Reason = "stop token"
	AtMaxTokens Reason = "max tokens"
	AtLimit     Reason = "model's maximum"
)

// Run continues prompt and calls yield with each new token; one of Options.Stop
// is not yielded. An error of yield ends the text and is returned as it is. The
// same prompt, options and model give the same tokens on any number of cores.
func (g *Generator) Run(ctx context.Context, prompt []int32, opt Options, yield func(id int32) error) (Reason, error) {
	limit := g.m.Config.MaxPositions
	switch {
	case len(prompt) == 0:
		return "", errors.New("the prompt has no tokens, want at least one")
	case len(prompt) > limit:
		return "", fmt.Errorf("the prompt has %d tokens, want at most the model's %d", len(prompt), limit)
	}
	most, end := limit-len(prompt), AtLimit
	if opt.MaxTokens > 0 && opt.MaxTokens <= most {
		most, end = opt.MaxTokens, AtMaxTokens
	}
	sample, ranking := NewSampler(opt.Sampling), new(Ranking)
	ids := append([]int32(nil), prompt...)
	logits := tensor.NewMatrix(1, g.m.Config.Vocab)
	g.cache = nil
	for range most {
		if err := g.forward(ctx, ids, len(prompt)+most, logits); err != nil {
			return "", err
		}
		id, err := sample.Next(logits.Data, ranking)
		if err != nil {
			return "", fmt.Errorf("token %d: %w", len(ids), err)
		}
		for _, stop := range opt.Stop {
			if id == stop {
				return AtStop, nil
			}
		}
		ids = append(ids, id)
		if err := yield(id); err != nil {
			return "", err
		}
	}
	return end, nil
}

// forward computes the logits after the last of ids, a sequence that ends
// before total tokens.
//
// Where positions turn otherwise in a long sequence (longrope), one that grows
// long is computed anew from its beginning, as if it had been long from the
// start; that is what transformers does.
func (g *Generator) forward(ctx context.Context, ids []int32, total int, logits tensor.Matrix) error {
	if g.cache == nil || !g.m.SameRotation(g.fed, len(ids)) {
		g.cache, g.fed = g.m.NewCache(g.m.LongestAlike(len(ids), total)), 0
	}
	x := g.m.NewMat(len(ids) - g.fed)
	if err := g.m.Embed(x, ids[g.fed:]); err != nil {
		return err
	}
	for i := range g.m.Blocks() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := g.block(i, x); err != nil {
			return err
		}
	}
	g.fed = len(ids)
	if err := g.head.Logits(g.logits, x.Slice(x.Rows-1, x.Rows)); err != nil {
		return err
	}
	g.m.Engine().Download(logits, g.logits)
	return nil
}

// block runs x through block i.
func (g *Generator) block(i int, x engine.Mat) error {
	mode := model.Mode{Pieces: []model.Piece{{Cache: g.cache, Tokens: x.Rows}}}
	if i < len(g.resident) {
		return g.resident[i].Run(g.state, x, mode)
	}
	b, err := g.m.LoadBlock(i)
	if err != nil {
		return err
	}
	defer b.Release()
	return b.Run(g.state, x, mode)
}
