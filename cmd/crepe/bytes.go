package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// bytesFlag is a number of bytes on the command line: 16GiB, 500MB, 1e9.
type bytesFlag int64

var byteUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
}

func (b *bytesFlag) Set(s string) error {
	number, unit := s, 1.0
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			number, unit = n, u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	n := v * unit
	switch {
	case err != nil || !(n >= 1 && n < math.MaxInt64):
	case number == s && n < 1<<20:
		return fmt.Errorf("%q has no unit: want a size such as %sGiB or 500MB", s, s)
	default:
		*b = bytesFlag(n)
		return nil
	}
	return fmt.Errorf("%q, want a size such as 16GiB or 500MB", s)
}

func (b *bytesFlag) String() string {
	if *b == 0 {
		return ""
	}
	return formatBytes(int64(*b))
}

func (b *bytesFlag) Type() string { return "size" }

// formatBytes is "11.3 MB".
func formatBytes(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for ; v >= 1000 && i < len(units)-1; i++ {
		v /= 1000
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.3g %s", v, units[i])
}
