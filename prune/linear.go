package prune

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/update"
)

// pruneLinears prunes and writes every Linear of block. Scores and the scratch
// of a forward pass are both large and never in use at the same time: each is
// collected before the other is taken.
func (r *runner) pruneLinears(ctx context.Context, block *model.Block, seen map[*model.Input]*stats.Input) ([]Linear, error) {
	runtime.GC()
	var linears []Linear
	for _, in := range block.Inputs() {
		for _, l := range in.Linears {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			done, err := r.pruneLinear(ctx, l, in, seen[in])
			if err != nil {
				return nil, fmt.Errorf("tensor %s.weight: %w", l.Name, err)
			}
			linears = append(linears, done)
		}
		r.prepared, r.gram = nil, nil
		if s := seen[in]; s != nil {
			s.Gram = nil // as large as the factor of the next
		}
	}
	r.scores = nil
	runtime.GC()
	return linears, nil
}

// pruneLinear scores, masks and writes l.
func (r *runner) pruneLinear(ctx context.Context, l *model.Linear, in *model.Input, s *stats.Input) (Linear, error) {
	out := Linear{Name: l.Name, Rows: l.Rows, Cols: l.Cols}
	weight, err := l.Read()
	if err != nil {
		return out, err
	}
	defer l.Unload()
	out.Skipped = r.plan.skip[l.Name]
	var parts []selected
	switch {
	case out.Skipped:
	case r.opt.Masks != nil:
		if err := r.opt.Masks.apply(l, weight); err != nil {
			return out, err
		}
		out.Permuted = r.opt.Masks.permuted(l)
		parts = r.opt.Masks.selected(l)
	default:
		method, starved := r.method(l, s)
		refinement, change := r.plan.refinement(l.Attention), r.plan.resolved.Update
		if starved {
			refinement, change = nil, nil
		}
		switch {
		case change != nil:
			r.bar.Phase("update " + l.Name)
		case refinement != nil:
			r.bar.Phase("refine " + l.Name)
		}
		for _, part := range matrices(r.plan.resolved, l.Parts, l.Rows) {
			w := part.Take(weight)
			if r.selectsPermuted(method) {
				if err := r.selectPermuted(ctx, l, part, w, in, s, &out); err != nil {
					return out, inPart(part, err)
				}
				part.Return(weight, w)
				parts = append(parts, selected{part: part, order: out.Permuted[len(out.Permuted)-1].Order})
				continue
			}
			kept, err := r.mask(l, part, w, method, s, &out)
			if err != nil {
				return out, inPart(part, err)
			}
			if refinement != nil {
				if err := r.refine(ctx, refinement, kept, w, s, &out); err != nil {
					return out, inPart(part, err)
				}
			}
			if l == in.Linears[len(in.Linears)-1] && part.Hi == l.Rows {
				r.gram = nil // before as much is prepared, if it was not yet
			}
			if change != nil && r.prepared == nil {
				if err := r.prepare(change, in, s); err != nil {
					return out, err
				}
			}
			if err := r.apply(ctx, kept, w, change); err != nil {
				return out, inPart(part, err)
			}
			part.Return(weight, w)
			parts = append(parts, selected{part: part, kept: kept})
			if r.masks != nil {
				r.masks[l.Name] = append(r.masks[l.Name], kept)
			}
		}
	}
	if err := l.Write(weight); err != nil {
		return out, err
	}
	out.Zeros = weight.Zeros()
	out.Sparsity = float64(out.Zeros) / float64(l.Rows*l.Cols)
	if r.w == nil {
		return out, nil
	}
	defer timed(&r.report.Seconds.Write)()
	if err := verify(weight, parts, r.target); err != nil {
		return out, err
	}
	return out, r.w.WriteTensor(l.Name+".weight", weight.Bytes())
}

// inPart says which part of a Linear err is about, if it is split.
func inPart(p model.Part, err error) error {
	if p.Name != "" {
		return fmt.Errorf("part %s: %w", p.Name, err)
	}
	return err
}

// mask returns what method keeps of w, a Linear's rows or some of them; nil if
// the update selects. r.scores are what it was selected by.
func (r *runner) mask(l *model.Linear, part model.Part, w *tensor.Weight, method score.Method, s *stats.Input, out *Linear) (*mask.Mask, error) {
	scores := r.buffer(w.Rows * w.Cols)
	if method.Score == nil {
		return nil, nil
	}
	stop := timed(&r.report.Seconds.Score)
	err := method.Score(scores, w, s, r.plan.resolved.Params)
	stop()
	if err != nil {
		return nil, err
	}
	if order := r.order(l, part, w, out); order != nil {
		defer timed(&r.report.Seconds.Select)()
		return mask.SelectIn(scores, w.Rows, w.Cols, r.target.Pattern, order)
	}
	defer timed(&r.report.Seconds.Select)()
	return mask.Select(scores, w.Rows, w.Cols, r.target)
}

// apply prunes w and updates it with change, if there is one.
func (r *runner) apply(ctx context.Context, kept *mask.Mask, w *tensor.Weight, change *update.Method) error {
	if change == nil {
		kept.Apply(w)
		return nil
	}
	defer timed(&r.report.Seconds.Update)()
	return r.prepared.Run(ctx, w, kept, r.target, r.scores)
}

// warnOfFewTokens says what a Gram matrix of too few tokens is worth.
func (r *runner) warnOfFewTokens() {
	fits := "update"
	if u := r.plan.resolved.Update; u == nil || !u.NeedsGram {
		f := r.plan.resolved.Refine
		if f == nil || !f.NeedsGram {
			return
		}
		fits = "refinement"
	}
	c, cols := r.opt.Calibration, 0
	for _, l := range r.plan.Linears {
		cols = max(cols, l.Cols)
	}
	if n := len(c.Tokens) * c.SeqLen; n < cols {
		r.opt.warn("%d calibration tokens are fewer than the %d columns of the widest Linear: the %s fits those tokens, not what the model sees", n, cols, fits)
	}
}

// prepare does what the updates of in's Linears share.
func (r *runner) prepare(change *update.Method, in *model.Input, s *stats.Input) error {
	defer timed(&r.report.Seconds.Update)()
	r.prepared = nil
	runtime.GC() // what the input before held is as large as what this one takes
	p, err := change.Prepare(s.Gram, r.plan.resolved.Target.Pattern, r.plan.resolved.Params)
	if err != nil {
		return fmt.Errorf("input of %s: Gram %w", in.Name, err)
	}
	if p.Damped() > update.Damping {
		r.opt.warn("input of %s: Gram matrix was not positive definite; %v of its mean diagonal was added", in.Name, p.Damped())
	}
	r.prepared = p
	s.Gram = nil // as large as what p holds; a refinement has its copy
	return nil
}

// MinTokens is what an expert must have seen of the calibration text for its
// activation norms to say more than chance: with fewer tokens than this its
// Linears are pruned by magnitude.
const MinTokens = 64

// method returns what l is scored by: the recipe's method, but magnitude for an
// expert that routing has left with too little data.
func (r *runner) method(l *model.Linear, s *stats.Input) (m score.Method, starved bool) {
	m = r.plan.resolved.Method
	if s == nil || !l.Expert || s.Tokens >= MinTokens {
		return m, false
	}
	expert := l.Name[:strings.LastIndexByte(l.Name, '.')]
	if r.starved != expert {
		r.opt.warn("%s saw %d tokens, fewer than %d: pruned by magnitude", expert, s.Tokens, MinTokens)
	}
	r.starved = expert
	return score.Magnitude, true
}
