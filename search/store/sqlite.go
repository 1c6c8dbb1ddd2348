// Package store keeps studies in a local SQLite database.
package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/search"
)

// schemaVersion is what this program writes, and the newest it reads.
const schemaVersion = 1

// applicationID marks a database as ours: "crep".
const applicationID = 0x63726570

// schema: studies, what each depends on in order, and what is finished of it. A
// record's id gives the order.
var schema = []string{
	"CREATE TABLE study (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
	"CREATE TABLE field (study INTEGER NOT NULL, ord INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (study, ord))",
	"CREATE TABLE record (id INTEGER PRIMARY KEY AUTOINCREMENT, study INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (study, kind, key))",
}

// sequences is the table that AUTOINCREMENT makes.
const sequences = "CREATE TABLE sqlite_sequence(name,seq)"

// lockPatience is how many milliseconds to wait for another process.
const lockPatience = 2000

// SQLite is a search.Store in a file.
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

// checkFile refuses, before SQLite opens it, what is no database, a link in the place of
// the database or of a file that belongs to it, which SQLite would follow, and a journal
// of several databases.
func checkFile(path string) error {
	for _, path := range []string{path, path + "-journal", path + "-wal", path + "-shm"} {
		if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
			return fmt.Errorf("%s: a link, a folder or a device, want a file of studies", path)
		}
	}
	if err := checkJournal(path + "-journal"); err != nil {
		return err
	}
	f, err := openThere(path)
	if f == nil {
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
		return fmt.Errorf("%s: not a file of studies: not an SQLite database", path)
	}
	return nil
}

// openThere opens a file; it is nil without an error if there is none.
func openThere(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// journalMagic begins a journal of SQLite, and ends one that names the journal of a
// transaction over several databases. https://www.sqlite.org/fileformat2.html#the_rollback_journal
const journalMagic = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"

// checkJournal refuses a journal that names another file: SQLite deletes that file, which
// may be any, when it has rolled back. A study is one database, so none of ours does.
func checkJournal(path string) error {
	f, err := openThere(path)
	if f == nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() < int64(len(journalMagic)) {
		return err
	}
	tail := make([]byte, len(journalMagic))
	if _, err := f.ReadAt(tail, st.Size()-int64(len(tail))); err != nil {
		return err
	}
	if string(tail) == journalMagic {
		return fmt.Errorf("%s: of several databases, want that of a file of studies: not written by crepe", path)
	}
	return nil
}

// prepare makes the tables, or checks that they are ours: a view, a trigger or a
// computed column of another making could have rows and values without end.
func (s *SQLite) prepare(ctx context.Context) error {
	if err := s.limit(ctx); err != nil {
		return err
	}
	if _, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON", lockPatience)); err != nil {
		return err
	}
	return s.change(ctx, func(tx *sql.Tx) error {
		made, err := checkSchema(ctx, tx)
		if err == nil && !made {
			_, err = tx.ExecContext(ctx, strings.Join(schema, ";")+fmt.Sprintf("; PRAGMA application_id = %d; PRAGMA user_version = %d", applicationID, schemaVersion))
		}
		return err
	})
}

// checkSchema refuses a database that is not ours; made is false of an empty one.
func checkSchema(ctx context.Context, tx *sql.Tx) (made bool, err error) {
	var id, version, tables, others int
	row := tx.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master), (SELECT count(*) FROM sqlite_master WHERE sql NOT IN (?, ?, ?, ?))",
		schema[0], schema[1], schema[2], sequences) // an index that SQLite makes itself has no sql
	if err := row.Scan(&id, &version, &tables, &others); err != nil {
		return false, err
	}
	switch {
	case tables == 0 && id == 0:
		return false, nil
	case id != applicationID:
		return false, errors.New("not a file of studies: a database of another program")
	case version > schemaVersion:
		return false, fmt.Errorf("schema %d, want at most %d: written by a newer crepe", version, schemaVersion)
	case others > 0:
		return false, errors.New("not a file of studies: it has other tables, views or triggers")
	}
	return true, nil
}

