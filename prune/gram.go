package prune

import (
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/stats"
)

// gramBytes returns what refinement and update of a block hold at most. All its
// Gram matrices are gathered in one pass. Then, input by input, one is copied
// for the refinement, one prepared for the update and let go of; the copy stays
// to the input's last Linear, whose update comes after.
func (p *Plan) gramBytes(linears []model.LinearInfo) int64 {
	u, selects := p.resolved.Update, p.resolved.Method.Score == nil
	later, most, scratch := int64(0), int64(0), int64(0)
	for i := len(linears) - 1; i >= 0; i-- {
		l := linears[i]
		f := p.refinement(l.Attention)
		refines, updates := f != nil && f.NeedsGram, u != nil && u.NeedsGram
		if !refines && !updates {
			continue
		}
		first := i == 0 || linears[i-1].Input != l.Input
		last := i == len(linears)-1 || linears[i+1].Input != l.Input
		gram, copied := stats.GramBytes(l.Cols), int64(0)
		scratch = max(scratch, stats.GramScratchBytes(l.Cols))
		if refines {
			copied = refine.GramBytes(l.Cols) + refine.SwapsBytes(l.Cols)
			most = max(most, later+gram+copied)
		}
		if updates {
			if first && last && len(matrices(p.resolved, l.Parts, l.Rows)) == 1 {
				copied = 0
			}
			if selects && p.resolved.Permute != nil {
				copied = gram // each Linear puts it in an order of its own
			}
			most = max(most, later+gram+copied+u.Bytes(l.Cols, false), later+copied+u.Bytes(l.Cols, selects)+u.RunBytes(l.Rows, l.Cols, selects))
		}
		if first {
			later += gram
		}
	}
	return max(most, later+scratch)
}

// gramFLOP returns the operations of the Gram matrices of a block's inputs, of
// which half is computed, of the first products of a refinement and of the
// updates. The exchanges of a refinement are not counted: how many there will be
// is not known.
func (p *Plan) gramFLOP(linears []model.LinearInfo, tokens float64) float64 {
	u, selects := p.resolved.Update, p.resolved.Method.Score == nil
	sum := 0.0
	for i, l := range linears {
		f := p.refinement(l.Attention)
		refines, updates := f != nil && f.NeedsGram, u != nil && u.NeedsGram
		first := i == 0 || linears[i-1].Input != l.Input
		if first && (refines || updates) {
			sum += l.Share * tokens * float64(l.Cols) * float64(l.Cols)
		}
		if first && updates {
			sum += u.FLOP(l.Cols, selects)
		}
		if refines {
			sum += 2 * float64(l.Rows) * float64(l.Cols) * float64(l.Cols)
		}
		if updates {
			sum += u.RunFLOP(l.Rows, l.Cols, selects)
		}
	}
	return sum
}
