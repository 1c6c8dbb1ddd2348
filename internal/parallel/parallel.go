// Package parallel spreads loops over the processor's cores.
//
// The number of workers is GOMAXPROCS, which crepe's --threads sets. A result
// must never depend on it: a loop body writes only what its own indices own,
// and a reduction is split into parts of a fixed size, never by worker.
package parallel

import "runtime"

// For is
//
//	f(0, n)
//
// with [0, n) cut into runs of grain indices (the last may be shorter) that
// are handed to the workers in order. It returns when all have finished. A
// panic in f is raised again in the caller.
func For(n, grain int, f func(lo, hi int)) {
	if grain < 1 {
		grain = 1
	}
	runs := (n + grain - 1) / grain
	workers := min(runtime.GOMAXPROCS(0), runs)
	if workers <= 1 {
		for lo := 0; lo < n; lo += grain {
			f(lo, min(lo+grain, n))
		}
		return
	}
	l := &loop{f: f, n: n, grain: grain, runs: runs}
	l.open(workers - 1)
	l.work()
	l.wait()
	if l.caught != nil {
		panic(l.caught)
	}
}
