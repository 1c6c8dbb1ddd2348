// Package queue keeps studies in PostgreSQL, and has their work done by any number
// of processes on any number of machines: orders are jobs of River.
//
// Everything lies in one schema of the database. An order is carried out at least
// once and answered exactly once: the record that answers it and the job's end are
// one transaction, and the first record stays.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/search"
)

// schema is where all tables lie. Nothing else of the database is touched.
const schema = "crepe"

// patience is how long an answer of the database may take, after which a connection
// is given up and another one made.
const patience = 30 * time.Second

// Options of a Store.
type Options struct {
	// Note is told what people may want to know, such as that the database does not
	// answer. It may be nil.
	Note func(format string, args ...any)

	// Connections are the most to hold. 0: 4.
	Connections int
}

// Store is a search.Queue in a PostgreSQL database.
type Store struct {
	name   string // for people, without a password
	secret string // the password, which nothing may show
	pool   *pgxpool.Pool
	river  *river.Client[pgx.Tx] // that orders; it works nothing
	note   func(format string, args ...any)

	mu     sync.Mutex
	silent bool // the database does not answer, as was said
}

// IsURL reports whether name is one that Open takes.
func IsURL(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}

// Open connects to the database at a URL postgres://[USER@]HOST[:PORT]/DATABASE[?OPTION=VALUE…]
// with the options of libpq, and brings its schema to this program's version. One
// that a newer program has written is an error. No error shows the password.
func Open(ctx context.Context, address string, o Options) (*Store, error) {
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	config.MaxConns = int32(cmp.Or(o.Connections, 4))
	config.ConnConfig.RuntimeParams["application_name"] = "crepe"
	config.ConnConfig.ConnectTimeout = cmp.Or(config.ConnConfig.ConnectTimeout, patience)
	dial := config.ConnConfig.DialFunc
	config.ConnConfig.DialFunc = answering(dial, patience)
	c := config.ConnConfig
	s := &Store{
		name:   (&url.URL{Scheme: "postgres", Host: fmt.Sprintf("%s:%d", c.Host, c.Port), Path: c.Database}).String(),
		secret: c.Password, note: o.Note,
	}
	if s.note == nil {
		s.note = func(string, ...any) {}
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, s.explain(err)
	}
	if err := s.prepare(ctx); err != nil {
		s.Close()
		return nil, s.explain(err)
	}
	return s, nil
}

// parse reads a URL without ever showing it: what cannot be parsed may hold a password
// anywhere.
func parse(address string) (*pgxpool.Config, error) {
	u, err := url.Parse(address)
	if err != nil || !IsURL(address) {
		return nil, errors.New("not the URL of a database (which is not repeated, as it may hold a password), want postgres://[USER@]HOST[:PORT]/DATABASE")
	}
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		cause := err
		if e := (*pgconn.ParseConfigError)(nil); errors.As(err, &e) && e.Unwrap() != nil {
			cause = e.Unwrap() // without the URL
		}
		password, _ := u.User.Password()
		return nil, errors.New(hide(fmt.Sprintf("%s: %v", u.Host, cause), password, u.Query().Get("password")))
	}
	return config, nil
}

// hide returns text without any of secrets.
func hide(text string, secrets ...string) string {
	for _, s := range secrets {
		if s != "" {
			for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s), url.UserPassword("", s).String()[1:]} {
				text = strings.ReplaceAll(text, form, "xxxxx")
			}
		}
	}
	return text
}

// Name is the store for people: its URL without user, password and options.
func (s *Store) Name() string { return s.name }

// Close implements search.Store.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// explain says what err means for a user, without the password.
func (s *Store) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var m *search.MismatchError
	if errors.As(err, &m) {
		return m
	}
	why := err.Error()
	if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
		why = fmt.Sprintf("%s (SQLSTATE %s)", e.Message, e.Code)
		switch e.Code {
		case "42501":
			why += ": the user must own the schema " + schema + ", or may create it"
		case "53100":
			why += ": the database's disk is full; what was finished is kept"
		}
	}
	why = strings.Join(strings.Fields(why), " ") // pgx gives each address a line
	return &storeError{hide(s.name+": "+why, s.secret), err}
}

// storeError shows text in place of err's, which may show the password.
type storeError struct {
	text string
	err  error
}

func (e *storeError) Error() string { return e.text }

// Is lets errors.Is see the cause, while nothing prints it.
func (e *storeError) Is(target error) bool { return errors.Is(e.err, target) }

// passing reports whether an error goes by itself: the database cannot be reached,
// restarts, or has no connection left.
func passing(err error) bool {
	if err == nil {
		return false
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		var m *search.MismatchError
		return !errors.As(err, &m) && !errors.Is(err, pgx.ErrNoRows) && !errors.Is(err, errGivenUp) && !errors.Is(err, errBound)
	}
	class := e.Code[:2]
	return class == "08" || class == "57" || e.Code == "53300" || class == "40" // connection, operator's, too many connections, deadlock
}

