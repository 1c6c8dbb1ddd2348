package store

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/search"
)

var study = []search.Field{{Name: "model", Value: "abc"}, {Name: "pattern", Value: "2:4"}}

func open(t *testing.T, path string) *SQLite {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Begin(t.Context(), study); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRowsComeBack(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "a study #1 100%.db")
	s := open(t, path)
	trials := []search.Trial{{Number: 0, X: []float64{0.1, 1.0 / 3}, Value: 0.1 + 0.2}, {Number: 1, X: []float64{0, 1}, Value: 5e-324}}
	for _, x := range trials {
		if err := s.AddTrial(ctx, x); err != nil {
			t.Fatal(err)
		}
	}
	v := search.Verification{Candidate: `{"alpha":1}`, Result: `{"perplexity":3}`}
	if err := s.AddVerification(ctx, v); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = open(t, path)
	if got, err := s.Trials(ctx); err != nil || !reflect.DeepEqual(got, trials) {
		t.Errorf("trials %v (%v), want %v", got, err, trials)
	}
	if got, err := s.Verifications(ctx); err != nil || !reflect.DeepEqual(got, []search.Verification{v}) {
		t.Errorf("verifications %v (%v), want %v", got, err, v)
	}
	wantError(t, s.AddTrial(ctx, trials[1]), path, "already")
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("error %v, want one with %q", err, p)
		}
	}
}

func TestAnotherStudyIsRefusedShowingBoth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path)
	err := s.Begin(t.Context(), []search.Field{{Name: "model", Value: "xyz"}, {Name: "pattern", Value: "2:4"}})
	wantError(t, err, path, "model is abc there, xyz here")
	if m := (*search.MismatchError)(nil); !errors.As(err, &m) || strings.Contains(err.Error(), "2:4") {
		t.Errorf("%v, want a MismatchError of the model only", err)
	}
}

func TestWhatIsNoStudy(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("not at all"), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), text)
	wantError(t, err, text, "not an SQLite database")
	_, err = Open(t.Context(), filepath.Join(dir, "absent", "s.db"))
	wantError(t, err, "absent", "cannot be opened")
	_, err = Open(t.Context(), dir)
	wantError(t, err, dir)

	exec := func(name, statement string) string {
		path := filepath.Join(dir, name)
		s := open(t, path)
		if _, err := s.db.Exec(statement); err != nil {
			t.Fatal(err)
		}
		s.Close()
		return path
	}
	newer := exec("newer", "PRAGMA user_version = 7")
	_, err = Open(t.Context(), newer)
	wantError(t, err, newer, "schema 7, want at most 1")
	other := exec("other", "PRAGMA application_id = 7")
	_, err = Open(t.Context(), other)
	wantError(t, err, other, "another program")

	cut := exec("cut", "SELECT 1")
	if err := os.Truncate(cut, 4000); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), cut)
	wantError(t, err, cut)
}

func TestLockedIsSaidAndLeavesTheStudy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s := open(t, path)
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec("BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Exec("PRAGMA busy_timeout = 10"); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.AddTrial(t.Context(), search.Trial{X: []float64{1}}), path, "locked")
	other.Close()
	if err := s.AddTrial(context.Background(), search.Trial{X: []float64{1}}); err != nil {
		t.Error(err)
	}
}

// A full disk, in SQLite's own words: a limit of pages.
func TestFullDiskKeepsWhatIsFinished(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "s.db")
	s := open(t, path)
	if _, err := s.db.Exec("PRAGMA max_page_count = 6"); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for ; err == nil && n < 10000; n++ {
		err = s.AddTrial(ctx, search.Trial{Number: n, X: make([]float64, 50)})
	}
	wantError(t, err, path, "disk is full")
	s.Close()
	if got, err := open(t, path).Trials(ctx); err != nil || len(got) != n-1 {
		t.Errorf("%d trials (%v), want %d", len(got), err, n-1)
	}
}
