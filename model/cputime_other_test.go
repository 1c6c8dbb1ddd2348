//go:build !unix

package model

import "time"

var began = time.Now()

// cpuSeconds returns the time since the start: that on a processor, if nothing
// else runs.
func cpuSeconds() float64 { return time.Since(began).Seconds() }
