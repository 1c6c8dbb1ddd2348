package prune

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/permute"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/update"
)

// Permutation is the order of the columns in which a Linear, or a part of it,
// holds N:M: W[:, order] and the input in the same order give the same output.
type Permutation struct {
	Part string `json:"part,omitempty"` // of a split Linear

	// Its rows: First to End-1, or, where Step is not 0, the first Run of every
	// Step of them.
	First int `json:"first_row,omitempty"`
	End   int `json:"end_row"`
	Run   int `json:"run,omitempty"`
	Step  int `json:"step,omitempty"`

	Before float64 `json:"retained_before,omitempty"` // score that is kept without it
	After  float64 `json:"retained_after,omitempty"`  // and with it
	Order  Order   `json:"order,omitempty"`           // empty: the columns as they are keep no less
}

// Order is an order of columns: position k holds column Order[k]. In JSON it is
// the base64 of little-endian 16-bit numbers, of 32-bit ones where there are more
// columns than 65536.
type Order []int

// MarshalJSON writes the base64.
func (o Order) MarshalJSON() ([]byte, error) {
	var data []byte
	for _, j := range o {
		if len(o) <= 1<<16 {
			data = binary.LittleEndian.AppendUint16(data, uint16(j))
		} else {
			data = binary.LittleEndian.AppendUint32(data, uint32(j))
		}
	}
	return json.Marshal(data)
}

// UnmarshalJSON reads it.
func (o *Order) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return fmt.Errorf("order of columns: %w", err)
	}
	*o = nil
	if len(data) <= 2<<16 {
		for ; len(data) >= 2; data = data[2:] {
			*o = append(*o, int(binary.LittleEndian.Uint16(data)))
		}
		return nil
	}
	for ; len(data) >= 4; data = data[4:] {
		*o = append(*o, int(binary.LittleEndian.Uint32(data)))
	}
	return nil
}

// permutationOf returns what is known before an order is.
func permutationOf(p model.Part) Permutation {
	return Permutation{Part: p.Name, First: p.Lo, End: p.Hi, Run: p.Run, Step: p.Step}
}

// Within reports whether p is of rows of a Linear that has so many.
func (p *Permutation) Within(rows int) bool {
	if p.First < 0 || p.First >= p.End || p.End > rows {
		return false
	}
	return p.Step == 0 || 0 < p.Run && p.Run <= p.Step && (p.End-p.First-p.Run)%p.Step == 0
}

// Take returns the rows of w that p is of.
func (p *Permutation) Take(w *tensor.Weight) *tensor.Weight {
	return model.Part{Lo: p.First, Hi: p.End, Run: p.Run, Step: p.Step}.Take(w)
}

// permuted returns the orders of l's masks; what they retain is not known.
func (m Masks) permuted(l *model.Linear) []Permutation {
	var all []Permutation
	for _, s := range m.selected(l) {
		if s.kept.Order != nil {
			all = append(all, permutationOf(s.part))
			all[len(all)-1].Order = s.kept.Order
		}
	}
	return all
}

// order returns the order in which the columns of w, the part of l that
// r.scores are of, are put for N:M, and notes it; nil: as they are.
func (r *runner) order(l *model.Linear, part model.Part, w *tensor.Weight, out *Linear) []int {
	m := r.plan.resolved.Permute
	if m == nil {
		return nil
	}
	defer timed(&r.report.Seconds.Permute)()
	blocks := m.Blocks(r.plan.resolved.Params, placeOf(l))
	res := m.Find(r.scores[:w.Rows*w.Cols], w.Rows, w.Cols, r.target.Pattern, blocks)
	p := permutationOf(part)
	p.Before, p.After, p.Order = res.Before, res.After, res.Order
	out.Permuted = append(out.Permuted, p)
	return res.Order
}

// placeOf returns where in its block l is.
func placeOf(l *model.Linear) permute.Place {
	switch {
	case l.Attention:
		return permute.Attention
	case l.Output:
		return permute.FeedForwardOut
	}
	return permute.FeedForward
}

// permuteBytes returns what permuting a rows × cols Linear takes: the search for
// an order and, where the update selects, its Gram matrix and weights in it.
func permuteBytes(r recipe.Resolved, rows, cols int) int64 {
	if r.Permute == nil {
		return 0
	}
	n := permute.Bytes(rows, cols, r.Target.Pattern)
	if r.Method.Score == nil {
		const float32Bytes = 4
		n = max(n, stats.GramBytes(cols)+float32Bytes*int64(rows)*int64(cols))
	}
	return n
}

// selectsPermuted reports whether an update selects weights among permuted
// columns.
func (r *runner) selectsPermuted(method score.Method) bool {
	return method.Score == nil && r.plan.resolved.Permute != nil
}

// selectPermuted lets the update select and change w, a part of l, with its
// columns and those of the Gram matrix in an order: that of RIA's scores, since
// an update has none before it begins. Each Linear has its own order, so what the
// Linears of an input share otherwise is made for each.
func (r *runner) selectPermuted(ctx context.Context, l *model.Linear, part model.Part, w *tensor.Weight, in *model.Input, s *stats.Input, out *Linear) error {
	scores := r.buffer(w.Rows * w.Cols)
	stop := timed(&r.report.Seconds.Score)
	err := score.RIA.Score(scores, w, s, score.RIA.Defaults())
	stop()
	if err != nil {
		return err
	}
	change, gram := r.plan.resolved.Update, s.Gram
	order := r.order(l, part, w, out)
	defer timed(&r.report.Seconds.Update)()
	to := w
	if order != nil {
		gram = gram.Permuted(order)
		to = tensor.NewWeight(w.DType, w.Rows, w.Cols)
		moveColumns(to, w, func(k int) (int, int) { return k, order[k] })
	}
	p, err := change.Prepare(gram, r.target.Pattern, r.plan.resolved.Params)
	if err != nil {
		return fmt.Errorf("input of %s: Gram %w", in.Name, err)
	}
	if p.Damped() > update.Damping {
		r.opt.warn("input of %s: Gram matrix was not positive definite; %v of its mean diagonal was added", in.Name, p.Damped())
	}
	if err := p.Run(ctx, to, nil, r.target, scores); err != nil || order == nil {
		return err
	}
	moveColumns(w, to, func(k int) (int, int) { return order[k], k })
	return nil
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

// Permuted returns how many Linears, or parts of them, were permuted, how many of
// these keep another order of columns, and by what share their retained scores
// rose in the mean.
func (r *Report) Permuted() (linears, moved int, gain float64) {
	for _, l := range r.Linears {
		for _, p := range l.Permuted {
			linears++
			if len(p.Order) > 0 {
				moved++
			}
			if p.Before > 0 {
				gain += p.After/p.Before - 1
			}
		}
	}
	return linears, moved, gain / math.Max(1, float64(linears))
}
