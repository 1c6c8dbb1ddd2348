//go:build unix && !solaris && !aix

package hub

import (
	"os"
	"syscall"
)

// tryLock takes an exclusive lock on f. Closing f releases it.
func tryLock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return errLocked
	}
	return err
}
