package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/search"
)

var fields = provenance.Record{{Name: "model", Value: "abc"}, {Name: "pattern", Value: "2:4"}}

func open(t *testing.T, path string) (*SQLite, search.Study) {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	st, err := s.Study(t.Context(), "search", fields)
	if err != nil {
		t.Fatal(err)
	}
	return s, st
}

func TestRecordsComeBack(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "a study #1 100%.db")
	s, st := open(t, path)
	trials := []search.Trial{{Number: 0, X: []float64{0.1, 1.0 / 3}, Value: 0.1 + 0.2}, {Number: 1, X: []float64{0, 1}, Value: 5e-324}}
	for _, x := range trials {
		if err := search.AddTrial(ctx, st, x); err != nil {
			t.Fatal(err)
		}
	}
	cells := []search.Record{{Key: "b", Value: "é\x00"}, {Key: "a", Value: ""}, {Key: "c", Value: "3"}}
	for _, c := range cells {
		if err := st.Add(ctx, "cell", c); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Remove(ctx, "cell", "c"); err != nil {
		t.Fatal(err)
	}
	if err := st.Remove(ctx, "cell", "never"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s, st = open(t, path)
	if got, err := search.Trials(ctx, st); err != nil || !reflect.DeepEqual(got, trials) {
		t.Errorf("trials %v (%v), want %v", got, err, trials)
	}
	if got, err := st.Records(ctx, "cell"); err != nil || !reflect.DeepEqual(got, cells[:2]) {
		t.Errorf("cells %v (%v), want %v", got, err, cells[:2])
	}
	wantError(t, search.AddTrial(ctx, st, trials[1]), path, "already")
	other, err := s.Study(ctx, "study", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := search.Trials(ctx, other); err != nil || len(got) != 0 {
		t.Errorf("another study of the file has %v (%v), want nothing", got, err)
	}
	if err := st.Add(ctx, "trial", search.Record{Key: "7", Value: "{}"}); err != nil {
		t.Fatal(err)
	}
	_, err = search.Trials(ctx, st)
	wantError(t, err, "trial 7", "want trial 2")
	if err := s.Forget(ctx, "search"); err != nil {
		t.Fatal(err)
	}
	if again, err := s.Study(ctx, "search", nil); err != nil { // other fields: it is another
		t.Error(err)
	} else if got, err := search.Trials(ctx, again); err != nil || len(got) != 0 {
		t.Errorf("forgotten, it has %v (%v)", got, err)
	}
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
	s, _ := open(t, path)
	_, err := s.Study(t.Context(), "search", provenance.Record{{Name: "model", Value: "xyz"}, {Name: "pattern", Value: "2:4"}})
	wantError(t, err, path, "another search", "model: abc, this is xyz")
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
	for _, name := range []string{"link", "a-journal", "b-wal", "c-shm"} {
		if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
		link := filepath.Join(dir, name)
		_, err = Open(t.Context(), strings.NewReplacer("-journal", "", "-wal", "", "-shm", "").Replace(link))
		wantError(t, err, link, "a link")
	}

	exec := func(name, statement string) string {
		path := filepath.Join(dir, name)
		s, _ := open(t, path)
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

	empty := exec("empty", "DROP TABLE study; DROP TABLE field; DROP TABLE record; PRAGMA application_id = 7")
	_, err = Open(t.Context(), empty)
	wantError(t, err, empty, "another program")

	endless := exec("endless", `ALTER TABLE record RENAME TO r; CREATE VIEW record AS
		WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id, 1 AS study, 'trial' AS kind, id AS key, '{}' AS value FROM n`)
	_, err = Open(t.Context(), endless)
	wantError(t, err, endless, "views or triggers")
	computed := exec("computed", `DROP TABLE record; CREATE TABLE record (id INTEGER PRIMARY KEY AUTOINCREMENT, study INTEGER DEFAULT 1, kind TEXT DEFAULT 'trial', key TEXT, value TEXT AS (hex(zeroblob(1000))));
		INSERT INTO record (key) VALUES ('0')`)
	_, err = Open(t.Context(), computed)
	wantError(t, err, computed, "other tables")

	cut := exec("cut", "SELECT 1")
	if err := os.Truncate(cut, 4000); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), cut)
	wantError(t, err, cut)
}

// hotJournal writes the journal of an unfinished transaction beside the database at path:
// a header for its pages, and tail.
func hotJournal(t *testing.T, path, tail string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	head := append([]byte(journalMagic), make([]byte, 512-len(journalMagic))...)
	binary.BigEndian.PutUint32(head[16:], uint32(st.Size()/4096)) // pages before it
	binary.BigEndian.PutUint32(head[20:], 512)                    // a sector
	binary.BigEndian.PutUint32(head[24:], 4096)                   // a page
	if err := os.WriteFile(path+"-journal", append(head, tail...), 0o666); err != nil {
		t.Fatal(err)
	}
}

// SQLite deletes the file that a journal names as that of several databases.
func TestJournalThatNamesAnotherFile(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "s.db"), filepath.Join(dir, "other")
	s, _ := open(t, path)
	s.Close()
	if err := os.WriteFile(other, []byte("of somebody else"), 0o666); err != nil {
		t.Fatal(err)
	}
	sum := uint32(0)
	for _, c := range []byte(other) {
		sum += uint32(c)
	}
	tail := append(binary.BigEndian.AppendUint32(nil, 1<<30/4096+1), other...) // a page that no database has
	tail = binary.BigEndian.AppendUint32(tail, uint32(len(other)))
	tail = binary.BigEndian.AppendUint32(tail, sum)
	hotJournal(t, path, string(tail)+journalMagic)
	_, err := Open(t.Context(), path)
	wantError(t, err, path+"-journal", "of several databases")
	_, err = Read(t.Context(), path)
	wantError(t, err, path+"-journal", "of several databases")
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}

