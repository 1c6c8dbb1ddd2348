package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

// migrations bring the schema forward, one version each: studies, what each depends
// on in order, what is finished of it; texts by hash; models that orders were for;
// and when somebody last looked after lost jobs. River's tables have migrations of
// their own, River's.
var migrations = []string{
	`CREATE TABLE crepe.study (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
	CREATE TABLE crepe.field (study bigint NOT NULL REFERENCES crepe.study ON DELETE CASCADE, ord int NOT NULL, name text NOT NULL, value text NOT NULL, PRIMARY KEY (study, ord));
	CREATE TABLE crepe.record (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, study bigint NOT NULL REFERENCES crepe.study ON DELETE CASCADE, kind text NOT NULL, key text NOT NULL, value text NOT NULL, UNIQUE (study, kind, key));
	CREATE TABLE crepe.text (hash text PRIMARY KEY, value bytea NOT NULL);
	CREATE TABLE crepe.model (queue text PRIMARY KEY, name text NOT NULL, id text NOT NULL, bytes bigint NOT NULL);
	CREATE TABLE crepe.tended (at timestamptz NOT NULL);
	INSERT INTO crepe.tended VALUES ('-infinity');`,
}

// migrationLock is the key of the lock that one process at a time migrates under:
// "crepe" in ASCII.
const migrationLock = 0x6372657065

// prepare brings the schema to this program's version, and refuses a newer one. The
// lock is the connection's: River's migrations need a transaction each.
func (s *Store) prepare(ctx context.Context) error {
	err := s.once(ctx, func(ctx context.Context) error {
		c, err := s.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer c.Release()
		if _, err := c.Exec(ctx, "SELECT pg_advisory_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
		err = pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error { return s.migrate(ctx, tx) })
		if err == nil {
			err = s.migrateRiver(ctx)
		}
		_, unlock := c.Exec(ctx, "SELECT pg_advisory_unlock($1)", int64(migrationLock))
		return errors.Join(err, unlock)
	})
	if err != nil {
		return err
	}
	s.river, err = newClient(s.pool, &river.Config{})
	return err
}

func (s *Store) migrate(ctx context.Context, tx pgx.Tx) error {
	made := false
	if err := tx.QueryRow(ctx, "SELECT to_regclass('crepe.version') IS NOT NULL").Scan(&made); err != nil {
		return err
	}
	version := 0
	if made {
		if err := tx.QueryRow(ctx, "SELECT version FROM crepe.version").Scan(&version); err != nil {
			return err
		}
	} else {
		other := false
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema).Scan(&other); err != nil {
			return err
		}
		make := "CREATE TABLE crepe.version (version int NOT NULL); INSERT INTO crepe.version VALUES (0)"
		if !other {
			make = "CREATE SCHEMA crepe; " + make
		}
		if _, err := tx.Exec(ctx, make); err != nil {
			return err
		}
	}
	if version > len(migrations) {
		return fmt.Errorf("schema %d, want at most %d: a newer crepe has written it: %w", version, len(migrations), errNewer)
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.Exec(ctx, migrations[version]); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "UPDATE crepe.version SET version = $1", version+1); err != nil {
			return err
		}
	}
	return nil
}

var errNewer = errors.New("update crepe on this machine")

// migrateRiver is migrate for River's tables.
func (s *Store) migrateRiver(ctx context.Context) error {
	m, err := rivermigrate.New(riverpgxv5.New(s.pool), &rivermigrate.Config{Schema: schema, Logger: logger()})
	if err != nil {
		return err
	}
	known := m.AllVersions()
	newest := known[len(known)-1].Version
	made, have := false, 0
	if err := s.pool.QueryRow(ctx, "SELECT to_regclass('crepe.river_migration') IS NOT NULL").Scan(&made); err != nil {
		return err
	}
	if made {
		if err := s.pool.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM crepe.river_migration WHERE line = 'main'").Scan(&have); err != nil {
			return err
		}
	}
	if have > newest {
		return fmt.Errorf("schema %d of River, want at most %d: a newer crepe has written it: %w", have, newest, errNewer)
	}
	_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}
