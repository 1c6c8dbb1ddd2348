package prune

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
)

// divergedWindows is how many windows the pruned model's predictions are held to the
// dense ones' on: at 2048 tokens 32,000 positions. What the dense model's last block
// put out for them is kept for it, beside the output.
const divergedWindows = 16

// divergedOn returns those windows.
func (r *runner) divergedOn() [][]int32 { return firstWindows(r.opt.Evaluation.Tokens) }

func firstWindows(all [][]int32) [][]int32 { return all[:min(len(all), divergedWindows)] }

func (r *runner) densePath() string { return r.w.ScratchPath("dense-outputs") }

// keepDense keeps what the dense model's last block put out.
func (r *runner) keepDense(s *hidden.Store) error {
	save := func(w io.Writer) error { return s.SaveFirst(w, len(r.divergedOn())) }
	if err := writeSealed(r.densePath(), save); err != nil {
		r.opt.warn("the dense model's outputs are not kept, the comparison with them computes them again: %v", err)
	}
	return nil
}

// restoreDense fills s with what keepDense kept; it is fs.ErrNotExist if that is gone.
func (r *runner) restoreDense(s *hidden.Store) error {
	return readSealed(r.densePath(), s.Restore, func(path string) {
		r.opt.warn("%s: damaged; the dense model's outputs are computed again", path)
	})
}

// diverge returns how far the predictions of m, the pruned model, are from the dense
// one's: nil if one of the two has no finite likelihood. now holds what m's last block
// put out, or is nil.
func (r *runner) diverge(ctx context.Context, m *model.Model, now *hidden.Store) (*eval.Divergence, error) {
	res, err := eval.Diverge(ctx, m, r.dense, r.divergedOn(), now, r.restoreDense, eval.Options{
		States: r.place(), Name: "compare with the dense model", Progress: r.opt.Progress,
	})
	var not *eval.NotFiniteError
	switch {
	case errors.As(err, &not): // its perplexity says so
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("comparison with the dense model: %w", err)
	}
	return &res.Divergence, nil
}
