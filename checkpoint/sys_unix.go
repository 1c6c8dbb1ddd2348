//go:build linux || darwin || freebsd

package checkpoint

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// lockFile takes the lock on f that ends with this process, or fails at once.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// removeLocked removes a locked file. It goes before the lock does: the other
// way round it could be another process's by then.
func removeLocked(f *fsys.File) error {
	return errors.Join(fsys.Remove(f.Name()), f.Close())
}

// sameDevice reports whether two folders are on one file system.
func sameDevice(a, b string) bool {
	var x, y unix.Stat_t
	if unix.Stat(a, &x) != nil || unix.Stat(b, &y) != nil {
		return true // the error comes when they are used
	}
	return x.Dev == y.Dev
}

func isDiskFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
