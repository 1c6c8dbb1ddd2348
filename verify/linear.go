package verify

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/allocate"
	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/tensor"
)

// checkLinears holds every Linear to the manifest and the recipe.
func (v *verifier) checkLinears(ctx context.Context) error {
	listed := map[string]prune.LinearReport{}
	for _, l := range v.manifest.Linears {
		if _, twice := listed[l.Name]; twice {
			v.foundInManifest("linears", "%s is listed twice", l.Name)
		}
		listed[l.Name] = l
	}
	targets := v.targets()
	v.bar = v.Progress.Start("verify", v.inv.WeightBytes(), "bytes")
	for b := range v.m.Blocks() {
		for _, info := range v.m.Linears(b) {
			if err := ctx.Err(); err != nil {
				return err
			}
			l, ok := listed[info.Name]
			delete(listed, info.Name)
			switch {
			case !ok:
				v.foundInManifest("linears", "%s is not listed", info.Name)
			case l.Rows != info.Rows || l.Cols != info.Cols:
				v.foundInManifest("linears", "%s is %d × %d, the manifest says %d × %d", info.Name, info.Rows, info.Cols, l.Rows, l.Cols)
			default:
				if err := v.checkLinear(info, l, targets[b]); err != nil {
					return err
				}
			}
		}
	}
	for _, l := range v.manifest.Linears {
		if _, left := listed[l.Name]; left {
			v.foundInManifest("linears", "%s is listed, the model has no such Linear", l.Name)
			delete(listed, l.Name)
		}
	}
	v.checkSparsity()
	return nil
}

// skips reports whether the recipe leaves a Linear dense.
func (v *verifier) skips(l model.LinearSpec) bool {
	return l.Gate || v.resolved.Skips(l.Name)
}

// targets returns what is to be pruned of each block.
func (v *verifier) targets() []pattern.Target {
	targets := make([]pattern.Target, v.m.Blocks())
	for b := range targets {
		targets[b] = v.resolved.Target
	}
	a, listed := v.resolved.Allocate, v.manifest.Allocation
	switch {
	case a == nil && listed == nil:
		return targets
	case a == nil || listed == nil || listed.Method != a.Name:
		v.foundInManifest("allocation", "not that of the recipe")
		return targets
	case len(listed.Blocks) != len(targets):
		v.foundInManifest("allocation", "%d blocks, the model has %d", len(listed.Blocks), len(targets))
		return targets
	}
	blocks := slices.Clone(listed.Blocks)
	for b := range blocks {
		blocks[b] = allocate.Block{Measure: blocks[b].Measure}
		for _, l := range v.m.Linears(b) {
			if !v.skips(l) {
				blocks[b].Weights += l.Rows * l.Cols
			}
		}
	}
	uniform, err := a.Allocate(blocks, v.resolved.Target.Sparsity, v.resolved.Params)
	if err != nil {
		v.foundInManifest("allocation", "%v", err)
		return targets
	}
	for b, got := range listed.Blocks {
		if want := blocks[b]; got.Weights != want.Weights || got.Sparsity != want.Sparsity {
			v.foundInManifest("allocation", "block %d has a share of %v of %d weights, %s makes it %v of %d",
				b, got.Sparsity, got.Weights, a.Name, want.Sparsity, want.Weights)
		}
		if !uniform {
			targets[b].Sparsity, targets[b].Level = blocks[b].Share, true
		}
	}
	return targets
}

// checkSparsity holds the totals to the manifest.
func (v *verifier) checkSparsity() {
	s, t := v.manifest.Sparsity, v.resolved.Target
	want := t.Sparsity.Float64()
	if t.Pattern.Of != 0 {
		want = t.Pattern.Sparsity().Float64()
	}
	if s.Target != want {
		v.foundInManifest("sparsity", "target %v, the recipe says %v", s.Target, want)
	}
	if got := share(v.result.Zeros, v.result.Weights); s.Measured != got && !(v.rounded() && got > s.Measured) {
		v.foundInManifest("sparsity", "%v measured, %d of %d weights are zero: %v", s.Measured, v.result.Zeros, v.result.Weights, got)
	}
}

func share(zeros, weights int) float64 {
	if weights == 0 {
		return 0
	}
	return float64(zeros) / float64(weights)
}

