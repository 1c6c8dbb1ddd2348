package prune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/rotate"
	"github.com/crepe-llm/crepe/rotate/rotated"
)

// A run with a rotation first writes the dense model in other directions, to a folder
// beside the output, and prunes that. The folder goes once the output is in its place.

// rotationPath returns that folder.
func rotationPath(output string) string {
	output = filepath.Clean(output)
	return filepath.Join(filepath.Dir(output), "."+filepath.Base(output)+".crepe-rotated")
}

// rotating reports whether an interrupted run with a rotation has left that folder, or
// part of it.
func (o *Options) rotating() (bool, error) {
	if o.Recipe.Rotate == "" {
		return false, nil
	}
	dir := rotationPath(o.Output)
	if there, err := checkpoint.Partial(dir); there || err != nil {
		return there, err
	}
	_, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// planRotation plans the rotation, if the recipe has one.
func (p *Plan) planRotation(inv *checkpoint.Inventory, m *model.Model, opt Options) error {
	r := p.resolved.Rotate
	if r == nil {
		return nil
	}
	options := p.rotationOptions()
	if options.Measure.Name() != p.resolved.Params.Text("rotate_for") {
		return fmt.Errorf("rotate_for: %s where no weight is pruned, want %s", rotate.Loss, rotate.Entropy)
	}
	var err error
	if p.rotation, err = rotated.NewPlan(inv, m, options, opt.tokens()); err != nil {
		return fmt.Errorf("rotate %s: %w", r.Name, err)
	}
	return nil
}

// rotationOptions returns how the recipe rotates.
func (p *Plan) rotationOptions() rotate.Options {
	t := p.resolved.Target
	share := t.Sparsity.Float64()
	if t.Pattern.Of != 0 {
		share = t.Pattern.Sparsity().Float64()
	}
	return rotate.OptionsOf(p.resolved.Params, share)
}

// rotate puts the rotated model in the dense one's place; hashes are the dense one's.
func (r *runner) rotate(ctx context.Context, hashes map[string]string) error {
	p := r.plan.rotation
	if p == nil || r.opt.Resume && r.finished() {
		return nil
	}
	defer timed(&r.report.Seconds.Rotate)()
	dir := rotationPath(r.opt.Output)
	res, err := r.rotatedBefore(dir)
	if err == nil && res == nil {
		for _, left := range p.Left {
			r.opt.warn("not rotated: %s", left)
		}
		res, err = rotated.Folder(ctx, r.inv, r.m, p, hashes, rotated.Options{
			Options: r.plan.rotationOptions(),
			Tokens:  r.opt.Calibration.Tokens, SeqLen: r.opt.Calibration.SeqLen, States: r.plan.Memory.place,
			Output: dir, Overwrite: r.opt.Overwrite || r.opt.Resume, Resume: r.opt.Resume, Depends: r.depends,
			Progress: r.opt.Progress, Warn: r.opt.warn,
		})
	}
	if err != nil {
		return err
	}
	r.report.Rotation = res
	if r.rotated, err = checkpoint.Open(dir); err != nil {
		return err
	}
	m, err := model.Open(r.rotated, r.m.Options())
	if err != nil {
		return err
	}
	r.inv, r.m = r.rotated, m.Plain()
	r.plan.files, err = checkpoint.NewPlan(r.inv, 0)
	return err
}

// rotatedBefore returns what an interrupted run of the same inputs and recipe has made of
// the rotation, if that is whole; else nil.
func (r *runner) rotatedBefore(dir string) (*rotated.Result, error) {
	if !r.opt.Resume {
		return nil, nil
	}
	record, err := rotated.ReadRecord(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case record.Provenance != r.depends.Key():
		return nil, fmt.Errorf("%s: of other inputs or another recipe: it cannot be resumed", dir)
	}
	return &record.Result, nil
}

// removeRotation removes the folder of the rotated model.
func (r *runner) removeRotation() error {
	if r.plan.rotation == nil {
		return nil
	}
	if r.rotated != nil {
		r.trim()
		err := r.rotated.Close()
		if r.rotated = nil; err != nil { // Windows removes no folder with open files
			return err
		}
	}
	return fsys.RemoveAll(rotationPath(r.opt.Output))
}
