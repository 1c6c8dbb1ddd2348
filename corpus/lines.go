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

	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
)

// openLines opens JSON lines, compressed if the name ends in .gz. Lines of
// white space are no documents.
func openLines(ctx context.Context, path string, progress func(done, total int64)) (Documents, error) {
	f, size, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	if !hasSuffix(path, ".gz") {
		d, err := indexLines(ctx, path, f, io.Discard, maxDocuments)
		if err != nil {
			f.Close()
			return nil, err
		}
		d.r, d.close = f, f.Close
		return d.checked()
	}
	defer f.Close()
	z, err := newMembers(bufio.NewReaderSize(&meter{r: f, total: size, progress: progress}, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s, err := newSpool(size)
	if err != nil {
		return nil, fmt.Errorf("%s: unpacking: %w", path, err)
	}
	d, err := indexLines(ctx, path, z, s, documentsOf(size))
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	d.r, d.close = s.f, s.Close
	return d.checked()
}

// checked returns d if its first document can be read, for a file of another
// format to be refused before anything slow.
func (d *records) checked() (Documents, error) {
	if _, err := d.Text(0); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// members reads the members of a gzip file one after the other. As gzip and
// Python's module do, it takes zeros after a member for padding, which tapes and
// some stores add.
type members struct {
	in *bufio.Reader
	z  *gzip.Reader
}

func newMembers(in *bufio.Reader) (*members, error) {
	z, err := gzip.NewReader(in)
	switch {
	case err == io.EOF:
		return nil, errors.New("empty, want gzip's format")
	case err != nil:
		return nil, err
	}
	z.Multistream(false)
	return &members{in, z}, nil
}

func (m *members) Read(p []byte) (int, error) {
	n, err := m.z.Read(p)
	if err != io.EOF {
		return n, err
	}
	for {
		b, err := m.in.ReadByte()
		if err != nil {
			return n, err // the end, most likely
		}
		if b != 0 {
			break
		}
	}
	if err := m.in.UnreadByte(); err != nil {
		return n, err
	}
	if err := m.z.Reset(m.in); err != nil {
		return n, err
	}
	m.z.Multistream(false)
	return n, nil
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

// indexLines finds the lines of in, of which most may be documents, and copies
// them to out.
func indexLines(ctx context.Context, name string, in io.Reader, out io.Writer, most int) (*records, error) {
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
		case len(d.starts) > most:
			return nil, fmt.Errorf("%s: more than %d documents", name, most)
		case ctx.Err() != nil:
			return nil, ctx.Err()
		}
		lineStart, blank = at, true
	}
}

// decodeLine returns the field text of a JSON object. In other fields may stand
// what Python writes and JSON has not, such as NaN.
func decodeLine(line []byte) (string, error) {
	if err := pyjson.CheckUTF8(line); err != nil {
		return "", err
	}
	if line = bytes.TrimSpace(line); len(line) > 0 && line[0] == '[' {
		return "", errors.New("a JSON array, want one object on each line (JSON Lines)")
	}
	var object map[string]json.RawMessage
	if err := pyjson.Unmarshal(line, &object); err != nil || object == nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return "", fmt.Errorf("want a JSON object on a line: %w", err)
		}
		return "", fmt.Errorf("%.40q, want a JSON object on a line", line)
	}
	raw, ok := object["text"]
	if !ok {
		return "", errors.New(`no field "text"`)
	}
	text, err := pyjson.Text(raw)
	if err != nil {
		return "", fmt.Errorf(`field "text": %w`, err)
	}
	return text, nil
}