// checkLinear reads one Linear and holds it to what the manifest lists of it, to
// target and to the dense model.
func (v *verifier) checkLinear(info model.LinearSpec, l prune.LinearReport, target pattern.Target) error {
	name := info.Name + ".weight"
	w, err := read(v.inv, info, name)
	if err != nil {
		return err
	}
	v.bar.Add(int64(len(w.Bytes())))
	skips := v.skips(info)
	if l.Skipped != skips {
		v.foundInManifest("linears", "%s: skipped is %v, the recipe makes it %v", l.Name, l.Skipped, skips)
	}
	zeros := w.Zeros()
	if more := v.rounded() && zeros > l.Zeros; !more && (l.Zeros != zeros || l.Sparsity != share(zeros, l.Rows*l.Cols)) {
		v.found(name, "%d zeros (%v), the manifest says %d (%v)", zeros, share(zeros, l.Rows*l.Cols), l.Zeros, l.Sparsity)
	}
	var dense *tensor.Weight
	if t, ok := v.dense(name); ok && t.DType == w.DType && slices.Equal(t.Shape, []int{w.Rows, w.Cols}) {
		if dense, err = read(v.Dense, info, name); err != nil {
			return err
		}
	}
	if !skips {
		v.result.Linears++
		v.result.Zeros, v.result.Weights = v.result.Zeros+zeros, v.result.Weights+l.Rows*l.Cols
		v.checkParts(name, info, l, w, dense, target)
	}
	if dense != nil && !v.rounded() && (skips || !v.resolved.Rewrites()) {
		if n, i, j := changed(w, dense, !skips); n > 0 {
			v.found(name, "%d weights are not the dense model's, the first at [%d, %d]", n, i, j)
		}
	}
	return nil
}

// dense returns a tensor of the dense model, if there is one.
func (v *verifier) dense(name string) (checkpoint.Tensor, bool) {
	if v.Dense == nil || v.resolved.Rotate != nil { // in other directions no weight is the dense model's
		return checkpoint.Tensor{}, false
	}
	return v.Dense.Tensor(name)
}

func read(inv *checkpoint.Inventory, info model.LinearSpec, name string) (*tensor.Weight, error) {
	t, ok := inv.Tensor(name)
	if !ok {
		return nil, fmt.Errorf("%s: no tensor %s", inv.Dir(), name)
	}
	w := tensor.NewWeight(t.DType, info.Rows, info.Cols)
	return w, inv.Read(t, w.Bytes())
}

// checkParts counts the zeros of what was selected together: of w, or of each part
// of it. dense may be nil.
func (v *verifier) checkParts(name string, info model.LinearSpec, l prune.LinearReport, w, dense *tensor.Weight, target pattern.Target) {
	parts := []model.Part{{Hi: info.Rows}}
	if v.resolved.Split && len(info.Parts) > 0 {
		parts = info.Parts
	}
	orders := slices.Clone(l.Permuted)
	for _, p := range parts {
		where := name
		if p.Name != "" {
			where += ", part " + p.Name
		}
		var order []int
		if i := slices.IndexFunc(orders, func(o prune.Permutation) bool { return isOf(o, p) }); i >= 0 {
			order = orders[i].Order
			orders = slices.Delete(orders, i, i+1)
		}
		own := mask.NonZero(p.Take(w))
		own.Order = order
		if err := own.Verify(target, mask.AtLeast); err != nil {
			v.found(where, "zeros: %v", err)
		}
		if dense == nil || v.rounded() || v.resolved.Rewrites() {
			continue
		}
		fresh := mask.NonZero(p.Take(dense)).Without(own)
		fresh.Order = order
		if err := fresh.Verify(target, mask.AtMost); err != nil {
			v.found(where, "zeros that the dense model has not: %v", err)
		}
	}
	if len(orders) > 0 || len(l.Permuted) > 0 && v.resolved.Permute == nil {
		v.foundInManifest("linears", "%s: an order of columns that the recipe has no place for", l.Name)
	}
}

// isOf reports whether o is an order of the columns of p.
func isOf(o prune.Permutation, p model.Part) bool {
	return o.First == p.Lo && o.End == p.Hi && o.Run == p.Run && o.Step == p.Step
}

// changed returns how many weights of w are not bit for bit those of dense, and the
// first; where zeros, +0 may stand for every weight.
func changed(w, dense *tensor.Weight, zeros bool) (n, i, j int) {
	const grain = 64 // rows
	type tally struct{ n, first int }
	tallies := make([]tally, (w.Rows+grain-1)/grain)
	size := w.DType.Size()
	a, b := w.Bytes(), dense.Bytes()
	bits := func(x []byte) uint32 {
		if size == 2 {
			return uint32(binary.LittleEndian.Uint16(x))
		}
		return binary.LittleEndian.Uint32(x)
	}
	parallel.For(w.Rows, grain, func(lo, hi int) {
		t := &tallies[lo/grain]
		for k := lo * w.Cols; k < hi*w.Cols; k++ {
			x := bits(a[k*size:])
			if x == bits(b[k*size:]) || zeros && x == 0 {
				continue
			}
			if t.n++; t.n == 1 {
				t.first = k
			}
		}
	})
	for _, t := range tallies {
		if n == 0 && t.n > 0 {
			i, j = t.first/w.Cols, t.first%w.Cols
		}
		n += t.n
	}
	return n, i, j
}
