package corpus

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/crepe-llm/crepe/internal/sysinfo"
)

// spool is a temporary file of unpacked documents.
type spool struct {
	f     *os.File
	w     *bufio.Writer
	size  int64
	most  int64 // bytes of it
	look  int64 // size at which the disk is looked at next
	named bool  // the file has a name still, which Close removes
}

// lookEach is how many bytes are written between two looks at the disk, and
// leaveFree how many are to be free after them.
const (
	lookEach  = 64 << 20
	leaveFree = 256 << 20
)

// newSpool makes one for what packed bytes are unpacked to.
func newSpool(packed int64) (*spool, error) {
	f, err := os.CreateTemp("", "crepe-corpus-*")
	if err != nil {
		return nil, err
	}
	// Where the system allows it the file has no name from now on: nothing is
	// left behind, however the process ends.
	named := os.Remove(f.Name()) != nil
	return &spool{
		f: f, w: bufio.NewWriterSize(f, 1<<20), named: named,
		most: min(maxUnpacked, leastUnpacked+unpackedAByte*min(packed, maxUnpacked)),
	}, nil
}

func (s *spool) Write(p []byte) (int, error) {
	if s.size += int64(len(p)); s.size > s.most {
		return 0, fmt.Errorf("more than %d bytes, which no text of that size is unpacked to", s.most)
	}
	if s.size > s.look {
		if free, err := sysinfo.FreeBytes(os.TempDir()); err == nil && free < lookEach+leaveFree {
			return 0, fmt.Errorf("%d bytes are free in %s, want %d: set TMPDIR to a folder on a larger disk", free, os.TempDir(), lookEach+leaveFree)
		}
		s.look = s.size + lookEach
	}
	n, err := s.w.Write(p)
	return n, spaceHint(err)
}

func (s *spool) finish() error { return spaceHint(s.w.Flush()) }

func (s *spool) Close() error {
	err := s.f.Close()
	if s.named {
		err = errors.Join(err, os.Remove(s.f.Name()))
	}
	return err
}

// spaceHint says what helps against a full disk.
func spaceHint(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: set TMPDIR to a folder on a larger disk", err)
	}
	return err
}
