package prune

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/pack"
)

// A run that packs completes the plain output, in the partial folder, packs it there,
// and renames the packed one. So the output appears packed or not at all, and an
// interrupted packing begins anew from what is complete.

// planPacking counts what the packed output takes, and refuses values of the weights'
// own type where too few weights are pruned for any Linear to become smaller.
func (p *Plan) planPacking(inv *checkpoint.Inventory, opt Options) error {
	if opt.Pack == nil {
		return nil
	}
	// A Linear is packed if it is smaller so. The rest is what four tensors, or five, have
	// more than one in headers and in the record of the packing.
	p.Disk.Packed = p.Disk.Output + entryBytes
	least, smaller := math.Inf(1), false
	for _, l := range p.Linears {
		p.Disk.Packed += 8 * int64(len(l.Name)+entryBytes)
		t, ok := inv.Tensor(l.Name + ".weight")
		if !ok { // rotated or not, it has the names of the dense one
			return fmt.Errorf("%s: no tensor %s.weight", inv.Dir(), l.Name)
		}
		size := int64(0)
		for _, part := range checkpoint.PackedLayout(t, *opt.Pack, l.Rows*l.Cols-l.Pruned) {
			size += part.Size
		}
		smaller = smaller || size < t.Size
		least = min(least, float64(size)/float64(t.Size))
	}
	if opt.Pack.Bits == 0 && !smaller && opt.Recipe.Allocate == "" {
		return fmt.Errorf("pack: no Linear would be smaller in packed form, at best %.3f of its size: prune more, or pack integers", least)
	}
	return nil
}

// entryBytes is more than a tensor's entry in a header takes beside its name.
const entryBytes = 256

// pack writes the finished output to dir in packed form.
func (r *runner) pack(ctx context.Context, dir string) error {
	inv, m, err := r.openPruned()
	if err != nil {
		return err
	}
	defer inv.Close()
	r.report.Packed, err = pack.Folder(ctx, inv, m, pack.Options{
		Integers: *r.opt.Pack, Output: dir, Overwrite: true, Progress: r.opt.Progress,
	})
	return err
}

// packed returns what is packed of an output that is finished already, and an error
// unless it is in the form that is asked for.
func (r *runner) packed() (*pack.Result, error) {
	inv, err := checkpoint.Open(r.opt.Output)
	if err != nil {
		return nil, err
	}
	defer inv.Close()
	switch form := pack.FormOf(inv); {
	case r.opt.Pack == nil && form == nil:
		return nil, nil
	case r.opt.Pack == nil:
		return nil, fmt.Errorf("output folder %s: finished already, and packed: unpack it by crepe unpack, or name another output folder", r.opt.Output)
	case form == nil:
		return nil, fmt.Errorf("output folder %s: finished already, and plain: pack it by crepe pack, or name another output folder", r.opt.Output)
	case *form != *r.opt.Pack:
		return nil, errors.New("output folder " + r.opt.Output + ": finished already, and packed in another form: name another output folder")
	}
	return pack.Count(inv)
}
