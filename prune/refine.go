package prune

import (
	"context"

	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/stats"
)

// refining exchanges weights of the mask.
func refining(m refine.Method, p param.Values) step {
	s := step{
		name:    "refinement",
		seconds: func(s *Seconds) *float64 { return &s.Refine },
		needs:   stats.Needs{Gram: m.NeedsGram, Moments: m.NeedsMoments},
		only:    func(attention bool) bool { return m.Refines(attention, p) },
		run: func(ctx context.Context, j *job) error {
			if j.report.Refined == nil {
				j.report.Refined = new(refine.Result)
			}
			scores, err := j.hostScores()
			if err != nil {
				return err
			}
			gram, _ := j.shared.(*refine.Gram)
			done, err := m.Run(ctx, refine.Problem{
				Kept: j.kept, W: j.w, Scores: scores, Input: j.input.Input, Gram: gram, Pattern: j.target.Pattern, Params: p,
			})
			j.report.Refined.Add(done)
			return err
		},
	}
	if m.NeedsGram {
		s.share = func(in *input) (any, error) { return refine.NewGram(in.Gram), nil }
		s.cost = func(rows, cols int) cost {
			n := refine.GramBytes(cols) + refine.SwapsBytes(cols)
			// How many exchanges there will be is not known: the first products alone.
			return cost{shared: n, held: n, flop: 2 * float64(rows) * float64(cols) * float64(cols)}
		}
	}
	return s
}

// Refined returns how many weights refinements exchanged, and which share of the
// error that they lower is left; false if nothing was refined.
func (r *Report) Refined() (exchanges int, left float64, ok bool) {
	var sum refine.Result
	for _, l := range r.Linears {
		if l.Refined != nil {
			sum.Add(*l.Refined)
			ok = true
		}
	}
	if sum.Before > 0 {
		left = sum.After / sum.Before
	}
	return sum.Exchanges, left, ok
}
