package prune

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/recipe"
)

// IncompleteError says that a run ended early and where what it has done lies.
type IncompleteError struct {
	Folder string // beside the output; Options.Resume goes on with it
	Err    error
}

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%v\n(finished work is kept in %s: the same command with --resume continues)", e.Err, e.Folder)
}

func (e *IncompleteError) Unwrap() error { return e.Err }

// Check looks at the output's place before anything slow begins: it must be
// free, writable and large enough, and no other recipe may lie beside it.
func (p *Plan) Check(inv *checkpoint.Inventory, opt Options) error {
	resumes, err := opt.resumes()
	if err == nil {
		err = checkpoint.CheckTarget(opt.Output, inv, opt.Overwrite || resumes)
	}
	if err != nil {
		return err
	}
	if there, err := opt.rotating(); err != nil || there && !opt.Overwrite && !resumes {
		return cmp.Or(err, fmt.Errorf("output folder %s: an interrupted run is in %s: continue it with --resume, or name another output folder", opt.Output, rotationPath(opt.Output)))
	}
	if err := fits(RecipePath(opt.Output) + fsys.PartialSuffix); err != nil {
		return fmt.Errorf("output folder %s: the recipe beside it: %w", opt.Output, err)
	}
	if err := p.checkRecipe(opt); err != nil {
		return err
	}
	dir, err := writable(opt.Output)
	if err != nil {
		return err
	}
	if opt.Resume {
		return nil // the space is taken already
	}
	need := p.Disk.Output + p.Disk.Packed
	if p.Memory.Spill {
		need += p.Memory.Hidden
	}
	if p.rotation != nil {
		need += p.rotation.Files.Bytes()
	}
	if free, err := checkpoint.FreeBytes(dir); err == nil && free < need {
		return fmt.Errorf("output folder %s: the run needs %d bytes of disk, %d are free", opt.Output, need, free)
	}
	return nil
}

// resumes reports whether Options.Resume finds an interrupted run or a finished
// output, which is then judged by what it was made from.
func (o *Options) resumes() (bool, error) {
	if !o.Resume {
		return false, nil
	}
	if there, err := checkpoint.Partial(o.Output); there || err != nil {
		return there, err
	}
	if there, err := o.rotating(); there || err != nil {
		return there, err
	}
	_, err := ReadManifest(o.Output)
	return err == nil, nil
}

// fits returns an error if no file could have that path, whether there is one or not.
func fits(path string) error {
	if _, err := os.Lstat(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// checkRecipe keeps a run from writing over a recipe that somebody wrote.
func (p *Plan) checkRecipe(opt Options) error {
	path := RecipePath(opt.Output)
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("recipe %s: a link or a folder, and the run's recipe is to be written there", path)
	case opt.Overwrite || opt.Resume:
		return nil
	}
	if there, err := recipe.Read(path); err == nil {
		asked, used := p.asked(opt), p.used(opt)
		if asked.Eval.Windows == 0 { // all: how many those are is not known before the text is read
			there.Eval.Windows, used.Eval.Windows = 0, 0
		}
		if there.Equal(asked) || there.Equal(used) {
			return nil
		}
	}
	return fmt.Errorf("recipe %s: there is another already: name another output, or replace it with --overwrite", path)
}

// writable returns the folder that the output's folders are made in, or the
// nearest above it that exists, if files can be made there.
func writable(output string) (string, error) {
	dir, err := filepath.Abs(filepath.Dir(filepath.Clean(output)))
	if err != nil {
		return "", err
	}
	for {
		_, err := os.Stat(dir)
		if err == nil || filepath.Dir(dir) == dir {
			break
		}
		dir = filepath.Dir(dir)
	}
	probe, err := fsys.MkdirTemp(dir, ".crepe-probe-")
	if err != nil {
		return "", fmt.Errorf("output folder %s: cannot be written: %w", output, err)
	}
	return dir, fsys.Remove(probe)
}
