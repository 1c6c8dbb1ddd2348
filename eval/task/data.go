package task

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxLine is the longest row that is read; those of the public datasets have a
// few thousand bytes.
const maxLine = 16 << 20 // bytes

// Load reads the documents of t from dir/NAME: the JSON lines of its split in
// the dataset's columns, "validation.jsonl" or, in shards,
// "validation-00000-of-00002.jsonl" and so on. With a limit above 0 it stops
// after so many. A row that cannot be used is an error: none is skipped.
func (t *Task) Load(dir string, limit int) ([]Document, error) {
	files, err := t.files(filepath.Join(dir, t.Name))
	if err != nil {
		return nil, err
	}
	var docs []Document
	for _, path := range files {
		if docs, err = t.read(docs, path, limit); err != nil {
			return nil, err
		}
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("%s: no documents", strings.Join(files, ", "))
	}
	return docs, nil
}

// shard is the end of a shard's name.
var shard = regexp.MustCompile(`^-\d{5}-of-(\d{5})$`)

// files returns the paths of the split's files in dir, in order.
func (t *Task) files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("task %s: %s: no such folder; want %s.jsonl in it", t.Name, dir, t.Split)
	}
	if err != nil {
		return nil, err
	}
	var files []string
	want, parquet := 1, ""
	for _, e := range entries { // sorted by name
		rest, ok := strings.CutPrefix(e.Name(), t.Split)
		ext := filepath.Ext(rest)
		part := shard.FindStringSubmatch(strings.TrimSuffix(rest, ext))
		if !ok || part == nil && rest != ext {
			continue
		}
		switch ext {
		case ".parquet":
			parquet = e.Name()
		case ".jsonl":
			files = append(files, filepath.Join(dir, e.Name()))
			if part != nil {
				want, _ = strconv.Atoi(part[1])
			}
		}
	}
	switch {
	case len(files) == 0 && parquet != "":
		return nil, fmt.Errorf("task %s: %s: parquet is not read; want its rows as JSON lines in %s",
			t.Name, filepath.Join(dir, parquet), strings.TrimSuffix(parquet, ".parquet")+".jsonl")
	case len(files) == 0:
		return nil, fmt.Errorf("task %s: %s: no file of split %s, want %s.jsonl", t.Name, dir, t.Split, t.Split)
	case len(files) != want:
		return nil, fmt.Errorf("task %s: %s: %d files of split %s (%s …), want %d", t.Name, dir, len(files), t.Split, filepath.Base(files[0]), want)
	}
	return files, nil
}

// read appends the documents of one file.
func (t *Task) read(docs []Document, path string, limit int) ([]Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<16), maxLine)
	n := 0
	for (limit == 0 || len(docs) < limit) && lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		d, err := t.parse(line)
		if err != nil {
			return nil, fmt.Errorf("%s: row %d: %w", path, n, err)
		}
		docs = append(docs, d)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxLine)
		}
		return nil, fmt.Errorf("%s: row %d: %w", path, n+1, err)
	}
	return docs, nil
}

func (t *Task) parse(line []byte) (Document, error) {
	if !utf8.Valid(line) {
		return Document{}, errors.New("not UTF-8")
	}
	r, err := parseRow(line)
	if err != nil {
		return Document{}, err
	}
	return t.document(r)
}
