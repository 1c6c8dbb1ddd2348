// Package progress lets long steps report how far they are, without knowing who listens.
package progress

// Update is the state of one step.
type Update struct {
	Phase       string // "block 3 of 32: calibrate"
	Done, Total int64  // of the whole step, in Unit
	Unit        string // "sequences", "bytes"

	// Of the part of the step that Phase names: 40 of 128 sequences, where the step
	// counts each sequence once for every block. Done and Total, if it has no parts.
	PartDone, PartTotal int64
}

// Func receives updates from one goroutine at a time, often: it must be quick.
// A nil Func receives nothing.
type Func func(Update)

// Start begins a step and reports it.
func (f Func) Start(phase string, total int64, unit string) *Bar {
	b := &Bar{f: f, u: Update{Phase: phase, Total: total, Unit: unit, PartTotal: total}}
	b.Add(0)
	return b
}

// Bytes returns a function that reports a step of bytes: how many are done, of the
// total that its first call knows. The step begins with that call.
func (f Func) Bytes(phase string) func(done, total int64) {
	var b *Bar
	return func(done, total int64) {
		if b == nil {
			b = f.Start(phase, total, "bytes")
		}
		b.Set(done)
	}
}

// Bar is one step under way.
type Bar struct {
	f    Func
	u    Update
	from int64 // Done where the part began
}

// Add reports n more units as done.
func (b *Bar) Add(n int64) { b.Set(b.u.Done + n) }

// Set reports done units as done.
func (b *Bar) Set(done int64) {
	b.u.Done, b.u.PartDone = done, done-b.from
	if b.f != nil {
		b.f(b.u)
	}
}

// Phase renames the step or its part, which goes on counting.
func (b *Bar) Phase(phase string) {
	b.u.Phase = phase
	b.Add(0)
}

// Part begins the next part of the step, which has so many of the step's units.
func (b *Bar) Part(phase string, total int64) {
	b.u.Phase, b.u.PartTotal, b.from = phase, total, b.u.Done
	b.Add(0)
}
