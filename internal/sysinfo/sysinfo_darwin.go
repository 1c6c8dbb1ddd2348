package sysinfo

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// memory returns half of what the machine has: macOS keeps free pages few.
func memory() int64 {
	total, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(total / 2)
}

func peakRSS() int64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return u.Maxrss // bytes on macOS
}
