//go:build unix

package model

import "syscall"

// cpuSeconds returns the time that the process has been on a processor: what
// its work takes, whatever else the machine does.
func cpuSeconds() float64 {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
