package prune

import (
	"context"
	"errors"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/score"
)

// scoring scores every weight by the parameters of its Linear.
func scoring(m score.Method, paramsOf func(linear string) param.Values) step {
	return step{
		seconds: func(s *Seconds) *float64 { return &s.Score },
		cost:    scoresCost,
		run: func(_ context.Context, j *job) error {
			return m.Score(j.work(), j.w, j.input.Input, paramsOf(j.linear.Name))
		},
	}
}

// scoresCost is that of scores, and of the mask that is selected by them.
func scoresCost(rows, cols int) cost {
	const scoreBytes, maskBytes = 4, 1
	return cost{kept: (scoreBytes + maskBytes) * int64(rows) * int64(cols)}
}

// selecting makes the mask that prunes the lowest scores.
func selecting() step {
	return step{
		seconds: func(s *Seconds) *float64 { return &s.Select },
		run: func(_ context.Context, j *job) (err error) {
			if j.order != nil {
				j.kept, err = mask.SelectIn(j.scores, j.w.Rows, j.w.Cols, j.target.Pattern, j.order)
			} else {
				j.kept, err = mask.Select(j.scores, j.w.Rows, j.w.Cols, j.target)
			}
			return err
		},
	}
}

// applying sets to zero what the mask prunes.
func applying() step {
	return step{
		seconds: func(s *Seconds) *float64 { return &s.Select },
		run: func(_ context.Context, j *job) error {
			j.kept.Apply(j.w)
			return nil
		},
	}
}

// taking takes the mask from those that were made before.
func taking(masks Masks) step {
	return step{
		seconds: func(s *Seconds) *float64 { return &s.Select },
		run: func(_ context.Context, j *job) error {
			of := masks[j.linear.Name]
			if j.at >= len(of) {
				return errors.New("no mask for this Linear")
			}
			if j.kept = of[j.at]; j.kept.Order != nil {
				p := permutationOf(j.part) // what it retains is not known
				p.Order = j.kept.Order
				j.report.Permuted = append(j.report.Permuted, p)
			}
			return nil
		},
	}
}
