package prune

import (
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/stats"
)

// gramBytes returns what the update of a block holds at most. All its Gram
// matrices are gathered in one pass. Then, input by input, one is prepared, let
// go of unless a refinement still reads it, and its Linears are updated.
func gramBytes(linears []model.LinearInfo, r recipe.Resolved) int64 {
	if r.Update == nil || !r.Update.NeedsGram {
		return 0
	}
	selects, later, most, scratch := r.Method.Score == nil, int64(0), int64(0), int64(0)
	for i := len(linears) - 1; i >= 0; i-- {
		l := linears[i]
		gram := stats.GramBytes(l.Cols)
		scratch = max(scratch, stats.GramScratchBytes(l.Cols))
		most = max(most, later+gram+r.Update.Bytes(l.Cols, false))
		at := later + r.Update.Bytes(l.Cols, selects) + r.Update.RunBytes(l.Rows, l.Cols, selects)
		if r.Refine != nil {
			at += gram
		}
		most = max(most, at)
		if i == 0 || linears[i-1].Input != l.Input {
			later += gram
		}
	}
	return max(most, later+scratch)
}

// gramFLOP returns the operations of the Gram matrices of a block's inputs, of
// which half is computed, and of the updates.
func gramFLOP(linears []model.LinearInfo, r recipe.Resolved, tokens float64) float64 {
	if r.Update == nil || !r.Update.NeedsGram {
		return 0
	}
	sum, selects := 0.0, r.Method.Score == nil
	for i, l := range linears {
		if i == 0 || linears[i-1].Input != l.Input {
			sum += l.Share*tokens*float64(l.Cols)*float64(l.Cols) + r.Update.FLOP(l.Cols, selects)
		}
		sum += r.Update.RunFLOP(l.Rows, l.Cols, selects)
	}
	return sum
}
