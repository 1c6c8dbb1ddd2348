package session

import (
	"context"
	"fmt"
	"os"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
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
	set, err := s.Loader().Evaluation(ctx, s.withSource(e))
	if err != nil {
		return Measurement{}, err
	}
	m, opt := s.measuring(set)
	r, err := eval.Perplexity(ctx, m, set.Tokens, opt)
	return Measurement{set.Source, r, set.BOS}, err
}

// Against measures the model beside the dense one that it was made from, which
// must have the same tokenizer. The engine of s computes both.
func (s *Session) Against(ctx context.Context, dense *Session, e recipe.Eval) (Measurement, eval.Comparison, error) {
	e = s.withSource(e)
	set, err := s.Loader().Evaluation(ctx, e)
	if err != nil {
		return Measurement{}, eval.Comparison{}, err
	}
	theirs, err := dense.Loader().Evaluation(ctx, e)
	if err != nil {
		return Measurement{}, eval.Comparison{}, err
	}
	if set.SHA256() != theirs.SHA256() {
		return Measurement{}, eval.Comparison{}, fmt.Errorf("the tokenizers of %s and %s make different tokens of %s", s.Name, dense.Name, set.Source)
	}
	m, opt := s.measuring(set)
	other, _ := dense.Bounded()
	other = other.With(model.Options{Engine: m.Engine(), ExpertBytes: other.ExpertBytes()})
	c, err := eval.Against(ctx, m, other, set.Tokens, opt)
	return Measurement{set.Source, c.Model, set.BOS}, c, err
}

func (s *Session) withSource(e recipe.Eval) recipe.Eval {
	if e.Source == "" {
		e.Source = EvaluationText(s.Name)
	}
	return e
}

// measuring returns the model and the options to measure it with on set.
func (s *Session) measuring(set *windows.Set) (*model.Model, eval.Options) {
	m, half := s.Bounded()
	opt := eval.Options{Progress: s.opt.Progress}
	if half > 0 && hidden.Bytes(len(set.Tokens), set.SeqLen, m.Width()) > half {
		opt.SpillDir = os.TempDir()
	}
	return m, opt
}
