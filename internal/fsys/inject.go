package fsys

import "sync/atomic"

// Fault is what befalls an operation; the zero value, nothing.
type Fault struct {
	Err  error // what it returns instead
	Done bool  // it is carried out all the same
	Half bool  // a write writes the first half of its bytes
}

// injected is asked for the fault of each operation; nil outside tests.
var injected atomic.Pointer[func(op, path string) Fault]

// Inject lets f decide, before each operation, what befalls it. op is create, open,
// write, allocate, truncate, sync, close, mkdir, remove or rename. For tests, in one
// process at a time.
func Inject(f func(op, path string) Fault) (restore func()) {
	before := injected.Swap(&f)
	return func() { injected.Store(before) }
}

// Ask returns what befalls an operation. It is for tests that make operations fail
// which are not this package's.
func Ask(op, path string) Fault {
	if f := injected.Load(); f != nil {
		return (*f)(op, path)
	}
	return Fault{}
}

// unsynced is set by tests alone.
var unsynced atomic.Bool

// WithoutSync lets the syncs of this process ask for their faults and do nothing else,
// from now on. For tests: small files wait most of the time for their syncs, which are
// for a loss of power, and no test makes one.
func WithoutSync() { unsynced.Store(true) }

// Syncs reports whether syncs are carried out.
func Syncs() bool { return !unsynced.Load() }

// sync is do of a sync.
func sync(path string, operation func() error) error {
	return do("sync", path, func() error {
		if !Syncs() {
			return nil
		}
		return operation()
	})
}

// do carries out an operation unless a fault befalls it.
func do(op, path string, operation func() error) error {
	f := Ask(op, path)
	if f.Err == nil || f.Done {
		if err := operation(); err != nil {
			return err
		}
	}
	return f.Err
}

// write is do of a write.
func (f *File) write(p []byte, write func([]byte) (int, error)) (int, error) {
	fault := Ask("write", f.Name())
	switch {
	case fault.Err == nil:
		return write(p)
	case fault.Done:
	case fault.Half:
		p = p[:len(p)/2]
	default:
		return 0, fault.Err
	}
	n, err := write(p)
	if err == nil {
		err = fault.Err
	}
	return n, err
}
