//go:build !linux && !darwin && !freebsd && !windows

package checkpoint

import (
	"errors"
	"os"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// Systems on which crepe compiles but is not tested: no lock, no look at the
// disk.

func lockFile(f *os.File) error { return nil }

func removeLocked(f *fsys.File) error { return errors.Join(fsys.Remove(f.Name()), f.Close()) }

func sameDevice(a, b string) bool { return true }

func isDiskFull(err error) bool { return false }
