// Package faults makes every file operation of a run fail in turn, in every way,
// for tests: what is on disk then must not look like a result unless it is one, and
// going on must end as if nothing had happened.
package faults

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/crepe-llm/crepe/internal/fsys"
)

// Run is work that writes files by package fsys.
type Run struct {
	Prepare func(t *testing.T, dir string) // makes what the work begins from, in an empty folder
	Work    func(dir string) error
	GoOn    func(dir string) error // after Work failed, and as often as it is called

	// Check looks at what is there: whole says that Work or GoOn has succeeded.
	Check func(t *testing.T, dir string, whole bool)

	// Slow work has fewer of its faults tried by default.
	Slow bool
}

// All is the environment variable that, if it is not empty, makes every operation
// fail in every way; otherwise every tenth or so does. A value such as 2/8 lets the
// second eighth of the operations fail, so that several processes can share them.
const All = "CREPE_TEST_FAULTS"

// share returns which part of how many All asks for.
func share(t *testing.T) (part, parts int) {
	t.Helper()
	v := os.Getenv(All)
	if !strings.Contains(v, "/") {
		return 1, 1
	}
	if n, err := fmt.Sscanf(v, "%d/%d", &part, &parts); n != 2 || err != nil || part < 1 || part > parts {
		t.Fatalf("%s=%s, want all or a part such as 2/8", All, v)
	}
	return part, parts
}

// sampled is how many faults there are to one that is tried by default. It divides
// neither the number of kinds nor, but for chance, that of a step's operations.
const (
	sampled     = 29
	sampledSlow = 199
)

// kind is a way to fail at operation number at, one of ops or, if ops is nil, any:
// at another it would be the same as another kind, or as this at a later operation.
type kind struct {
	name  string
	ops   map[string]bool
	fault func(op string, n, at int) fsys.Fault // of operation n
}

var errKilled = errors.New("killed")

// grows says which operations need space on the disk; write is those that can be
// carried out by half.
var (
	grows = map[string]bool{"create": true, "write": true, "allocate": true, "mkdir": true}
	write = map[string]bool{"write": true}
)

var kinds = []kind{
	{"a full disk", grows, func(op string, n, at int) (f fsys.Fault) {
		if n >= at && grows[op] {
			f.Err = syscall.ENOSPC
		}
		return f
	}},
	{"an error", nil, func(_ string, n, at int) (f fsys.Fault) {
		if n == at {
			f.Err = syscall.EIO
		}
		return f
	}},
	{"a short write", write, func(op string, n, at int) (f fsys.Fault) {
		if n == at && op == "write" {
			f = fsys.Fault{Err: syscall.ENOSPC, Half: true}
		}
		return f
	}},
	{"a kill before", nil, func(_ string, n, at int) (f fsys.Fault) {
		if n >= at {
			f.Err = errKilled
		}
		return f
	}},
	{"a kill within", write, func(op string, n, at int) (f fsys.Fault) {
		if n >= at {
			f = fsys.Fault{Err: errKilled, Half: n == at && op == "write"}
		}
		return f
	}},
	{"a kill after", nil, func(_ string, n, at int) (f fsys.Fault) {
		if n >= at {
			f = fsys.Fault{Err: errKilled, Done: n == at}
		}
		return f
	}},
}

// Each runs r undisturbed, and then with a fault at each of its operations.
func (r Run) Each(t *testing.T) {
	t.Helper()
	var operations []string
	r.once(t, func(op, path string, _ int) fsys.Fault {
		operations = append(operations, op+" "+path)
		return fsys.Fault{}
	})
	if len(operations) < 10 {
		t.Fatalf("%d operations, want more to fail", len(operations))
	}
	stride, tried := sampled, 0
	if r.Slow {
		stride = sampledSlow
	}
	if os.Getenv(All) != "" {
		stride = 1
	}
	part, parts := share(t)
	for at := range operations {
		if at%parts != part-1 {
			continue
		}
		for k, kind := range kinds {
			op, _, _ := strings.Cut(operations[at], " ")
			if kind.ops != nil && !kind.ops[op] || (at*len(kinds)+k)%stride != 0 {
				continue
			}
			befell := false
			r.once(t, func(op, _ string, n int) fsys.Fault {
				f := kind.fault(op, n, at)
				befell = befell || f.Err != nil
				return f
			})
			if befell {
				tried++
			}
			if t.Failed() {
				t.Fatalf("with %s at operation %d of %d, %s", kind.name, at, len(operations), operations[at])
			}
		}
	}
	if tried == 0 {
		t.Fatal("no fault befell any operation")
	}
	t.Logf("%d operations, %d faults", len(operations), tried)
}

// once does the work with faults, goes on if it fails, and checks what is there
// after each.
func (r Run) once(t *testing.T, fault func(op, path string, n int) fsys.Fault) {
	t.Helper()
	dir, err := os.MkdirTemp("", "crepe-faults-*")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r.Prepare(t, dir)
	var mu sync.Mutex
	n, killed := -1, false
	restore := fsys.Inject(func(op, path string) fsys.Fault {
		mu.Lock()
		defer mu.Unlock()
		n++
		f := fault(op, path, n)
		killed = killed || f.Err == errKilled
		return f
	})
	err = r.Work(dir)
	restore()
	if killed && err == nil {
		err = errKilled // it did not live to say that it has finished
	}
	r.Check(t, dir, err == nil)
	if err == nil || t.Failed() {
		return
	}
	failed := err
	if err := r.GoOn(dir); err != nil {
		t.Errorf("%v\nafter %v", err, failed)
		return
	}
	r.Check(t, dir, true)
}
