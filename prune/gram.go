package prune

import (
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/refine"
	"github.com/crepe-llm/crepe/stats"
)

// readsGram reports whether the refinement and the update of a Linear, that is of
// the attention or not, read its input's Gram matrix.
func (p *Plan) readsGram(attention bool) (refines, updates bool) {
	f, u := p.refinement(attention), p.resolved.Update
	return f != nil && f.NeedsGram, u != nil && u.NeedsGram
}

// firstOfInput reports whether the i-th of a block's Linears is the first that reads
// its input.
func firstOfInput(linears []model.LinearSpec, i int) bool {
	return i == 0 || linears[i-1].Input != linears[i].Input
}

// gramBytes returns what refinement and update of a block hold at most. All its
// Gram matrices are gathered in one pass. Then, input by input, one is copied
// for the refinement, one prepared for the update and let go of; the copy stays
// to the input's last Linear, whose update comes after.
func (p *Plan) gramBytes(linears []model.LinearSpec) int64 {
	u, selects := p.resolved.Update, p.resolved.Method.Score == nil
	later, most, scratch := int64(0), int64(0), int64(0)
	for i := len(linears) - 1; i >= 0; i-- {
		l := linears[i]
		refines, updates := p.readsGram(l.Attention)
		if !refines && !updates {
			continue
		}
		first := firstOfInput(linears, i)
		last := i == len(linears)-1 || firstOfInput(linears, i+1)
		gram, copied := stats.GramBytes(l.Cols), int64(0)
		scratch = max(scratch, p.engine.StatsScratch(l.Cols, stats.Needs{Gram: true}))
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
func (p *Plan) gramFLOP(linears []model.LinearSpec, tokens float64) float64 {
	u, selects := p.resolved.Update, p.resolved.Method.Score == nil
	sum := 0.0
	for i, l := range linears {
		refines, updates := p.readsGram(l.Attention)
		first := firstOfInput(linears, i)
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
