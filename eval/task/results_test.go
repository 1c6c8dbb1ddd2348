package task

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/tokenizer"
)

func by(program string) provenance.Record {
	return provenance.Record{{Name: "program", Value: program}, {Name: "weights", Value: "tiny"}}
}

func openResults(t *testing.T, dir, program string) *Results {
	t.Helper()
	r, err := OpenResults(dir, by(program))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// measure scores docs with the results in dir and returns how many were known.
func measure(t *testing.T, dir string, bos BOS, docs []Document, identity string) ([]Likelihoods, int) {
	t.Helper()
	m, inv := openModel(t)
	e, err := NewEncoder(m, inv.Config(), tokenizer.In(modelDir), modelDir, bos)
	if err != nil {
		t.Fatal(err)
	}
	r := openResults(t, dir, identity)
	all, err := Score(t.Context(), m, e, docs, Options{Results: r})
	if err != nil {
		t.Fatal(err)
	}
	hits := r.Hits()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return all, hits
}

func someDocuments(t *testing.T) []Document {
	t.Helper()
	docs, err := arcEasy.load("testdata/data/arc_easy", 12)
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestResultsAreMeasuredOnce(t *testing.T) {
	dir, docs := filepath.Join(t.TempDir(), "new"), someDocuments(t)
	want, hits := measure(t, dir, Auto, docs[:8], "one")
	if hits != 0 {
		t.Fatalf("%d of 8 documents were known at first", hits)
	}
	for _, c := range []struct {
		identity string
		bos      BOS
		known    int
	}{
		{"one", Auto, 8}, // and the four others are kept
		{"one", Auto, 12},
		{"one", Off, 0}, // other tokens
		{"two", Auto, 0},
	} {
		got, hits := measure(t, dir, c.bos, docs, c.identity)
		if hits != c.known || c.bos == Auto && !reflect.DeepEqual(got[:8], want) {
			t.Errorf("%+v: %d were known, or other likelihoods than at first", c, hits)
		}
	}
}

// A run that ends in its second group has the first's results.
func TestResultsOfAnInterruptedRun(t *testing.T) {
	dir := t.TempDir()
	docs, err := hellaswag.load("testdata/data/hellaswag", 0)
	if err != nil {
		t.Fatal(err)
	}
	m, inv := openModel(t)
	e, err := NewEncoder(m, inv.Config(), tokenizer.In(modelDir), modelDir, Auto)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := openResults(t, dir, "")
	_, err = Score(ctx, m, e, docs, Options{Results: r, Bytes: 1000 * 4 * 256, Progress: func(u progress.Update) {
		if u.Done == u.Total/2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r = openResults(t, dir, "")
	defer r.Close()
	if _, err := Score(t.Context(), m, e, docs, Options{Results: r}); err != nil {
		t.Fatal(err)
	}
	if r.Hits() == 0 || r.Hits() >= len(docs) {
		t.Errorf("%d of %d documents were known, want some", r.Hits(), len(docs))
	}
}

// Whatever befalls the file: no error, no wrong result, what is whole is used.
func TestDamagedResults(t *testing.T) {
	dir, docs := t.TempDir(), someDocuments(t)
	want, _ := measure(t, dir, Auto, docs, "x")
	files, err := filepath.Glob(filepath.Join(dir, "*"+resultSuffix))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v, want one file", files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.Trim(strings.ReplaceAll(string(whole), "\n\n", "\n"), "\n"), "\n")
	if len(lines) != 1+len(docs) {
		t.Fatalf("%d lines, want the origin and %d", len(lines), len(docs))
	}
	lines = lines[1:]
	for name, c := range map[string]struct {
		text  string
		known int
	}{
		"empty":                {"", 0},
		"another number":       {strings.Replace(string(whole), "-1", "-2", 1), 11},
		"cut in its last line": {string(whole[:len(whole)-9]), 11},
		"zeros at its end":     {string(whole) + strings.Repeat("\x00", 5000), 12},
		"a line twice":         {string(whole) + lines[3] + "\n", 12},
		"torn, then others":    {lines[0][:20] + "\n" + lines[1] + "\n" + lines[2][:30] + "\n\n" + lines[3], 2},
		"a line without end":   {lines[0] + "\n" + strings.Repeat("x", maxResult+1) + "\n" + lines[1], 1},
	} {
		if err := os.WriteFile(files[0], []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, hits := measure(t, dir, Auto, docs, "x")
		if hits != c.known || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d documents were known, want %d and the same likelihoods", name, hits, c.known)
		}
		if got, hits := measure(t, dir, Auto, docs, "x"); c.known > 1 && (hits != len(docs) || !reflect.DeepEqual(got, want)) {
			t.Errorf("%s: %d documents were known in the run after, want all", name, hits)
		}
	}
}

// Several runs at once append to one file.
func TestResultsOfSeveralRuns(t *testing.T) {
	dir := t.TempDir()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			r, err := OpenResults(dir, by("x"))
			if err != nil {
				t.Error(err)
				return
			}
			for j := range 50 {
				s := &sequences{prefix: []int32{int32(i), int32(j)}, rests: [][]int32{nil}, spans: []span{{}}}
				r.add([]*sequences{s}, []Likelihoods{{Log: []float64{float64(i*1000 + j)}}})
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	r := openResults(t, dir, "x")
	for i := range 8 {
		for j := range 50 {
			s := &sequences{prefix: []int32{int32(i), int32(j)}, rests: [][]int32{nil}, spans: []span{{}}}
			if l, ok := r.find(s); !ok || l.Log[0] != float64(i*1000+j) {
				t.Fatalf("run %d document %d: %v, %v", i, j, l, ok)
			}
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// A file that cannot be written is told at the end, and does no harm.
	r.add([]*sequences{{}}, []Likelihoods{{}})
	if r.Close() == nil {
		t.Error("written after it was closed: no error")
	}
}

func TestOldResultsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for i, age := range []time.Duration{resultAge * 2, resultAge / 2} {
		path := openResults(t, dir, fmt.Sprint(i)).Path()
		then := time.Now().Add(-age)
		if err := os.Chtimes(path, then, then); err != nil {
			t.Fatal(err)
		}
	}
	r := openResults(t, dir, "new")
	defer r.Close()
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 2 {
		t.Errorf("left %v (%v), want the young one and the new one", left, err)
	}
}

// A file that holds more than results do, and what is no file, is refused.
func TestResultsOfAnySize(t *testing.T) {
	dir := t.TempDir()
	r := openResults(t, dir, "x")
	path := r.Path()
	if err := errors.Join(r.Close(), os.Truncate(path, maxResults+1)); err != nil {
		t.Fatal(err)
	}
	wantRefused := func(want string) {
		t.Helper()
		if _, err := OpenResults(dir, by("x")); err == nil || !strings.Contains(err.Error(), path+": "+want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	wantRefused("67108865 bytes, want at most 67108864: remove it")
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
		t.Fatal(err)
	}
	wantRefused("not a regular file: remove it")
}

// FuzzResult reads any text as results, and any JSON behind its checksum.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`02ffc41a {"key":"a3e9da3452d4213d332f5adeb8e42695","log":[-14.9,-21]}`))
	f.Add([]byte("00000000 \n\n{}"))
	f.Add([]byte(`{"key":"a3e9da3452d4213d332f5adeb8e42695","log":[0,0,0,0,-1e300]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		whole := fmt.Appendf(bytes.Clone(text), "\n%08x %s\n", crc32.ChecksumIEEE(text), text)
		golden.Ceiling(t, uint64(64<<10+100*len(whole)), func() {
			known, err := readResults(bytes.NewReader(whole))
			if err != nil || len(known) > bytes.Count(whole, []byte("\n")) {
				t.Errorf("%q: %d results, %v", whole, len(known), err)
			}
		})
	})
}
