//go:build linux && amd64

package driver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/crepe-llm/crepe/engine"
)

// host is the program that holds the driver (see host/host.c), under way. Commands
// are run one after another, in the order in which they were posted.
type host struct {
	cmd     *exec.Cmd
	bulk    *os.File // what it and this program share beside the commands
	dead    atomic.Pointer[error]
	control []byte
	header  *header

	calling sync.Mutex // one call waits at a time

	mu    sync.Mutex
	head  uint64 // commands posted
	words int    // 8-byte words that are handed out, behind the slots
	kept  int    // those that stay so, at their end
	size  int64  // of bulk
}

type function uint64

// The layout of host.c.
const (
	slots    = 4096
	slotArgs = 58
	slotSize = 8 * (6 + slotArgs)
	pageSize = 4096
	wordsAt  = pageSize + slots*slotSize
	wordsMax = 1 << 17 // 1 MiB
)

const (
	opCall = iota
	opPost
	opLaunch
)

type header struct {
	base                   uint64
	dlopen, dlsym, dlerror uint64
	mapMemory              uint64
	failed                 uint64
	failure                int64
	alive                  uint64
	result                 uint64
	_                      [56]byte
	head                   uint64
	_                      [120]byte
	tail                   uint64
	asleep                 uint32
}

type slot struct {
	op, f, n uint64
	_        [3]uint64
	args     [slotArgs]uint64
}

// startHost starts the program.
func startHost() (*host, error) {
	program, err := memory("crepe-cuda", int64(len(hostProgram)))
	if err != nil {
		return nil, err
	}
	defer program.Close()
	if _, err := program.WriteAt(hostProgram, 0); err != nil {
		return nil, err
	}
	control, err := memory("crepe-cuda-control", wordsAt+8*wordsMax)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	h := &host{}
	if h.bulk, err = memory("crepe-cuda-bulk", 0); err != nil {
		return nil, err
	}
	if h.control, err = unix.Mmap(int(control.Fd()), 0, wordsAt+8*wordsMax, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, err
	}
	h.header = (*header)(unsafe.Pointer(&h.control[0]))
	h.cmd = exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), program.Fd()))
	h.cmd.Args = []string{"crepe-cuda"}
	h.cmd.Stderr = os.Stderr
	h.cmd.ExtraFiles = []*os.File{control, h.bulk}
	if err := h.cmd.Start(); err != nil {
		return nil, fmt.Errorf("the program that holds the CUDA driver does not start: %w (it is dynamic: it needs the GNU C library, as the driver does)", err)
	}
	go func() {
		err := h.cmd.Wait()
		if err == nil {
			err = errors.New("it ended")
		}
		err = fmt.Errorf("the program that holds the CUDA driver: %w", err)
		h.dead.Store(&err)
	}()
	for begun := time.Now(); atomic.LoadUint64(&h.header.alive) == 0; time.Sleep(100 * time.Microsecond) {
		if err := h.dead.Load(); err != nil {
			return nil, *err
		}
		if time.Since(begun) > 30*time.Second {
			h.close()
			return nil, errors.New("the program that holds the CUDA driver says nothing for 30 s")
		}
	}
	return h, nil
}

// memory returns an unnamed file of that size in memory.
func memory(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// close ends the program; what it held of the device is given back.
func (h *host) close() {
	err := ErrClosed
	h.dead.CompareAndSwap(nil, &err)
	_ = h.cmd.Process.Kill()
}

// put posts a command and returns its number, from 1 on.
func (h *host) put(op uint64, f function, args []uint64) uint64 {
	if len(args) > slotArgs {
		panic(fmt.Sprintf("driver: %d arguments, want at most %d", len(args), slotArgs))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.head-atomic.LoadUint64(&h.header.tail) >= slots-1 {
		h.check()
		time.Sleep(20 * time.Microsecond)
	}
	s := (*slot)(unsafe.Pointer(&h.control[pageSize+int(h.head%slots)*slotSize]))
	s.op, s.f, s.n = op, uint64(f), uint64(len(args))
	copy(s.args[:], args)
	h.head++
	atomic.StoreUint64(&h.header.head, h.head)
	if atomic.LoadUint32(&h.header.asleep) != 0 {
		_, _, _ = unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&h.header.asleep)), 1 /* wake */, 1, 0, 0, 0)
	}
	return h.head
}

// check panics if the program has ended.
func (h *host) check() {
	if err := h.dead.Load(); err != nil {
		panic(&engine.Failure{Err: *err})
	}
}

