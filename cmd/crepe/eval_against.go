package main

import (
	"context"
	"fmt"
	"io"

	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/session"
)

// againstReport is the dense model's side of an evaluation.
type againstReport struct {
	Name string `json:"name"`
	eval.Comparison
}

// openDense opens the model of --against, which o's engine computes; nil if there
// is none.
func (a *app) openDense(ctx context.Context, o *session.Session, name string, memory int64) (*session.Session, error) {
	if name == "" {
		return nil, nil
	}
	opt := a.options("", memory)
	opt.Engine = o.Model.Engine()
	dense, err := a.open(ctx, name, opt)
	if err != nil {
		return nil, fmt.Errorf("--against: %w", err)
	}
	return dense, nil
}

func showAgainst(w io.Writer, r *againstReport) {
	fmt.Fprintf(w, "dense\t%s\t(%s)\n", perplexityText(r.Dense, 4), label(r.Name))
	fmt.Fprintf(w, "KL\t%.4f\t(nats, mean over %d tokens; median %.4f, 90 %% below %.4f, 99 %% below %.4f, at most %.4f)\n",
		r.KL.Mean, r.Positions, r.KL.P50, r.KL.P90, r.KL.P99, r.KL.Max)
	fmt.Fprintf(w, "same top token\t%.2f %%\n", 100*r.SameTop)
}
