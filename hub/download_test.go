package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestDownloadIsResumed(t *testing.T) {
	for _, noRange := range []bool{false, true} {
		f := newFakeHub(t)
		c := f.client()
		f.noRange = noRange
		f.cut = []int{300_000, 200_000}
		path, err := c.File(context.Background(), testRepo, "model.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, path), f.files["model.safetensors"].data) {
			t.Error("wrong content")
		}
		got := f.requests("GET /blob")
		if len(got) != 3 || !strings.HasSuffix(got[1], "bytes=300000-") {
			t.Errorf("requests %v, want three, the second from byte 300000 on", got)
		}
	}
}

func TestInterruptedDownloadIsResumedByTheNextRun(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	file := f.files["model.safetensors"]
	incomplete := filepath.Join(c.Cache, "models--org--name", "blobs", file.etag()+".incomplete")
	f.cut = []int{300_000}
	ctx, cancel := context.WithCancel(context.Background())
	c.Progress = func(string, int64, int64) { cancel() }
	if _, err := c.File(ctx, testRepo, "model.safetensors"); !errors.Is(err, context.Canceled) {
		t.Fatalf("err = %v, want %v", err, context.Canceled)
	}
	n := len(content(t, incomplete))
	if n == 0 || n >= len(file.data) {
		t.Fatalf("%d bytes are left of %d", n, len(file.data))
	}
	f.requests("")
	c.Progress = nil
	path, err := c.File(context.Background(), testRepo, "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(content(t, path), file.data) || exists(incomplete) {
		t.Error("wrong content, or the incomplete file is still there")
	}
	if got := f.requests("GET /blob"); len(got) != 1 || !strings.HasSuffix(got[0], fmt.Sprintf("bytes=%d-", n)) {
		t.Errorf("requests %v, want one from byte %d on", got, n)
	}
}

// A partial file may be whole already, too long, or of other content.
func TestOddPartialFiles(t *testing.T) {
	f := newFakeHub(t)
	file := f.files["model.safetensors"]
	for name, partial := range map[string][]byte{
		"whole":    file.data,
		"too long": append(slices.Clone(file.data), 'x'),
		"other":    []byte("something else"),
	} {
		c := f.client()
		blob := filepath.Join(c.Cache, "models--org--name", "blobs", file.etag())
		if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(blob+".incomplete", partial, 0o644); err != nil {
			t.Fatal(err)
		}
		f.requests("")
		path, err := c.File(context.Background(), testRepo, "model.safetensors")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(content(t, path), file.data) {
			t.Errorf("%s: wrong content", name)
		}
		if got := f.requests("GET /blob"); name == "whole" && len(got) != 0 {
			t.Errorf("whole: requests %v, want none", got)
		}
	}
}

func TestWrongChecksum(t *testing.T) {
	for _, name := range []string{"model.safetensors", "config.json"} { // SHA-256, and git's SHA-1
		f := newFakeHub(t)
		c := f.client()
		f.spoil = 1
		_, err := c.File(context.Background(), testRepo, name)
		if err == nil || !strings.Contains(err.Error(), "checksum") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: err = %v, want one about the checksum", name, err)
		}
		blobs, _ := os.ReadDir(filepath.Join(c.Cache, "models--org--name", "blobs"))
		if len(blobs) != 0 {
			t.Errorf("%s: left %v, want nothing", name, blobs)
		}
		if _, err := c.File(context.Background(), testRepo, name); err != nil {
			t.Errorf("%s: again: %v", name, err)
		}
	}
}

func TestRetries(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	notices := 0
	c.Notice = func(string) { notices++ }
	f.statuses = []int{500, 429, 503, 200}
	if _, err := c.File(context.Background(), testRepo, "config.json"); err != nil {
		t.Fatal(err)
	}
	if notices != 3 {
		t.Errorf("%d notices, want 3", notices)
	}
	f.requests("")
	f.statuses = slices.Repeat([]int{502}, 100)
	_, err := c.File(context.Background(), testRepo, "empty.txt")
	if err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("err = %v, want status 502", err)
	}
	if n := len(f.requests("GET")); n != maxAttempts {
		t.Errorf("%d attempts, want %d", n, maxAttempts)
	}
}

// What a server may get wrong while it sends a file.
func TestBadTransfers(t *testing.T) {
	f := newFakeHub(t)
	size := len(f.files["model.safetensors"].data)
	for name, tc := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"more than it said": {func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, size+1)) }, "more than 800000 bytes"},
		"another range": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-9/10")
			w.WriteHeader(http.StatusPartialContent)
		}, `Content-Range "bytes 5-9/10"`},
		"less than it said": {func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 10)) }, "10 bytes, want 800000"},
		"wait for hours": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(http.StatusTooManyRequests)
		}, "asks to wait 2h0m0s"},
		"a loop": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"x", http.StatusFound) }, "redirects"},
	} {
		c := f.client()
		f.cdn.Config.Handler = tc.serve
		if _, err := c.File(context.Background(), testRepo, "model.safetensors"); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", name, err, tc.want)
		}
	}
}

func TestDiskFull(t *testing.T) {
	if err := fmt.Errorf("x: %w", &os.PathError{Op: "write", Path: "blob", Err: syscall.ENOSPC}); !diskFull(err) {
		t.Errorf("%v is for want of space", err)
	}
	if diskFull(os.ErrPermission) {
		t.Error("a permission is no space")
	}
}

func TestConcurrentDownloadsShareTheBlob(t *testing.T) {
	f := newFakeHub(t)
	c := f.client()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := c.File(context.Background(), testRepo, "model.safetensors"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := f.requests("GET /blob"); len(got) != 1 {
		t.Errorf("requests %v, want one", got)
	}
}

func TestLockIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	told := 0
	waiting := func() { told++ }
	release, err := acquire(context.Background(), path, waiting)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if _, err := acquire(ctx, path, waiting); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a lock that is held was taken: %v", err)
	}
	release()
	again, err := acquire(context.Background(), path, waiting)
	if err != nil {
		t.Fatal(err)
	}
	again()
	if told != 1 {
		t.Errorf("told of %d waits, want 1", told)
	}
}

func TestPlaceReplacesADanglingLinkAndCopies(t *testing.T) {
	dir := t.TempDir()
	blob, local := filepath.Join(dir, "blob"), filepath.Join(dir, "local")
	if err := os.WriteFile(blob, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", local); err != nil {
		t.Skip(err)
	}
	if err := place(blob, local); err != nil {
		t.Fatal(err)
	}
	if got := content(t, local); string(got) != "x" {
		t.Errorf("content %q", got)
	}
	if err := replace(local, func(tmp string) error { return copyFile(blob, tmp) }); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(local); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v, want a regular file", info, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 2 {
		t.Errorf("left %v", left)
	}
}