// insist calls f until the database answers, and says once that it does not.
func (s *Store) insist(ctx context.Context, f func(ctx context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := s.once(ctx, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.heard(err)
		if !passing(err) {
			return s.explain(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// once calls f with as much time as an answer may take.
func (s *Store) once(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return f(ctx)
}

// heard notes whether the database answered.
func (s *Store) heard(err error) {
	s.mu.Lock()
	was := s.silent
	s.silent = passing(err)
	is := s.silent
	s.mu.Unlock()
	switch {
	case is && !was:
		s.note("%v; trying again until it answers", s.explain(err))
	case was && !is:
		s.note("%s: it answers again", s.name)
	}
}

// change runs f in a transaction.
func (s *Store) change(ctx context.Context, f func(ctx context.Context, tx pgx.Tx) error) error {
	return s.insist(ctx, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return f(ctx, tx) })
	})
}

// Study implements search.Store.
func (s *Store) Study(ctx context.Context, name string, p provenance.Record) (search.Study, error) {
	out := &study{Store: s}
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		err := tx.QueryRow(ctx, "INSERT INTO crepe.study (name) VALUES ($1) ON CONFLICT DO NOTHING RETURNING id", name).Scan(&out.id)
		switch {
		case err == nil:
			for i, f := range p {
				if _, err := tx.Exec(ctx, "INSERT INTO crepe.field VALUES ($1, $2, $3, $4)", out.id, i, f.Name, f.Value); err != nil {
					return err
				}
			}
			return nil
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
		// Another transaction may have made it after this one's snapshot; it is committed.
		if err := tx.QueryRow(ctx, "SELECT id FROM crepe.study WHERE name = $1", name).Scan(&out.id); err != nil {
			return err
		}
		have, err := fields(ctx, tx, out.id)
		if err == nil && !slices.Equal(have, p) {
			return &search.MismatchError{Store: s.name, Study: name, Have: have, Ask: p}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func fields(ctx context.Context, tx pgx.Tx, study int64) (provenance.Record, error) {
	rows, err := tx.Query(ctx, "SELECT name, value FROM crepe.field WHERE study = $1 ORDER BY ord", study)
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

// Forget implements search.Store.
func (s *Store) Forget(ctx context.Context, name string) error {
	return s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM crepe.study WHERE name = $1", name) // and what refers to it
		return err
	})
}

// study is a search.Study.
type study struct {
	*Store
	id int64
}

// Bounds on the records of a kind, which are in memory: those of search/store.
const (
	maxRecords     = 1 << 20
	maxRecordBytes = 256 << 20
)

var errBound = errors.New("too much")

// Records implements search.Study.
func (s *study) Records(ctx context.Context, kind string) ([]search.Record, error) {
	var out []search.Record
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		out = nil
		var n, size int64
		if err := tx.QueryRow(ctx, "SELECT count(*), coalesce(sum(length(key) + length(value)), 0) FROM crepe.record WHERE study = $1 AND kind = $2", s.id, kind).Scan(&n, &size); err != nil {
			return err
		}
		if n > maxRecords || size > maxRecordBytes {
			return fmt.Errorf("%d records of kind %s with %d bytes, want at most %d with %d: %w", n, kind, size, maxRecords, int64(maxRecordBytes), errBound)
		}
		rows, err := tx.Query(ctx, "SELECT key, value FROM crepe.record WHERE study = $1 AND kind = $2 ORDER BY id", s.id, kind)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r search.Record
			if err := rows.Scan(&r.Key, &r.Value); err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// Add implements search.Study. Where another process has added the record already, its
// value stays: both come from the same question.
func (s *study) Add(ctx context.Context, kind string, r search.Record) error {
	return s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO crepe.record (study, kind, key, value) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING", s.id, kind, r.Key, r.Value)
		return err
	})
}

// Remove implements search.Study.
func (s *study) Remove(ctx context.Context, kind, key string) error {
	return s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "DELETE FROM crepe.record WHERE study = $1 AND kind = $2 AND key = $3", s.id, kind, key)
		return err
	})
}

// maxText is the longest text that an order may refer to, in bytes: below what a
// value of PostgreSQL may have.
const maxText = 512 << 20

// Keep implements search.Queue.
func (s *Store) Keep(ctx context.Context, hash string, text []byte) error {
	if len(text) > maxText {
		return fmt.Errorf("%s: a text of %d bytes, want at most %d: choose fewer windows or documents", s.name, len(text), maxText)
	}
	have := false
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM crepe.text WHERE hash = $1)", hash).Scan(&have)
	})
	if err != nil || have {
		return err
	}
	return s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO crepe.text VALUES ($1, $2) ON CONFLICT DO NOTHING", hash, text)
		return err
	})
}

// Text implements search.Queue.
func (s *Store) Text(ctx context.Context, hash string) ([]byte, error) {
	var text []byte
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		err := tx.QueryRow(ctx, "SELECT value FROM crepe.text WHERE hash = $1", hash).Scan(&text)
		if errors.Is(err, pgx.ErrNoRows) {
			return fmt.Errorf("no text with hash %.12s: %w", hash, err)
		}
		return err
	})
	return text, err
}

// logger is River's. What it warns of during an outage, insist says once.
func logger() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newClient(pool *pgxpool.Pool, c *river.Config) (*river.Client[pgx.Tx], error) {
	c.Schema, c.Logger = schema, logger()
	return river.NewClient(riverpgxv5.New(pool), c)
}
