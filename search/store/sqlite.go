// Package store keeps a search's study in a local SQLite database.
package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/crepe-llm/crepe/search"
)

// schemaVersion is what this program writes, and the newest it reads.
const schemaVersion = 1

// applicationID marks a database as ours: "crep".
const applicationID = 0x63726570

// schema: a study's fields in order, and a row a finished trial or verification.
const schema = `
CREATE TABLE study (ord INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, value TEXT NOT NULL);
CREATE TABLE trial (number INTEGER PRIMARY KEY, x TEXT NOT NULL, value REAL NOT NULL);
CREATE TABLE verification (number INTEGER PRIMARY KEY, candidate TEXT NOT NULL UNIQUE, result TEXT NOT NULL);
`

// lockPatience is how many milliseconds to wait for another process.
const lockPatience = 2000

// SQLite is a search.Store in a file of its own.
type SQLite struct {
	path string
	db   *sql.DB
}

// Open opens the database at path, or makes it. Its errors name path.
func Open(ctx context.Context, path string) (*SQLite, error) {
	if strings.ContainsRune(path, '?') {
		return nil, fmt.Errorf("%s: want a name without a question mark", path)
	}
	if err := checkFile(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // pragmas are a connection's
	s := &SQLite{path: path, db: db}
	if err := s.prepare(ctx); err != nil {
		db.Close()
		return nil, s.explain(err)
	}
	return s, nil
}

// checkFile refuses, before SQLite opens it, what is no database.
func checkFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	const magic = "SQLite format 3\x00"
	head := make([]byte, len(magic))
	n, err := io.ReadFull(f, head)
	if n == 0 && errors.Is(err, io.EOF) {
		return nil // an empty file is an empty database
	}
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if !bytes.Equal(head, []byte(magic)) {
		return fmt.Errorf("%s: not a study: not an SQLite database", path)
	}
	return nil
}

// prepare makes the tables, or checks that they are ours.
func (s *SQLite) prepare(ctx context.Context) error {
	if _, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d; PRAGMA synchronous = FULL", lockPatience)); err != nil {
		return err
	}
	return s.change(ctx, func(tx *sql.Tx) error {
		var id, version, tables int
		row := tx.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)")
		if err := row.Scan(&id, &version, &tables); err != nil {
			return err
		}
		switch {
		case tables == 0:
			_, err := tx.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, schemaVersion))
			return err
		case id != applicationID:
			return errors.New("not a study: a database of another program")
		case version > schemaVersion:
			return fmt.Errorf("schema %d, want at most %d: written by a newer crepe", version, schemaVersion)
		}
		return nil
	})
}

// change runs f in a transaction that holds the write lock from its beginning.
func (s *SQLite) change(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// explain says what err means for a user.
func (s *SQLite) explain(err error) error {
	if err == nil {
		return nil
	}
	why := ""
	if e := (*sqlite.Error)(nil); errors.As(err, &e) {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			why = "locked: another process is at work on this study"
		case sqlite3.SQLITE_FULL:
			why = "the disk is full; what was finished is kept"
		case sqlite3.SQLITE_READONLY:
			why = "cannot be written"
		case sqlite3.SQLITE_CANTOPEN:
			why = "cannot be opened or made"
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			why = "not a study: a damaged database"
		case sqlite3.SQLITE_CONSTRAINT:
			why = "the row is there already: another process is at work on this study"
		}
	}
	if why == "" {
		return fmt.Errorf("%s: %w", s.path, err)
	}
	return fmt.Errorf("%s: %s (%w)", s.path, why, err)
}

// Begin implements search.Store.
func (s *SQLite) Begin(ctx context.Context, study []search.Field) error {
	err := s.change(ctx, func(tx *sql.Tx) error {
		var have []search.Field
		rows, err := tx.QueryContext(ctx, "SELECT name, value FROM study ORDER BY ord")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var f search.Field
			if err := rows.Scan(&f.Name, &f.Value); err != nil {
				return err
			}
			have = append(have, f)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if len(have) > 0 {
			if !same(have, study) {
				return &search.MismatchError{Store: s.path, Have: have, Ask: study}
			}
			return nil
		}
		for i, f := range study {
			if _, err := tx.ExecContext(ctx, "INSERT INTO study VALUES (?, ?, ?)", i, f.Name, f.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if m := (*search.MismatchError)(nil); errors.As(err, &m) {
		return m
	}
	return s.explain(err)
}

func same(a, b []search.Field) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Trials implements search.Store.
func (s *SQLite) Trials(ctx context.Context) ([]search.Trial, error) {
	var out []search.Trial
	err := s.each(ctx, "SELECT number, x, value FROM trial ORDER BY number", func(rows *sql.Rows) error {
		var t search.Trial
		var x string
		if err := rows.Scan(&t.Number, &x, &t.Value); err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(x), &t.X); err != nil || t.Number != len(out) {
			return fmt.Errorf("trial %d at %q, want trial %d at a list of numbers", t.Number, x, len(out))
		}
		out = append(out, t)
		return nil
	})
	return out, err
}

// AddTrial implements search.Store.
func (s *SQLite) AddTrial(ctx context.Context, t search.Trial) error {
	x, err := json.Marshal(t.X)
	if err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "INSERT INTO trial VALUES (?, ?, ?)", t.Number, string(x), t.Value)
	return s.explain(err)
}

// Verifications implements search.Store.
func (s *SQLite) Verifications(ctx context.Context) ([]search.Verification, error) {
	var out []search.Verification
	err := s.each(ctx, "SELECT number, candidate, result FROM verification ORDER BY number", func(rows *sql.Rows) error {
		var v search.Verification
		out = append(out, v)
		last := &out[len(out)-1]
		return rows.Scan(&last.Number, &last.Candidate, &last.Result)
	})
	return out, err
}

// AddVerification implements search.Store.
func (s *SQLite) AddVerification(ctx context.Context, v search.Verification) error {
	_, err := s.db.ExecContext(ctx, "INSERT INTO verification VALUES (?, ?, ?)", v.Number, v.Candidate, v.Result)
	return s.explain(err)
}

// each calls f at every row of query.
func (s *SQLite) each(ctx context.Context, query string, f func(*sql.Rows) error) error {
	rows, err := s.db.QueryContext(ctx, query)
	if err != nil {
		return s.explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return s.explain(err)
		}
	}
	return s.explain(rows.Err())
}

// Close implements search.Store.
func (s *SQLite) Close() error { return s.db.Close() }
