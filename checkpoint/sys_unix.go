//go:build linux || darwin || freebsd

package checkpoint

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lockFile takes the lock on f that ends with this process, or fails at once.
func lockFile(f *os.File) error {
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// removeLocked removes a locked file. It goes before the lock does: the other
// way round it could be another process's by then.
func removeLocked(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
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

// syncDir makes names created in or renamed to dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	// Some network file systems cannot; they write names at once.
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}