// limit holds each value to what all may have together, before SQLite takes memory
// for it.
func (s *SQLite) limit(ctx context.Context) error {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	_, err = sqlite.Limit(c, sqlite3.SQLITE_LIMIT_LENGTH, maxRecordBytes)
	return errors.Join(err, c.Close()) // to the pool, which has no other
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

const cannotOpen = "cannot be opened or made: is its folder there, and may you write to it?"

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
			if why = "cannot be written"; e.Code() == sqlite3.SQLITE_READONLY_ROLLBACK {
				why = "left in the middle of a write: run its search or grid again, which takes the write back"
			}
		case sqlite3.SQLITE_CANTOPEN:
			why = cannotOpen
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			why = "not a file of studies: a damaged database"
		case sqlite3.SQLITE_CONSTRAINT:
			why = "the row is there already: another process is at work on this study"
		}
	}
	switch why {
	case "":
		return fmt.Errorf("%s: %w", s.path, err)
	case cannotOpen: // SQLite's own words for it are "out of memory"
		return fmt.Errorf("%s: %s", s.path, why)
	}
	return fmt.Errorf("%s: %s (%w)", s.path, why, err)
}

// Study implements search.Store.
func (s *SQLite) Study(ctx context.Context, name string, p provenance.Record) (search.Study, error) {
	out := &study{SQLite: s}
	err := s.change(ctx, func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, "SELECT id FROM study WHERE name = ?", name).Scan(&out.id)
		if errors.Is(err, sql.ErrNoRows) {
			return out.make(ctx, tx, name, p)
		}
		if err != nil {
			return err
		}
		have, err := out.fields(ctx, tx)
		if err == nil && !slices.Equal(have, p) {
			return &search.MismatchError{Store: s.path, Study: name, Have: have, Ask: p}
		}
		return err
	})
	if m := (*search.MismatchError)(nil); errors.As(err, &m) {
		return nil, m
	}
	if err != nil {
		return nil, s.explain(err)
	}
	return out, nil
}

