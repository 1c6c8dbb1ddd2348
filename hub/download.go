package hub

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/crepe-llm/crepe/internal/sysinfo"
)

// blobName is what an etag must look like to name a file.
var blobName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$`)

// fetch returns the file of a commit, from the cache or the hub. size is what the
// hub says that it has, −1 if it does not; m may be nil.
func (c *Client) fetch(ctx context.Context, r Repo, commit, path string, size int64, m *meta) (string, error) {
	local := filepath.Join(c.root(r), "snapshots", commit, filepath.FromSlash(path))
	switch have, ok := sizeOf(local); {
	case ok && (size < 0 || have == size):
		return local, nil
	case ok:
		c.notice("%s: %d bytes in the cache, but %d on the hub: fetched again", path, have, size)
	}
	if m == nil {
		got, err := c.head(ctx, r, commit, path)
		if err != nil {
			return "", fmt.Errorf("hub %s %s: %s: %w", r.Kind, r, path, err)
		}
		m = &got
	}
	if err := c.store(ctx, r, commit, path, *m, local); err != nil {
		if diskFull(err) {
			err = fmt.Errorf("%w: %d bytes are wanted: free them, or set HF_HOME to a folder on a larger disk", err, m.size)
		}
		return "", fmt.Errorf("hub %s %s: %s: %w", r.Kind, r, path, err)
	}
	return local, nil
}

// diskFull reports whether err is for want of space, which Windows calls
// ERROR_DISK_FULL (112).
func diskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || runtime.GOOS == "windows" && errors.Is(err, syscall.Errno(112))
}

// store downloads a file unless its blob is there, and makes local refer to it.
func (c *Client) store(ctx context.Context, r Repo, commit, path string, m meta, local string) error {
	if err := c.room(m.size); err != nil {
		return err
	}
	blob := filepath.Join(c.root(r), "blobs", m.blob(path))
	lock := filepath.Join(c.Cache, ".locks", r.folder(), m.blob(path)+".lock")
	for _, p := range []string{blob, local, lock} {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
	}
	unlock, err := acquire(ctx, lock, func() { c.notice("%s: waiting for another process that fetches it", path) })
	if err != nil {
		return err
	}
	defer unlock()
	if have, ok := sizeOf(blob); !ok || m.size >= 0 && have != m.size {
		if err := c.download(ctx, r, commit, path, m, blob); err != nil {
			return err
		}
	}
	return place(blob, local)
}

// download makes blob hold the file, by way of blob.incomplete, which an
// interrupted download leaves for the next. One that was resumed and has the
// wrong checksum is fetched once more from its beginning.
func (c *Client) download(ctx context.Context, r Repo, commit, path string, m meta, blob string) error {
	incomplete := blob + ".incomplete"
	for {
		resumed, err := c.complete(ctx, r, commit, path, m, incomplete)
		if errors.Is(err, errOtherSize) && resumed {
			if err := os.Remove(incomplete); err != nil { // what was there is of another file
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		err = verify(ctx, incomplete, m)
		if err == nil {
			return os.Rename(incomplete, blob)
		}
		if ctx.Err() != nil {
			return err
		}
		if err := os.Remove(incomplete); err != nil {
			return err
		}
		if !resumed {
			return err
		}
		c.notice("%s: %v; again from the beginning", path, err)
	}
}

// progressBytes is what an attempt must bring for the count of attempts to
// begin anew: a server that sends a byte each time does not keep us for ever.
const progressBytes = 1 << 20

// complete appends to file what it lacks. It reports whether any of the content
// was there before.
func (c *Client) complete(ctx context.Context, r Repo, commit, path string, m meta, file string) (resumed bool, err error) {
	flags := os.O_WRONLY | os.O_CREATE
	if st, err := os.Lstat(file); err != nil || !st.Mode().IsRegular() {
		// A link in a cache that others can write to may lead to any file.
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		flags |= os.O_EXCL
	}
	f, err := os.OpenFile(file, flags, 0o644)
	if err != nil {
		return false, err
	}
	defer f.Close()
	at, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	if at > 0 && (m.size < 0 || at > m.size) {
		at = 0
	}
	resumed = at > 0
	err = c.retry(ctx, path, func() (bool, error) {
		before := at
		if at == m.size && at > 0 {
			return false, f.Truncate(at)
		}
		var err error
		at, err = c.transfer(ctx, r, commit, path, m, f, at)
		return at-before >= progressBytes, err
	})
	if err != nil {
		return resumed, c.explain(r, path, err)
	}
	if err := f.Sync(); err != nil {
		return resumed, err
	}
	return resumed, f.Close()
}

// errOtherSize is the error of an answer that is not as long as it should be.
var errOtherSize = errors.New("the size is not the one that the hub said")

// maxUnsized bounds a file whose size the hub does not say: no weights are.
const maxUnsized = 64 << 20 // bytes

// most returns how many bytes a file may have.
func (m meta) most() int64 {
	if m.size < 0 {
		return maxUnsized
	}
	return m.size
}

// blob returns the name of the blob of a file. An etag that is no checksum, as the
// hub itself sends none, may be that of several files: the path is in the name then.
func (m meta) blob(path string) string {
	if newHash(m.etag, 0) != nil {
		return m.etag
	}
	sum := sha256.Sum256([]byte(m.etag + "\x00" + path))
	return hex.EncodeToString(sum[:])
}

// room returns an error if the cache's disk has not so many bytes free.
func (c *Client) room(size int64) error {
	dir := c.Cache
	for !exists(dir) && filepath.Dir(dir) != dir {
		dir = filepath.Dir(dir)
	}
	free, err := sysinfo.FreeBytes(dir)
	if err != nil || free >= size {
		return nil // an unknown disk is as good as any
	}
	return fmt.Errorf("%s: %w: %d bytes are free", c.Cache, syscall.ENOSPC, free)
}

// sizeOf returns the size of a file, through links.
func sizeOf(path string) (int64, bool) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, false
	}
	return st.Size(), true
}

var errStalled = fmt.Errorf("no data for %s", stallTimeout)

// transfer makes one request for the bytes of the file from at on and writes
// them to f. It returns how many are there now.
func (c *Client) transfer(ctx context.Context, r Repo, commit, path string, m meta, f *os.File, at int64) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	resp, err := c.do(ctx, http.MethodGet, c.resolveURL(r, commit, path), at)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusRequestedRangeNotSatisfiable || err == nil && at > 0 && isPart(resp) && !isPartFrom(resp, at) {
		if err == nil {
			resp.Body.Close()
		}
		at = 0
		resp, err = c.do(ctx, http.MethodGet, c.resolveURL(r, commit, path), 0)
	}
	if err != nil {
		return at, err
	}
	defer resp.Body.Close()
	switch {
	case !isPart(resp):
		at = 0 // the server sends the whole file
	case !isPartFrom(resp, at):
		return at, fmt.Errorf("asked for all bytes, got Content-Range %s", c.quoted(resp.Header.Get("Content-Range"), 60))
	}
	// A part may end early, and the rest is asked for then.
	if n := resp.ContentLength; n >= 0 && (at+n > m.most() || m.size >= 0 && at+n != m.size && !isPart(resp)) {
		return at, fmt.Errorf("%w: %d bytes, want %d", errOtherSize, at+n, m.most())
	}
	if err := f.Truncate(at); err != nil {
		return at, err
	}
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return at, err
	}
	stall := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	defer stall.Stop()
	buf := make([]byte, 256<<10)
	for {
		n, readErr := resp.Body.Read(buf)
		stall.Reset(stallTimeout)
		if at+int64(n) > m.most() {
			return at, fmt.Errorf("%w: more than %d bytes", errOtherSize, m.most())
		}
		if _, err := f.Write(buf[:n]); err != nil {
			return at, err
		}
		at += int64(n)
		if n > 0 && c.Progress != nil {
			c.Progress(path, at, m.size)
		}
		switch {
		case readErr == io.EOF && m.size >= 0 && at < m.size:
			return at, &networkError{fmt.Errorf("%d of %d bytes: %w", at, m.size, io.ErrUnexpectedEOF)}
		case readErr == io.EOF:
			return at, nil
		case readErr != nil && context.Cause(ctx) == errStalled:
			return at, &networkError{errStalled}
		case readErr != nil:
			return at, networkProblem(readErr)
		}
	}
}

func isPart(resp *http.Response) bool { return resp.StatusCode == http.StatusPartialContent }

// isPartFrom reports whether a part begins with byte at.
func isPartFrom(resp *http.Response, at int64) bool {
	return strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", at))
}

// newHash returns the hash that etag is of a file of size bytes, nil if it is none.
func newHash(etag string, size int64) hash.Hash {
	if _, err := hex.DecodeString(etag); err != nil {
		return nil
	}
	switch len(etag) {
	case 64:
		return sha256.New()
	case 40:
		h := sha1.New()
		fmt.Fprintf(h, "blob %d\x00", size)
		return h
	}
	return nil
}

// verify compares the file with its etag: SHA-256 of the content (64 hex
// digits) or git's hash of it (40), SHA-1 of "blob <size>\x00" and the content.
// An etag of another form, which the hub itself does not send, cannot be
// checked.
func verify(ctx context.Context, file string, m meta) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if m.size >= 0 && info.Size() != m.size {
		return fmt.Errorf("%d bytes, want %d", info.Size(), m.size)
	}
	h := newHash(m.etag, info.Size())
	if h == nil {
		return nil
	}
	buf := make([]byte, 1<<20)
	for {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != strings.ToLower(m.etag) {
		return fmt.Errorf("checksum %s, want %s: damaged on the way", got, m.etag)
	}
	return nil
}

// place makes local refer to blob: by a relative symbolic link, else (Windows
// without the right to make one) a hard link, else a copy.
func place(blob, local string) error {
	target, err := filepath.Rel(filepath.Dir(local), blob)
	if err != nil {
		return err
	}
	for _, link := range []func(tmp string) error{
		func(tmp string) error { return os.Symlink(target, tmp) },
		func(tmp string) error { return os.Link(blob, tmp) },
		func(tmp string) error { return copyFile(blob, tmp) },
	} {
		if err = replace(local, link); err == nil {
			return nil
		}
	}
	return err
}

// replace makes file by way of a temporary name beside it, so that it is there
// whole or not at all.
func replace(file string, write func(tmp string) error) error {
	tmp := fmt.Sprintf("%s.%d-%d.tmp", file, os.Getpid(), time.Now().UnixNano())
	if err := write(tmp); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

func copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(dst, src); err != nil {
		dst.Close()
		return err
	}
	return dst.Close()
}