// post has f called; a result that is not 0 is noted (see failure).
func (h *host) post(f function, args ...uint64) { h.put(opPost, f, args) }

// launch is post of cuLaunchKernel, whose first nine arguments are the kernel, its
// grid, its blocks, their shared memory and the stream; the rest is the kernel's own.
func (h *host) launch(f function, args ...uint64) { h.put(opLaunch, f, args) }

// call calls f and returns its result. All that was posted before has been called then.
func (h *host) call(f function, args ...uint64) uint64 {
	h.calling.Lock()
	defer h.calling.Unlock()
	n := h.put(opCall, f, args)
	for spins := 0; atomic.LoadUint64(&h.header.tail) < n; spins++ {
		if spins > 1000 {
			h.check()
			time.Sleep(20 * time.Microsecond)
		} else if spins > 100 {
			runtime.Gosched()
		}
	}
	return atomic.LoadUint64(&h.header.result)
}

// failure returns what the first posted command returned that did not return 0.
func (h *host) failure() (code int, failed bool) {
	if atomic.LoadUint64(&h.header.failed) == 0 {
		return 0, false
	}
	return int(atomic.LoadInt64(&h.header.failure)), true
}

// word returns 8 bytes that f may write to: their address there, and here. They are
// handed out again after a hundred thousand others; what is to stay comes from reserve.
func (h *host) word() (there uint64, here *uint64) {
	at := h.take(1)
	return h.header.base + uint64(at), (*uint64)(unsafe.Pointer(&h.control[at]))
}

// take hands n words out and returns where they are.
func (h *host) take(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.words+n > wordsMax-h.kept {
		h.words = 0
	}
	h.words += n
	return wordsAt + 8*(h.words-n)
}

// reserve hands bytes out for good, and returns their address there.
func (h *host) reserve(n int) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept += (n + 7) / 8
	if h.kept > wordsMax/2 {
		panic("driver: too many descriptions of matrices")
	}
	return h.header.base + uint64(wordsAt+8*(wordsMax-h.kept))
}

// text writes s where the program reads it.
func (h *host) text(s string) uint64 {
	at := h.take(len(s)/8 + 1)
	n := copy(h.control[at:], s)
	h.control[at+n] = 0
	return h.header.base + uint64(at)
}

// at returns the words at an address there, and what follows.
func (h *host) at(there uint64) []byte { return h.control[there-h.header.base:] }

// open opens a library by its path or name.
func (h *host) open(name string) (uint64, error) {
	const now, global = 2, 0x100
	handle := h.call(function(h.header.dlopen), h.text(name), now|global)
	if handle == 0 {
		return 0, fmt.Errorf("library %s cannot be opened", name)
	}
	return handle, nil
}

// symbol returns a function of an open library.
func (h *host) symbol(library uint64, name string) (function, error) {
	f := h.call(function(h.header.dlsym), library, h.text(name))
	if f == 0 {
		return 0, fmt.Errorf("library has no function %s", name)
	}
	return function(f), nil
}

// share returns memory that both programs see.
func (h *host) share(n int) (Shared, error) {
	n = (n + pageSize - 1) / pageSize * pageSize
	h.mu.Lock()
	at := h.size
	err := h.bulk.Truncate(at + int64(n))
	if err == nil {
		h.size += int64(n)
	}
	h.mu.Unlock()
	if err != nil {
		return Shared{}, err
	}
	here, err := unix.Mmap(int(h.bulk.Fd()), at, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return Shared{}, err
	}
	there := h.call(function(h.header.mapMemory), uint64(at), uint64(n))
	if e := int64(there); e < 0 && e > -4096 {
		return Shared{}, fmt.Errorf("mmap of %d bytes: error %d", n, -e)
	}
	return Shared{Data: here, there: there}, nil
}

// peek reads a C string at any address there.
func (h *host) peek(there uint64) string {
	var b []byte
	for len(b) < 256 {
		// strlen and memcpy would do; the program has neither, but the kernel copies.
		c := make([]byte, 64)
		local := []unix.Iovec{{Base: &c[0], Len: uint64(len(c))}}
		remote := []unix.RemoteIovec{{Base: uintptr(there) + uintptr(len(b)), Len: len(c)}}
		n, err := unix.ProcessVMReadv(h.cmd.Process.Pid, local, remote, 0)
		if err != nil || n == 0 {
			break
		}
		for i, v := range c[:n] {
			if v == 0 {
				return string(append(b, c[:i]...))
			}
		}
		b = append(b, c[:n]...)
	}
	if len(b) == 0 {
		return "unknown"
	}
	return string(b)
}
