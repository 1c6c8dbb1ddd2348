package main

import (
	"context"
	"fmt"
	"io"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

// againstReport is the dense model's side of an evaluation.
type againstReport struct {
	Name string `json:"name"`
	eval.Comparison
}

// openDense opens the model of --against; nil if there is none.
func (a *app) openDense(ctx context.Context, o *opened, name string) (*opened, error) {
	if name == "" {
		return nil, nil
	}
	dense, err := a.open(ctx, name, a.meter)
	if err != nil {
		return nil, fmt.Errorf("--against: %w", err)
	}
	dense.m = dense.m.With(model.Options{Engine: o.m.Engine()})
	return dense, nil
}

// against measures o beside dense on the windows of set, which must be dense's
// as well.
func (a *app) against(ctx context.Context, o, dense *opened, set *windows.Set, source recipe.Eval, opt eval.Options) (eval.Comparison, error) {
	denseSet, err := a.loader(dense, a.meter).Evaluation(ctx, source)
	if err != nil {
		return eval.Comparison{}, fmt.Errorf("--against: %w", err)
	}
	if set.SHA256() != denseSet.SHA256() {
		return eval.Comparison{}, fmt.Errorf("--against: the tokenizers of %s and %s make different tokens of %s", o.name, dense.name, set.Source)
	}
	return eval.Against(ctx, o.m, dense.m, set.Tokens, opt)
}

func showAgainst(w io.Writer, r *againstReport) {
	fmt.Fprintf(w, "dense\t%.4f\t(%s)\n", r.Dense.Perplexity, r.Name)
	fmt.Fprintf(w, "KL\t%.4f\t(nats, mean over %d tokens; median %.4f, 90 %% below %.4f, 99 %% below %.4f, at most %.4f)\n",
		r.KL.Mean, r.Positions, r.KL.P50, r.KL.P90, r.KL.P99, r.KL.Max)
	fmt.Fprintf(w, "same top token\t%.2f %%\n", 100*r.SameTop)
}
