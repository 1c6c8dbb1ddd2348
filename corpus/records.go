package corpus

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unicode/utf8"

	"github.com/crepe-llm/crepe/internal/parquet"
)

// Bounds on what a file may claim of memory and disk. C4's shard has 356,317
// documents in 0.8 GB, the longest of 0.3 MB.
const (
	maxDocuments = 1 << 25 // of a collection: 256 MiB of offsets
	maxDocument  = 64 << 20
	maxUnpacked  = 32 << 30 // bytes of a temporary file
	maxText      = 1 << 30  // bytes of a running or joined text
)

// records is a collection whose documents lie one after the other in a file.
type records struct {
	name   string // of the source, for errors
	r      io.ReaderAt
	starts []int64 // of every document, and the end of the last
	decode func(raw []byte) (string, error)
	close  func() error
}

func (d *records) Len() int      { return len(d.starts) - 1 }
func (d *records) Running() bool { return false }
func (d *records) Close() error  { return d.close() }

func (d *records) Text(i int) (string, error) {
	raw := make([]byte, d.starts[i+1]-d.starts[i])
	if _, err := d.r.ReadAt(raw, d.starts[i]); err != nil {
		return "", fmt.Errorf("%s: document %d: %w", d.name, i+1, err)
	}
	text, err := d.decode(raw)
	if err != nil {
		return "", fmt.Errorf("%s: document %d: %w", d.name, i+1, err)
	}
	return text, nil
}

// running is one running text.
type running string

func (t running) Len() int                 { return 1 }
func (t running) Text(int) (string, error) { return string(t), nil }
func (t running) Running() bool            { return true }
func (t running) Close() error             { return nil }

