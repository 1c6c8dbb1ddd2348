package checkpoint

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// lockFile takes the lock on f that ends with this process, or fails at once.
func lockFile(f *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{})
}

// removeLocked removes a locked file, which Windows does only once it is
// closed; if another process has taken it by then, it stays.
func removeLocked(f *fsys.File) error {
	err := f.Close()
	_ = fsys.Remove(f.Name())
	return err
}

// sameDevice: EvalSymlinks has resolved mounted folders, and drives have roots.
func sameDevice(a, b string) bool { return true }

func isDiskFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
