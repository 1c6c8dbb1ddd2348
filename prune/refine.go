package prune

import (
	"context"
	"slices"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// refinement returns how the mask of a Linear is refined, that is of the
// attention or not; nil if it is left as it was selected.
func (p *Plan) refinement(attention bool) *refine.Method {
	if f := p.resolved.Refine; f != nil && f.Refines(attention, p.resolved.Params) {
		return f
	}
	return nil
}

// refines reports whether some Linear of in is refined.
func (p *Plan) refines(in *model.Input) bool {
	return slices.ContainsFunc(in.Linears, func(l *model.Linear) bool { return !p.skip[l.Name] && p.refinement(l.Attention) != nil })
}

// refineBytes returns what refining the Linears of a block takes at most, each
// counted with an input of its own.
func (p *Plan) refineBytes(linears []model.LinearSpec) int64 {
	sum := int64(0)
	for _, l := range linears {
		if f := p.refinement(l.Attention); f != nil && f.NeedsMoments {
			sum += stats.MomentsBytes(l.Cols)
		}
	}
	return sum
}

// observes says which statistics of in are gathered besides the norms.
func (p *Plan) observes(in *model.Input) (needs stats.Needs) {
	u, f := p.resolved.Update, p.resolved.Refine
	needs.Gram = u != nil && u.NeedsGram && p.anyPruned(in)
	if f != nil && p.refines(in) {
		needs = needs.Union(stats.Needs{Gram: f.NeedsGram, Moments: f.NeedsMoments})
	}
	return needs
}

// refine refines the mask of w, the rows of a Linear that were just selected.
func (r *runner) refine(ctx context.Context, f *refine.Method, kept *mask.Mask, w *tensor.Weight, s *stats.Input, out *Linear) error {
	defer timed(&r.report.Seconds.Refine)()
	if out.Refined == nil {
		out.Refined = new(refine.Result)
	}
	if f.NeedsGram && r.gram == nil {
		r.gram = refine.NewGram(s.Gram)
		if r.plan.resolved.Update == nil {
			s.Gram = nil // as large as the copy
		}
	}
	done, err := f.Run(ctx, refine.Problem{
		Kept: kept, W: w, Scores: r.scores[:w.Rows*w.Cols], Input: s, Gram: r.gram, Pattern: r.plan.resolved.Target.Pattern, Params: r.plan.resolved.Params,
	})
	out.Refined.Add(done)
	return err
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