// openLines opens JSON lines, compressed if the name ends in .gz. Lines of
// white space are no documents.
func openLines(ctx context.Context, path string, progress func(done, total int64)) (Documents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if !hasSuffix(path, ".gz") {
		d, err := indexLines(ctx, path, f, io.Discard)
		if err != nil {
			f.Close()
			return nil, err
		}
		d.r, d.close = f, f.Close
		return d, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(&meter{r: f, total: info.Size(), progress: progress}, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := newSpool()
	if err != nil {
		return nil, fmt.Errorf("%s: unpacking: %w", path, err)
	}
	d, err := indexLines(ctx, path, z, s)
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	d.r, d.close = s.f, s.Close
	return d, nil
}

// meter reports what is read of r.
type meter struct {
	r           io.Reader
	done, total int64
	progress    func(done, total int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.done += int64(n); n > 0 && m.progress != nil {
		m.progress(m.done, m.total)
	}
	return n, err
}

// indexLines finds the lines of in and copies them to out.
func indexLines(ctx context.Context, name string, in io.Reader, out io.Writer) (*records, error) {
	d := &records{name: name, decode: decodeLine}
	r := bufio.NewReaderSize(in, 1<<20)
	at, lineStart, blank := int64(0), int64(0), true
	if mark, err := r.Peek(len(utf8BOM)); err == nil && string(mark) == utf8BOM {
		if _, err := out.Write(mark); err != nil { // offsets in out are those in in
			return nil, err
		}
		n, _ := r.Discard(len(mark))
		at, lineStart = int64(n), int64(n)
	}
	for {
		part, err := r.ReadSlice('\n') // a line, or as much of it as fits the buffer
		if _, err := out.Write(part); err != nil {
			return nil, fmt.Errorf("%s: unpacking: %w", name, err)
		}
		at += int64(len(part))
		blank = blank && len(bytes.TrimSpace(part)) == 0
		if at-lineStart > maxDocument {
			return nil, fmt.Errorf("%s: document %d: line of more than %d bytes", name, len(d.starts)+1, maxDocument)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if !blank {
			d.starts = append(d.starts, lineStart)
		}
		switch {
		case err == io.EOF && len(d.starts) == 0:
			return nil, fmt.Errorf("%s: no documents", name)
		case err == io.EOF:
			d.starts = append(d.starts, at)
			return d, nil
		case err != nil:
			return nil, fmt.Errorf("%s: document %d: %w", name, len(d.starts)+1, err)
		case len(d.starts) > maxDocuments:
			return nil, fmt.Errorf("%s: more than %d documents", name, maxDocuments)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		lineStart, blank = at, true
	}
}

// decodeLine returns the field text of a JSON object.
func decodeLine(line []byte) (string, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(line, &object); err != nil {
		return "", fmt.Errorf("want a JSON object on a line: %w", err)
	}
	raw, ok := object["text"]
	if !ok {
		return "", errors.New(`no field "text"`)
	}
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil || text == nil {
		return "", fmt.Errorf(`field "text" is %.40s, want a string`, raw)
	}
	return *text, nil
}

// openParquet unpacks the column text into a temporary file.
func openParquet(ctx context.Context, path string) (Documents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := newSpool()
	if err != nil {
		return nil, fmt.Errorf("%s: unpacking: %w", path, err)
	}
	d := &records{name: path, r: s.f, starts: []int64{0}, close: s.Close,
		decode: func(raw []byte) (string, error) { return string(raw), nil }}
	err = parquet.Strings(f, info.Size(), "text", func(value []byte) error {
		if len(value) > maxDocument {
			return fmt.Errorf("document %d: more than %d bytes", len(d.starts), maxDocument)
		}
		if len(d.starts) > maxDocuments {
			return fmt.Errorf("more than %d documents", maxDocuments)
		}
		if _, err := s.Write(value); err != nil {
			return fmt.Errorf("unpacking: %w", err)
		}
		d.starts = append(d.starts, s.size)
		return ctx.Err()
	})
	if err == nil && d.Len() == 0 {
		err = errors.New("no documents")
	}
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		s.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// spool is a temporary file of unpacked documents.
type spool struct {
	f     *os.File
	w     *bufio.Writer
	size  int64
	named bool // the file has a name still, which Close removes
}

func newSpool() (*spool, error) {
	f, err := os.CreateTemp("", "crepe-corpus-*")
	if err != nil {
		return nil, err
	}
	// Where the system allows it the file has no name from now on: nothing is
	// left behind, however the process ends.
	named := os.Remove(f.Name()) != nil
	return &spool{f: f, w: bufio.NewWriterSize(f, 1<<20), named: named}, nil
}

func (s *spool) Write(p []byte) (int, error) {
	if s.size += int64(len(p)); s.size > maxUnpacked {
		return 0, fmt.Errorf("more than %d bytes", int64(maxUnpacked))
	}
	n, err := s.w.Write(p)
	return n, spaceHint(err)
}

func (s *spool) finish() error { return spaceHint(s.w.Flush()) }

func (s *spool) Close() error {
	err := s.f.Close()
	if s.named {
		err = errors.Join(err, os.Remove(s.f.Name()))
	}
	return err
}

// spaceHint says what helps against a full disk.
func spaceHint(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: set TMPDIR to a folder on a larger disk", err)
	}
	return err
}

const utf8BOM = "\xef\xbb\xbf"

// readText reads a text file: UTF-8, its byte order mark left out and CRLF made
// LF, otherwise as it is.
func readText(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > maxText {
		return "", fmt.Errorf("%s: %d bytes, want at most %d", path, info.Size(), maxText)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	data = bytes.TrimPrefix(data, []byte(utf8BOM))
	if !utf8.Valid(data) {
		at := 0
		for r, n := utf8.DecodeRune(data); r != utf8.RuneError || n != 1; r, n = utf8.DecodeRune(data[at:]) {
			at += n
		}
		return "", fmt.Errorf("%s: not UTF-8 text: byte %#x at offset %d", path, data[at], at)
	}
	if len(data) == 0 {
		return "", fmt.Errorf("%s: empty", path)
	}
	return string(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))), nil
}
