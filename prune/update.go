package prune

import (
	"context"
	"fmt"
	"runtime"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/update"
)

// updating changes the weights that the mask keeps; selects: there is no mask, and
// the update prunes as well.
func updating(m update.Method, p param.Values, to pattern.Pattern, selects bool) step {
	return step{
		name:    "update",
		seconds: func(s *Seconds) *float64 { return &s.Update },
		needs:   stats.Needs{Gram: m.NeedsGram},
		cost:    func(rows, cols int) cost { return updateCost(m, rows, cols, selects) },
		share: func(in *input) (any, error) {
			runtime.GC() // what the input before held is as large as what this one takes
			return prepare(m, in, in.Gram, to, p)
		},
		run: func(ctx context.Context, j *job) error {
			return j.shared.(update.Prepared).Run(ctx, j.w, j.kept, j.target, j.work())
		},
	}
}

// updatingInOrder lets an update select among permuted columns: those of the
// matrix and of the Gram matrix are put in the job's order. Each matrix has its own,
// so what the matrices of an input share otherwise is made for each.
func updatingInOrder(m update.Method, p param.Values, to pattern.Pattern) step {
	return step{
		name:    "update",
		seconds: func(s *Seconds) *float64 { return &s.Update },
		needs:   stats.Needs{Gram: m.NeedsGram},
		cost: func(rows, cols int) cost {
			const float32Bytes = 4
			gram := stats.GramBytes(cols)
			c := updateCost(m, rows, cols, true)
			c.brief = gram + float32Bytes*int64(rows)*int64(cols)
			c.shared += gram
			return c
		},
		run: func(ctx context.Context, j *job) error {
			w, gram := j.w, j.input.Gram
			if j.order != nil {
				gram = gram.Permuted(j.order)
				w = tensor.NewWeight(w.DType, w.Rows, w.Cols)
				moveColumns(w, j.w, func(k int) (int, int) { return k, j.order[k] })
			}
			prepared, err := prepare(m, j.input, gram, to, p)
			if err != nil {
				return err
			}
			if err := prepared.Run(ctx, w, nil, j.target, j.work()); err != nil || j.order == nil {
				return err
			}
			moveColumns(j.w, w, func(k int) (int, int) { return j.order[k], k })
			return nil
		},
	}
}

// prepare is the first part of an update, by the Gram matrix g of in.
func prepare(m update.Method, in *input, g *stats.Gram, to pattern.Pattern, p param.Values) (update.Prepared, error) {
	prepared, err := m.Prepare(g, to, p)
	if err != nil {
		return nil, fmt.Errorf("input of %s: Gram %w", in.of.Name, err)
	}
	if d := prepared.Damped(); d > update.Damping {
		in.warn("input of %s: Gram matrix was not positive definite; %v of its mean diagonal was added", in.of.Name, d)
	}
	return prepared, nil
}

// updateCost is that of an update; one that selects works in memory for scores.
func updateCost(m update.Method, rows, cols int, selects bool) cost {
	c := cost{
		shared: m.Bytes(cols, false), held: m.Bytes(cols, selects), run: m.RunBytes(rows, cols, selects),
		sharedFLOP: m.FLOP(cols, selects), flop: m.RunFLOP(rows, cols, selects),
	}
	if selects {
		c.kept = scoresCost(rows, cols).kept
	}
	return c
}

// moveColumns copies, for every k, one column of src to another of dst, exactly.
func moveColumns(dst, src *tensor.Weight, columns func(k int) (to, from int)) {
	parallel.For(src.Rows, 16, func(lo, hi int) {
		a, b := make([]float32, src.Cols), make([]float32, src.Cols)
		for i := lo; i < hi; i++ {
			src.Row(a, i)
			for k := range a {
				to, from := columns(k)
				b[to] = a[from]
			}
			dst.SetRow(i, 0, b)
		}
	})
}
