package prune

import (
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/recipe"
)

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