// Forget implements search.Store.
func (s *SQLite) Forget(ctx context.Context, name string) error {
	return s.explain(s.change(ctx, func(tx *sql.Tx) error {
		for _, table := range []string{"record", "field"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE study = (SELECT id FROM study WHERE name = ?)", name); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, "DELETE FROM study WHERE name = ?", name)
		return err
	}))
}

// study is a search.Study.
type study struct {
	*SQLite
	id int64
}

func (s *study) make(ctx context.Context, tx *sql.Tx, name string, p provenance.Record) error {
	done, err := tx.ExecContext(ctx, "INSERT INTO study (name) VALUES (?)", name)
	if err != nil {
		return err
	}
	if s.id, err = done.LastInsertId(); err != nil {
		return err
	}
	for i, f := range p {
		if _, err := tx.ExecContext(ctx, "INSERT INTO field VALUES (?, ?, ?, ?)", s.id, i, f.Name, f.Value); err != nil {
			return err
		}
	}
	return nil
}

func (s *study) fields(ctx context.Context, tx *sql.Tx) (provenance.Record, error) {
	rows, err := tx.QueryContext(ctx, "SELECT name, value FROM field WHERE study = ? ORDER BY ord", s.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var p provenance.Record
	for rows.Next() {
		var f provenance.Field
		if err := rows.Scan(&f.Name, &f.Value); err != nil {
			return nil, err
		}
		p = append(p, f)
	}
	return p, rows.Err()
}

// Read returns all studies of the file at path as they are, in the order in which
// they began. It makes and changes nothing, and may be called while another process
// is at work on them.
func Read(ctx context.Context, path string) ([]search.Saved, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	if err := checkFile(path); err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", OmitHost: true, Path: filepath.ToSlash(path), RawQuery: "mode=ro"}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	s := &SQLite{path: path, db: db}
	all, err := s.readAll(ctx)
	if err != nil && !errors.Is(err, errBound) {
		err = s.explain(err)
	}
	return all, err
}

var errBound = errors.New("too much")

func (s *SQLite) readAll(ctx context.Context) ([]search.Saved, error) {
	if err := s.limit(ctx); err != nil {
		return nil, err
	}
	if _, err := s.db.ExecContext(ctx, fmt.Sprintf("PRAGMA busy_timeout = %d; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON", lockPatience)); err != nil {
		return nil, err
	}
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	if made, err := checkSchema(ctx, tx); err != nil || !made {
		return nil, err
	}
	var n, size int64
	if err := tx.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(length(kind) + length(key) + length(value)), 0) FROM record").Scan(&n, &size); err != nil {
		return nil, err
	}
	if n > maxRecords || size > maxRecordBytes {
		return nil, fmt.Errorf("%s: %d records with %d bytes, want at most %d with %d: %w", s.path, n, size, maxRecords, int64(maxRecordBytes), errBound)
	}
	var all []search.Saved
	at := map[int64]int{}
	each := func(query string, f func(rows *sql.Rows) error) error {
		rows, err := tx.QueryContext(ctx, query)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if err := f(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	err = each("SELECT id, name FROM study ORDER BY id LIMIT 100000", func(rows *sql.Rows) error {
		var id int64
		var saved search.Saved
		err := rows.Scan(&id, &saved.Name)
		at[id] = len(all)
		all = append(all, saved)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = each("SELECT study, name, value FROM field ORDER BY study, ord LIMIT 1000000", func(rows *sql.Rows) error {
		var id int64
		var f provenance.Field
		err := rows.Scan(&id, &f.Name, &f.Value)
		if i, ok := at[id]; ok {
			all[i].Provenance = append(all[i].Provenance, f)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, each("SELECT study, kind, key, value FROM record ORDER BY id", func(rows *sql.Rows) error {
		var id int64
		var r search.SavedRecord
		err := rows.Scan(&id, &r.Kind, &r.Key, &r.Value)
		if i, ok := at[id]; ok {
			all[i].Records = append(all[i].Records, r)
		}
		return err
	})
}

// Bounds on the records of a kind, which are in memory: far above those of any
// search or grid.
const (
	maxRecords     = 1 << 20
	maxRecordBytes = 256 << 20
)

// Records implements search.Study.
func (s *study) Records(ctx context.Context, kind string) ([]search.Record, error) {
	var n, size int64
	row := s.db.QueryRowContext(ctx, "SELECT count(*), coalesce(sum(length(key) + length(value)), 0) FROM record WHERE study = ? AND kind = ?", s.id, kind)
	if err := row.Scan(&n, &size); err != nil {
		return nil, s.explain(err)
	}
	if n > maxRecords || size > maxRecordBytes {
		return nil, fmt.Errorf("%s: %d records of kind %s with %d bytes, want at most %d with %d", s.path, n, kind, size, maxRecords, int64(maxRecordBytes))
	}
	rows, err := s.db.QueryContext(ctx, "SELECT key, value FROM record WHERE study = ? AND kind = ? ORDER BY id", s.id, kind)
	if err != nil {
		return nil, s.explain(err)
	}
	defer rows.Close()
	var out []search.Record
	for rows.Next() {
		var r search.Record
		if err := rows.Scan(&r.Key, &r.Value); err != nil {
			return nil, s.explain(err)
		}
		out = append(out, r)
	}
	return out, s.explain(rows.Err())
}

// Add implements search.Study.
func (s *study) Add(ctx context.Context, kind string, r search.Record) error {
	_, err := s.db.ExecContext(ctx, "INSERT INTO record (study, kind, key, value) VALUES (?, ?, ?, ?)", s.id, kind, r.Key, r.Value)
	return s.explain(err)
}

// Remove implements search.Study.
func (s *study) Remove(ctx context.Context, kind, key string) error {
	_, err := s.db.ExecContext(ctx, "DELETE FROM record WHERE study = ? AND kind = ? AND key = ?", s.id, kind, key)
	return s.explain(err)
}

// Close implements search.Store.
func (s *SQLite) Close() error { return s.db.Close() }
