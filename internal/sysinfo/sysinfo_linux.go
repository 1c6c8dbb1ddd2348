package sysinfo

import (
	"os"
	"strconv"
	"strings"
)

func memory() int64 { return field("/proc/meminfo", "MemAvailable:") }

func peakRSS() int64 { return field("/proc/self/status", "VmHWM:") }

// field returns a "Name:   123 kB" line of a proc file in bytes.
func field(file, name string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