// What a killed process was writing is taken back by the next that writes; who only
// reads says so.
func TestLeftInTheMiddleOfAWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s, _ := open(t, path)
	s.Close()
	hotJournal(t, path, "")
	_, err := Read(t.Context(), path)
	wantError(t, err, path, "left in the middle of a write: run its search or grid again")
	s, _ = open(t, path)
	s.Close()
	if all, err := Read(t.Context(), path); err != nil || len(all) != 1 {
		t.Errorf("%v (%v), want one study", all, err)
	}
}

func TestLockedIsSaidAndLeavesTheStudy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	s, st := open(t, path)
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
	wantError(t, search.AddTrial(t.Context(), st, search.Trial{X: []float64{1}}), path, "locked")
	other.Close()
	if err := search.AddTrial(context.Background(), st, search.Trial{X: []float64{1}}); err != nil {
		t.Error(err)
	}
}

// A full disk, in SQLite's own words: a limit of pages.
func TestFullDiskKeepsWhatIsFinished(t *testing.T) {
	ctx, path := t.Context(), filepath.Join(t.TempDir(), "s.db")
	s, st := open(t, path)
	if _, err := s.db.Exec("PRAGMA max_page_count = 12"); err != nil {
		t.Fatal(err)
	}
	var err error
	n := 0
	for ; err == nil && n < 10000; n++ {
		err = search.AddTrial(ctx, st, search.Trial{Number: n, X: make([]float64, 50)})
	}
	wantError(t, err, path, "disk is full")
	s.Close()
	_, st = open(t, path)
	if got, err := search.Trials(ctx, st); err != nil || len(got) != n-1 {
		t.Errorf("%d trials (%v), want %d", len(got), err, n-1)
	}
}

// A value that claims more than all may have is refused before it is read.
func TestLongValue(t *testing.T) {
	s, _ := open(t, filepath.Join(t.TempDir(), "s.db"))
	n := 0
	wantError(t, s.db.QueryRow("SELECT length(zeroblob(300000000))").Scan(&n), "too big")
}

// FuzzOpen reads any bytes as a file of studies, and writes to it.
func FuzzOpen(f *testing.F) {
	path := filepath.Join(f.TempDir(), "s.db")
	s, err := Open(f.Context(), path)
	if err != nil {
		f.Fatal(err)
	}
	st, err := s.Study(f.Context(), "search", fields)
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(search.AddTrial(f.Context(), st, search.Trial{X: []float64{0.5}, Value: 1}), s.Close()); err != nil {
		f.Fatal(err)
	}
	made, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(made)
	f.Add(made[:len(made)-4096])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		ctx, path := t.Context(), filepath.Join(t.TempDir(), "s.db")
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		golden.Ceiling(t, uint64(1<<20+100*len(data)), func() {
			s, err := Open(ctx, path)
			if err != nil {
				return
			}
			defer s.Close()
			st, err := s.Study(ctx, "search", fields)
			if err != nil {
				return
			}
			trials, err := search.Trials(ctx, st)
			if err == nil {
				err = search.AddTrial(ctx, st, search.Trial{Number: len(trials)})
			}
			if err != nil {
				return
			}
			if again, err := search.Trials(ctx, st); err == nil && len(again) != len(trials)+1 {
				t.Errorf("%d trials, want %d and one", len(again), len(trials))
			}
		})
	})
}
