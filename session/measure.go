package session

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

// Measurement is a perplexity and the text that it was measured on.
type Measurement struct {
	Data string `json:"data"`
	eval.Result
	BOS bool `json:"bos"`
}

// Perplexity measures the model on a text; without a Source, on EvaluationText.
func (s *Session) Perplexity(ctx context.Context, e recipe.Eval) (Measurement, error) {
	set, err := s.Evaluation(ctx, e)
	if err != nil {
		return Measurement{}, err
	}
	return s.PerplexityOn(ctx, set)
}

// PerplexityOn measures the model on a text's windows.
func (s *Session) PerplexityOn(ctx context.Context, set *windows.Set) (Measurement, error) {
	m, opt, err := s.measuring(set, 1)
	if err != nil {
		return Measurement{}, err
	}
	r, err := eval.Perplexity(ctx, m, set.Tokens, opt)
	return Measurement{set.Source, r, set.BOS}, err
}

// Against measures the model beside the dense one that it was made from, which
// must have the same tokenizer. The engine of s computes both.
func (s *Session) Against(ctx context.Context, dense *Session, e recipe.Eval) (Measurement, eval.Comparison, error) {
	set, err := s.Evaluation(ctx, e, dense)
	if err != nil {
		return Measurement{}, eval.Comparison{}, err
	}
	c, err := s.AgainstOn(ctx, dense, set)
	return Measurement{set.Source, c.Model, set.BOS}, c, err
}

// Evaluation returns the windows of a text, without a Source those of EvaluationText. The
// tokenizers of others must make the same tokens of it.
func (s *Session) Evaluation(ctx context.Context, e recipe.Eval, others ...*Session) (*windows.Set, error) {
	e.Source = cmp.Or(e.Source, EvaluationText(s.Name))
	set, err := s.Loader().Evaluation(ctx, e)
	if err != nil {
		return nil, err
	}
	for _, other := range others {
		theirs, err := other.Loader().Evaluation(ctx, e)
		if err != nil {
			return nil, err
		}
		if set.SHA256() != theirs.SHA256() {
			return nil, fmt.Errorf("the tokenizers of %s and %s make different tokens of %s", s.Name, other.Name, set.Source)
		}
	}
	return set, nil
}

// AgainstOn measures the model beside the dense one on a text's windows, which are of the
// tokenizer that both have.
func (s *Session) AgainstOn(ctx context.Context, dense *Session, set *windows.Set) (eval.Comparison, error) {
	m, opt, err := s.measuring(set, 2)
	if err != nil {
		return eval.Comparison{}, err
	}
	other, denseOpt, err := dense.measuring(set, 2)
	if err != nil {
		return eval.Comparison{}, err
	}
	if opt.States.Dir == "" && denseOpt.States != (engine.Place{}) {
		opt.States = denseOpt.States
	}
	options := other.Options()
	options.Engine = m.Engine()
	other = other.With(options)
	return eval.Against(ctx, m, other, set.Tokens, opt)
}

// measuring returns the model and the options to measure it with on set, alone or beside
// others, if the budget has room for a block and TMPDIR for what the memory has not.
func (s *Session) measuring(set *windows.Set, models int) (*model.Model, eval.Options, error) {
	m, _ := s.Bounded()
	opt := eval.Options{Progress: s.opt.Progress}
	if err := s.Fits(s.budget(), set.SeqLen); err != nil {
		return m, opt, err
	}
	opt.States = eval.PlaceFor(m, len(set.Tokens), set.SeqLen, models, s.budget(), os.TempDir())
	if dir := opt.States.Dir; dir != "" {
		size := hidden.Bytes(len(set.Tokens), set.SeqLen, m.Width())
		if free, err := sysinfo.FreeBytes(dir); err == nil && free < size {
			return m, opt, fmt.Errorf("%s: hidden states of %d MiB do not fit in %s, where %d MiB are free: set TMPDIR to a folder on a larger disk, or measure fewer windows",
				s.Name, size>>20, dir, free>>20)
		}
	}
	return m, opt, nil
}

// Fits refuses a model of which the largest block, with the activations of so many
// tokens, does not fit a budget in bytes, 0 being none, or the engine's own memory.
func (s *Session) Fits(budget int64, tokens int) error {
	if own, separate := engine.OwnMemory(s.Model.Engine()); separate {
		_, block := s.Model.FitBlocks(own / 2)
		if scratch := s.Model.OwnBytes(tokens); block+scratch > own {
			return fmt.Errorf("%s: device %w: %d MiB, want at least %d MiB (block %d, activations of %d tokens %d)",
				s.Name, prune.ErrMemory, own>>20, (block+scratch+1<<20-1)>>20, block>>20, tokens, scratch>>20)
		}
		tokens = 1 // activations are not in the program's memory
	}
	if budget <= 0 {
		return nil
	}
	_, block := s.Model.FitBlocks(budget / 2)
	scratch := s.Model.ScratchBytes(tokens)
	if least := block + scratch; least > budget {
		return fmt.Errorf("%s: %w: %d MiB, want at least %d MiB (block %d, activations of %d tokens %d)",
			s.Name, prune.ErrMemory, budget>>20, (least+1<<20-1)>>20, block>>20, tokens, scratch>>20)
	}
	return nil
}
