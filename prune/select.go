package prune

import (
	"context"
	"errors"

	"github.com/crepe-llm/crepe/engine"
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
			p := paramsOf(j.linear.Name)
			j.score = func() error { return m.Score(j.work(), j.w, j.input.Input, p) }
			if s, ok := j.engine.(engine.Selector); ok && m.Point != nil && j.part.Step == 0 {
				return j.scoreWith(s, m.Point(p))
			}
			return j.score()
		},
	}
}

// scoreWith has the engine compute the scores of p, where it has the weight.
func (j *job) scoreWith(s engine.Selector, p score.Point) error {
	norms, err := p.Norms(j.w.Cols, j.input.Input)
	if err != nil {
		return err
	}
	j.scored, err = s.Scores(j.linear.Op(), j.part.Lo, j.w.Rows, engine.Importance{
		Alpha: p.Alpha, Beta: p.Beta, Gamma: p.Gamma, Delta: p.Delta, Radius: p.Kernel / 2, Norms: norms,
	})
	return err
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
			switch {
			case j.scored != nil:
				if j.kept, err = j.scored.Select(j.target, j.order); errors.Is(err, engine.ErrScores) {
					err = j.refused()
				}
				j.selected.Device++
			case j.order != nil:
				j.kept, err = mask.SelectIn(j.scores, j.w.Rows, j.w.Cols, j.target.Pattern, j.order)
				j.selected.Host++
			default:
				j.kept, err = mask.Select(j.scores, j.w.Rows, j.w.Cols, j.target)
				j.selected.Host++
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
			j.masked = j.stored == nil
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
