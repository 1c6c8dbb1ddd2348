package prune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/fsys"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
)

// saveEvery is the least time between two copies of the hidden states: what a
// kill can cost beside the block at work, against the cost of writing them.
var saveEvery = 30 * time.Second // tests shorten it

// Copies of hidden states are named for the block that they enter, and for what
// the blocks before it are.
const (
	statesPruned = "states-pruned-block-"
	statesDense  = "states-dense-block-"
)

// states are the copies of a stream's hidden states beside the output: what an
// interrupted run goes on from.
type states struct {
	w       *checkpoint.Writer
	warn    func(format string, args ...any)
	written time.Time // of the last copy
	failing bool      // no copy can be written
}

func (c *states) path(kind string, b int) string { return c.w.ScratchPath(fmt.Sprint(kind, b)) }

// copied is a stream that is copied under a name.
type copied struct {
	*stream
	kind string
}

// save copies what enters block b, now and then.
func (c *states) save(b int, streams ...copied) error {
	s := streams[0]
	if s.store == nil || b >= s.m.Blocks() || c.failing || time.Since(c.written) < saveEvery {
		return nil
	}
	defer timed(&s.seconds.Write)()
	for _, s := range streams {
		if err := c.write(s, b); err != nil {
			return err
		}
	}
	c.written = time.Now()
	return nil
}

// write copies what enters block b in place of the older copies of that stream.
func (c *states) write(s copied, b int) error {
	path := c.path(s.kind, b)
	if err := writeSealed(path, s.store.Save); err != nil {
		// The copy saves time after a kill; the run itself can do without.
		c.warn("hidden states are not kept, a resumed run would compute them again: %v", err)
		c.failing = true
	}
	return removeOthers(path, s.kind)
}

// removeOthers removes the copies of a kind older than the one at path.
func removeOthers(path, kind string) error {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), kind) && e.Name() != filepath.Base(path) {
			if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// restore takes the stream, which is before the first block, to block b: by the
// newest copy there is, and then through those blocks of m that it has not passed.
func (c *states) restore(ctx context.Context, s *stream, kind string, b int, m func() (*model.Model, func(), error), f progress.Func) error {
	from := 0
	for at := b; at > 0 && from == 0; at-- {
		switch err := c.read(s, kind, at); {
		case err == nil:
			from = at
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if from == b {
		return nil
	}
	through, done, err := m()
	if err != nil {
		return err
	}
	defer done()
	again := &stream{m: through, seconds: s.seconds, store: s.store}
	again.start(f, "resume", 1, b-from)
	return again.each(ctx, from, b, func(ctx context.Context, b int, block *model.Block) error {
		again.phase(b, "resume")
		return again.through(ctx, block)
	})
}

// read fills the stream from the copy of what enters block b; it is fs.ErrNotExist
// if there is none that is whole.
func (c *states) read(s *stream, kind string, b int) error {
	return readSealed(c.path(kind, b), s.store.Restore, func(path string) {
		c.warn("%s: damaged; the hidden states are computed again", path)
	})
}
