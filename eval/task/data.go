package task

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/crepe-llm/crepe/hub"
	"github.com/crepe-llm/crepe/internal/parquet"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/internal/regular"
)

// Bounds on what a file may claim; the public datasets have ten thousand rows
// of a few thousand bytes.
const (
	maxLine  = 16 << 20  // bytes of a row
	maxBytes = 512 << 20 // of a file's rows, which are all in memory

	// A few bytes of a packed file can stand for any number; rows together have
	// so many, and so many for each byte of the file.
	leastBytes = 16 << 20
	bytesAByte = 64
)

// MaxDocuments is the most documents of a task.
const MaxDocuments = 1 << 20

// budget returns how many bytes the rows of a file of size bytes may have.
func budget(size int64) int64 { return min(maxBytes, leastBytes+bytesAByte*min(size, maxBytes)) }

// Load reads the documents of tasks from dir, which has a folder for each; with
// an empty dir from the hub, where they are fetched unless they are cached. With
// a limit above 0 it stops after so many of each. A row that cannot be used is
// an error: none is skipped.
func Load(ctx context.Context, tasks []*Task, dir string, h *hub.Client, limit int) ([]Set, error) {
	var sets []Set
	for _, t := range tasks {
		from := filepath.Join(dir, t.Name)
		if dir == "" {
			var err error
			if from, err = t.fetch(ctx, h); err != nil {
				return nil, err
			}
		}
		docs, err := t.load(from, limit)
		if err != nil {
			return nil, err
		}
		sets = append(sets, Set{Task: t, Documents: docs})
	}
	return sets, nil
}

// fetch returns the folder with the split's files out of the dataset's repository.
func (t *Task) fetch(ctx context.Context, h *hub.Client) (string, error) {
	repo := hub.Repo{Kind: hub.Dataset, ID: t.repo, Revision: "main"}
	root, err := h.Snapshot(ctx, repo, func(path string) bool {
		name, ok := strings.CutPrefix(path, t.folder+"/")
		return ok && t.part(name).format == inParquet
	})
	dir := filepath.Join(root, t.folder)
	if err == nil {
		if _, err = t.files(dir); err == nil {
			return dir, nil
		}
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	file := t.Split + "-00000-of-00001.parquet"
	return "", fmt.Errorf("task %s: %w: download %s elsewhere, put it at DIR/%s/%s and give --tasks-data DIR",
		t.Name, err, h.URL(repo, t.folder+"/"+file), t.Name, file)
}

// load reads the documents from the files in dir: "validation.jsonl" or
// "validation.parquet", or in shards "validation-00000-of-00002.parquet" and so
// on, in the dataset's columns.
func (t *Task) load(dir string, limit int) ([]Document, error) {
	files, err := t.files(dir)
	if err != nil {
		return nil, fmt.Errorf("task %s: %w", t.Name, err)
	}
	if limit == 0 {
		limit = MaxDocuments + 1
	}
	var docs []Document
	for _, path := range files {
		read := t.readLines
		if filepath.Ext(path) == ".parquet" {
			read = t.readParquet
		}
		if docs, err = read(docs, path, limit); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(docs) > MaxDocuments {
			return nil, fmt.Errorf("%s: more than %d documents", path, MaxDocuments)
		}
	}
	if len(docs) == 0 {
		return nil, fmt.Errorf("%s: no documents", strings.Join(files, ", "))
	}
	return docs, nil
}

// part is what the name of a file says of the split.
type part struct {
	format format
	of     int // shards in all; 0: the file is the whole split
}

type format uint8

const (
	unknown format = iota
	inLines
	inParquet
)

var formats = map[string]format{".jsonl": inLines, ".parquet": inParquet}

// shard is the end of a shard's name.
var shard = regexp.MustCompile(`^-\d{5}-of-(\d{5})$`)

// part reads a file's name; its format is unknown if it is none of the split's.
func (t *Task) part(name string) part {
	rest, ok := strings.CutPrefix(name, t.Split)
	ext := filepath.Ext(rest)
	p := part{format: formats[ext]}
	if rest = strings.TrimSuffix(rest, ext); !ok || rest == "" {
		if !ok {
			p.format = unknown
		}
		return p
	}
	m := shard.FindStringSubmatch(rest)
	if m == nil {
		return part{}
	}
	p.of, _ = strconv.Atoi(m[1])
	return p
}

// files returns the paths of the split's files in dir, in order.
func (t *Task) files(dir string) ([]string, error) {
	want := fmt.Sprintf("%s-00000-of-00001.parquet or %s.jsonl", t.Split, t.Split)
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no such folder; want %s in it", dir, want)
	}
	if err != nil {
		return nil, err
	}
	var names []string
	var parts []part
	for _, e := range entries {
		if p := t.part(e.Name()); p.format != unknown {
			names, parts = append(names, e.Name()), append(parts, p)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no file of split %s, want %s", dir, t.Split, want)
	}
	for _, p := range parts {
		if p != parts[0] {
			return nil, fmt.Errorf("%s: %s and %s are both split %s, want one of them", dir, names[0], names[slices.Index(parts, p)], t.Split)
		}
	}
	if of := max(1, parts[0].of); len(names) != of {
		return nil, fmt.Errorf("%s: %d files of split %s (%s …), want %d", dir, len(names), t.Split, names[0], of)
	}
	for i, name := range names {
		if parts[i].of > 0 && !strings.HasPrefix(name, fmt.Sprintf("%s-%05d-", t.Split, i)) {
			return nil, fmt.Errorf("%s: no file %s-%05d-of-%05d", dir, t.Split, i, parts[i].of)
		}
		names[i] = filepath.Join(dir, name)
	}
	return names, nil
}

// readLines appends the documents of a file of JSON lines, until there are limit.
func (t *Task) readLines(docs []Document, path string, limit int) ([]Document, error) {
	f, size, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > maxBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", size, maxBytes)
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<16), maxLine)
	n := 0
	for len(docs) < limit && lines.Scan() {
		n++
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		d, err := t.parse(line)
		if err != nil {
			return nil, fmt.Errorf("row %d: %w", n, err)
		}
		docs = append(docs, d)
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("longer than %d bytes", maxLine)
		}
		return nil, fmt.Errorf("row %d: %w", n+1, err)
	}
	return docs, nil
}

func (t *Task) parse(line []byte) (Document, error) {
	if err := pyjson.CheckUTF8(line); err != nil {
		return Document{}, err
	}
	r, err := parseRow(line)
	if err != nil {
		return Document{}, err
	}
	return t.document(r)
}

var errEnough = errors.New("enough")

// readParquet appends the documents of a Parquet file, until there are limit.
func (t *Task) readParquet(docs []Document, path string, limit int) ([]Document, error) {
	f, size, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, left := 0, budget(size)
	err = parquet.Rows(f, size, t.columns(), func(values map[string]any) error {
		n++
		if len(docs) == limit {
			return errEnough
		}
		r, err := rowOf(values)
		if err != nil {
			return err
		}
		if left -= r.bytes(); left < 0 {
			return fmt.Errorf("row %d: rows of more than %d bytes in a file of %d", n, budget(size), size)
		}
		d, err := t.document(r)
		if err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
		docs = append(docs, d)
		return nil
	})
	if err == errEnough {
		err = nil
	}
	return docs, err
}
