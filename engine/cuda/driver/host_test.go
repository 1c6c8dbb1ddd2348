//go:build linux && amd64

package driver

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/crepe-llm/crepe/engine"
)

// start starts the host program, which needs the GNU C library.
func start(t *testing.T) (h *host, library uint64) {
	t.Helper()
	h, err := startHost()
	if err != nil {
		t.Skipf("the host program does not run here: %v", err)
	}
	t.Cleanup(h.close)
	if library, err = h.open("libc.so.6"); err != nil {
		t.Fatal(err)
	}
	return h, library
}

func symbol(t *testing.T, h *host, library uint64, name string) function {
	t.Helper()
	f, err := h.symbol(library, name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCalls(t *testing.T) {
	h, c := start(t)
	if got := h.call(symbol(t, h, c, "getpid")); int(got) != h.cmd.Process.Pid {
		t.Errorf("getpid: %d, want %d", got, h.cmd.Process.Pid)
	}
	if got := h.call(symbol(t, h, c, "strlen"), h.text("a word")); got != 6 {
		t.Errorf("strlen: %d, want 6", got)
	}
	if _, err := h.symbol(c, "no_such_function"); err == nil {
		t.Error("a function that is not there: no error")
	}
	if _, err := h.open("libnothing.so"); err == nil || !strings.Contains(err.Error(), "libnothing.so") {
		t.Errorf("a library that is not there: %v", err)
	}
}

// Many callers and posts, more than the ring holds: each call gets its own result, after
// all that was posted before.
func TestCallsFromManyGoroutines(t *testing.T) {
	h, c := start(t)
	abs, memcpy := symbol(t, h, c, "labs"), symbol(t, h, c, "memcpy")
	from, err := h.share(8 << 10)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			to, err := h.share(4096)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range 1500 {
				n := -(int64(g)<<32 + int64(i))
				own := from.Data[g*1024 : (g+1)*1024]
				own[0], own[1] = byte(i), byte(i>>8)
				h.call(memcpy, to.there, from.there+uint64(g*1024), 1024)
				if got := h.call(abs, uint64(n)); got != uint64(-n) {
					t.Errorf("labs(%d) = %d", n, got)
					return
				}
				if !bytes.Equal(to.Data[:1024], own) {
					t.Errorf("goroutine %d, round %d: memory is not what was copied", g, i)
					return
				}
			}
		})
	}
	wait.Wait()
}

func TestFailureOfAPostIsKept(t *testing.T) {
	h, c := start(t)
	abs := symbol(t, h, c, "abs")
	for range 2 * slots {
		h.post(abs, 0)
	}
	if _, failed := h.failure(); failed {
		t.Fatal("posts that return 0 count as failed")
	}
	h.post(abs, 7)
	h.post(abs, 9)
	h.call(abs, 0)
	if code, failed := h.failure(); !failed || code != 7 {
		t.Errorf("failure %d, %v, want the first: 7", code, failed)
	}
}

// A host program that dies is a Failure of whoever waits.
func TestDeadHost(t *testing.T) {
	h, c := start(t)
	abort := symbol(t, h, c, "abort")
	err := func() (err error) {
		defer engine.Recover(&err)
		h.call(abort)
		return nil
	}()
	if err == nil || !strings.Contains(err.Error(), "holds the CUDA driver") {
		t.Errorf("after abort: %v", err)
	}
	h.close()
	if err := *h.dead.Load(); errors.Is(err, ErrClosed) {
		t.Errorf("the first cause is lost: %v", err)
	}
}

// The program that is embedded is that of the source beside it.
func TestHostProgramIsCompiled(t *testing.T) {
	source, err := os.ReadFile("host/host.c")
	if err != nil {
		t.Fatal(err)
	}
	of, err := os.ReadFile("host/host_amd64.source")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x\n", sha256.Sum256(source)); string(of) != want {
		t.Errorf("host_amd64 is of a host.c %s, want %s: run tools/cuda/host.sh", of, want)
	}
}

func TestArguments(t *testing.T) {
	for _, c := range []struct {
		arg  any
		want uint64
	}{
		{-1, 0xffffffff}, {int32(-2), 0xfffffffe}, {int64(-1), 1<<64 - 1}, {Pointer(5), 5}, {float32(1), 0x3f800000}, {1.0, 0x3ff0000000000000}, {true, 1},
	} {
		if got := word(c.arg); got != c.want {
			t.Errorf("word(%T %v) = %#x, want %#x", c.arg, c.arg, got, c.want)
		}
	}
}

func TestAlignment(t *testing.T) {
	if got := alignment(1024, 48); got != 16 {
		t.Errorf("alignment of 1024 and 48: %d, want 16", got)
	}
	if got := alignment(4096); got != 256 {
		t.Errorf("alignment of 4096: %d, want 256, the most that matters", got)
	}
}
