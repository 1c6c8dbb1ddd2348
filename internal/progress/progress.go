// Package progress lets long steps say how far they are, without knowing who listens.
package progress

// Update is the state of one step.
type Update struct {
	Phase       string // "block 3/32: calibrate"
	Done, Total int64  // in Unit
	Unit        string // "sequences", "bytes"
}

// Func receives updates from one goroutine at a time, often: it must be quick.
// A nil Func receives nothing.
type Func func(Update)

// Start begins a step and reports it.
func (f Func) Start(phase string, total int64, unit string) *Bar {
	b := &Bar{f: f, u: Update{Phase: phase, Total: total, Unit: unit}}
	b.Add(0)
	return b
}

// Bar is one step under way.
type Bar struct {
	f Func
	u Update
}

// Add reports n more units as done.
func (b *Bar) Add(n int64) { b.Set(b.u.Done + n) }

// Set reports done units as done.
func (b *Bar) Set(done int64) {
	b.u.Done = done
	if b.f != nil {
		b.f(b.u)
	}
}

// Phase renames the step, which goes on counting.
func (b *Bar) Phase(phase string) {
	b.u.Phase = phase
	b.Add(0)
}
