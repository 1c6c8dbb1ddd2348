package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/internal/sysinfo"
)

const partialSuffix = ".crepe-partial"

// partialPath returns the folder beside target in which it is made.
func partialPath(target string) string {
	return filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+partialSuffix)
}

// resolve returns the absolute path of dir with all links followed; what does
// not exist yet is kept as it is.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(dir)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("%s: %w", dir, err)
		}
		if _, err := os.Lstat(dir); err == nil {
			return "", fmt.Errorf("%s: a link to what does not exist", dir)
		}
		rest = filepath.Join(filepath.Base(dir), rest)
		dir = filepath.Dir(dir)
	}
}

// inside reports whether path is dir or lies in it; both are resolved.
func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// CheckTarget says whether inv's pruned copy can be written to dir: what
// Create refuses, it refuses without touching anything.
func CheckTarget(dir string, inv *Inventory, overwrite bool) error {
	target, err := resolve(dir)
	if err != nil {
		return err
	}
	if there, err := Partial(dir); err != nil || there && !overwrite {
		return cmp.Or(err, partialError(dir, partialPath(target)))
	}
	_, err = checkTarget(dir, inv, overwrite)
	return err
}

// checkTarget returns the real path of the output folder, which is free to be
// written.
func checkTarget(dir string, inv *Inventory, overwrite bool) (string, error) {
	target, err := resolveTarget(dir, inv)
	if err != nil {
		return "", err
	}
	return target, checkFree(dir, target, overwrite)
}

// resolveTarget returns the real path of the output folder, whatever is there.
func resolveTarget(dir string, inv *Inventory) (string, error) {
	target, err := resolve(dir)
	if err != nil {
		return "", err
	}
	parent := filepath.Dir(target)
	if parent == target {
		return "", fmt.Errorf("output folder %s: the root of the file system", dir)
	}
	if err := apart(dir, target, inv); err != nil {
		return "", err
	}
	if _, err := os.Lstat(target); err == nil && !sameDevice(target, parent) {
		return "", fmt.Errorf("output folder %s: a mount point, which no finished folder can be renamed to: name a folder in it", dir)
	}
	return target, nil
}

// apart refuses an output in the input and an input in the output.
func apart(dir, target string, inv *Inventory) error {
	input, err := resolve(inv.dir)
	if err != nil {
		return err
	}
	switch {
	case input == target:
		return fmt.Errorf("output folder %s: the same as the input %s", dir, inv.dir)
	case inside(target, input):
		return fmt.Errorf("output folder %s: inside the input %s", dir, inv.dir)
	case inside(input, target):
		return fmt.Errorf("output folder %s: the input %s is inside it", dir, inv.dir)
	}
	for _, f := range inv.files { // links of a cache may lead there
		file, err := filepath.EvalSymlinks(f.f.Name())
		if err == nil && inside(file, target) {
			return fmt.Errorf("output folder %s: the input's file %s is inside it", dir, file)
		}
	}
	return nil
}

// partialError says that an interrupted run of the output folder dir lies in partial.
func partialError(dir, partial string) error {
	return fmt.Errorf("output folder %s: %w is in %s: continue it with --resume, or name another output folder", dir, ErrPartial, partial)
}

// Partial reports whether an interrupted run of the output folder dir has left what
// Resume can go on with.
func Partial(dir string) (bool, error) {
	target, err := resolve(dir)
	if err != nil {
		return false, err
	}
	_, err = os.Lstat(filepath.Join(partialPath(target), journalName))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	}
	return false, fmt.Errorf("output folder %s: the folder beside it in which it is made: %w", dir, err)
}

// checkFree checks that nothing is lost when a folder is renamed to target:
// there is none, it is empty, or crepe wrote it and it may be replaced.
func checkFree(dir, target string, overwrite bool) error {
	st, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("output folder %s: a file has that name", dir)
	}
	entries, err := os.ReadDir(target)
	switch {
	case err != nil:
		return err
	case len(entries) == 0:
		return nil
	case !overwrite:
		return fmt.Errorf("output folder %s: not empty (%s, …): name another, or replace it with --overwrite", dir, entries[0].Name())
	}
	if err := written(target); err != nil {
		return fmt.Errorf("output folder %s: not written by crepe (%w), so --overwrite does not replace it: it would delete %s", dir, err, few(names(entries)))
	}
	return nil
}

// FreeBytes returns the free space for this user on the file system that dir
// is on, or will be.
func FreeBytes(dir string) (int64, error) {
	dir, err := resolve(dir)
	if err != nil {
		return 0, err
	}
	for {
		if _, err := os.Stat(dir); err == nil || filepath.Dir(dir) == dir {
			return sysinfo.FreeBytes(dir)
		}
		dir = filepath.Dir(dir)
	}
}

// diskError says plainly that a disk is full, or adds what path is to err.
func diskError(path string, err error) error {
	var named *fs.PathError
	switch {
	case err == nil:
		return nil
	case isDiskFull(err):
		return fmt.Errorf("%s: disk full", path)
	case errors.As(err, &named):
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}
