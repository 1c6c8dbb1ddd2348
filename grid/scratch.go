package grid

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// Abandoned is for how long nothing is written to a folder before it is another
// program's that nobody will continue or is measuring.
const Abandoned = 24 * time.Hour

// programDigits of a program's hash are enough for a folder's name.
const programDigits = 12 // as cellName has them

// cellName matches the name of a cell's folder; builds before this did not name the
// program.
var cellName = regexp.MustCompile(`^([0-9a-f]{12}-)?[0-9a-f]{24}$`)

// folder is where the model of the cell with a key lies until it is measured. Its
// name says which program makes it, as no other continues it.
func (g *runner) folder(key string) string {
	return filepath.Join(g.opt.Scratch, g.program+"-"+key)
}

// sweep removes what other programs have left in the scratch folder and abandoned.
// It refuses a link in that folder's place: what it leads to is not crepe's.
func (g *runner) sweep(now time.Time) error {
	err := fsys.OwnDir(g.opt.Scratch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(g.opt.Scratch)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(g.opt.Scratch, e.Name())
		if !e.IsDir() || !cellName.MatchString(e.Name()) || strings.HasPrefix(e.Name(), g.program+"-") || now.Sub(Written(path)) < Abandoned {
			continue
		}
		g.opt.Warn("%s: removed: a model that another build of crepe has left unmeasured", path)
		if err := fsys.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// Written returns when something below path was last changed.
func Written(path string) (last time.Time) {
	_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil // another process removes it
		}
		if st, err := e.Info(); err == nil && st.ModTime().After(last) {
			last = st.ModTime()
		}
		return nil
	})
	return last
}
