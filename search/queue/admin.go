package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river/rivertype"

	"github.com/crepe-llm/crepe/search"
)

// Status is what a store has and what becomes of its orders.
type Status struct {
	Studies []StudyStatus `json:"studies"`
	Jobs    []Job         `json:"jobs"` // that are not finished, those at work first, then those given up
}

// StudyStatus counts the records and orders of a study.
type StudyStatus struct {
	Name    string `json:"name"`
	Records int    `json:"records"`
	Waiting int    `json:"waiting"`
	Running int    `json:"running"`
	Failed  int    `json:"failed"` // given up or cancelled
}

// Job is an order that is not finished.
type Job struct {
	ID     int64          `json:"id"`
	Study  string         `json:"study"`
	What   string         `json:"what"`
	Model  search.Weights `json:"model"`
	State  string         `json:"state"`            // waiting, running, cancelled, failed
	Worker string         `json:"worker,omitempty"` // the last that had it
	Heard  *time.Time     `json:"heard,omitempty"`  // of the worker
	Silent float64        `json:"silent,omitempty"` // seconds since then, by the database's clock
	Lost   int            `json:"lost,omitempty"`   // workers that went silent over it
	Error  string         `json:"error,omitempty"`  // of the last attempt that failed
}

// maxJobs are the most that Status lists, of each state.
const maxJobs = 100

// The states of jobs for people. A job that was given up and then asked for anew has a
// successor, and does not count.
const jobs = `(SELECT j.*, CASE WHEN state IN ('available', 'pending', 'retryable', 'scheduled') THEN 'waiting' WHEN state = 'discarded' THEN 'failed' ELSE state::text END AS now
	FROM crepe.river_job j WHERE kind = 'crepe' AND state <> 'completed' AND (state NOT IN ('cancelled', 'discarded')
		OR NOT EXISTS (SELECT FROM crepe.river_job k WHERE k.unique_key = j.unique_key AND k.id > j.id)))`

// Status returns what the store has.
func (s *Store) Status(ctx context.Context) (*Status, error) {
	var out *Status
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		out = &Status{}
		rows, err := tx.Query(ctx, `SELECT coalesce(s.name, j.study), coalesce(r.n, 0), coalesce(waiting, 0), coalesce(running, 0), coalesce(failed, 0)
			FROM crepe.study s LEFT JOIN (SELECT study, count(*) n FROM crepe.record GROUP BY study) r ON r.study = s.id
			FULL JOIN (SELECT args->>'study' AS study, count(*) FILTER (WHERE now = 'waiting') waiting, count(*) FILTER (WHERE now = 'running') running,
				count(*) FILTER (WHERE now IN ('failed', 'cancelled')) failed FROM `+jobs+` j GROUP BY 1) j ON j.study = s.name ORDER BY 1`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var t StudyStatus
			if err := rows.Scan(&t.Name, &t.Records, &t.Waiting, &t.Running, &t.Failed); err != nil {
				return err
			}
			out.Studies = append(out.Studies, t)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, state := range []string{"running", "failed", "cancelled", "waiting"} {
			if err := out.add(ctx, tx, state); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

func (out *Status) add(ctx context.Context, tx pgx.Tx, state string) error {
	rows, err := tx.Query(ctx, `SELECT id, args, now, coalesce(attempted_by[array_length(attempted_by, 1)], ''), attempted_at,
		coalesce(extract(epoch FROM now() - attempted_at)::float8, 0), coalesce((metadata->>'lost')::int, 0), errors[array_length(errors, 1)]
		FROM `+jobs+` j WHERE now = $1 ORDER BY priority, id LIMIT $2`, state, maxJobs)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var j Job
		var args, why []byte
		if err := rows.Scan(&j.ID, &args, &j.State, &j.Worker, &j.Heard, &j.Silent, &j.Lost, &why); err != nil {
			return err
		}
		var a jobArgs
		if err := json.Unmarshal(args, &a); err != nil {
			return fmt.Errorf("job %d: %w", j.ID, err)
		}
		j.Study, j.What, j.Model = a.Study, a.What, a.Model
		var e rivertype.AttemptError
		if len(why) > 0 && json.Unmarshal(why, &e) == nil {
			j.Error = e.Error
		}
		out.Jobs = append(out.Jobs, j)
	}
	return rows.Err()
}

// Cancel ends the jobs of these numbers, all that are not finished if there is none, and
// returns how many. A worker that has one hears of it within a beat at the latest.
func (s *Store) Cancel(ctx context.Context, ids ...int64) (int, error) {
	if ids == nil {
		err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			ids, err = collect(ctx, tx, "SELECT id FROM "+jobs+" j WHERE now IN ('waiting', 'running') ORDER BY id")
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	n := 0
	for _, id := range ids {
		err := s.insist(ctx, func(ctx context.Context) error {
			job, err := s.river.JobCancel(ctx, id)
			if errors.Is(err, rivertype.ErrNotFound) {
				return fmt.Errorf("no job %d: %w", id, errGivenUp)
			}
			if err == nil && job.State != rivertype.JobStateCompleted && job.State != rivertype.JobStateDiscarded {
				n++
			}
			return err
		})
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Retry puts jobs that were given up or cancelled back into the queue, of these numbers
// or all, and returns how many.
func (s *Store) Retry(ctx context.Context, ids ...int64) (int, error) {
	n := 0
	return n, s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE crepe.river_job SET state = 'available', attempt = 0, scheduled_at = now(), finalized_at = NULL,
			metadata = metadata - 'cancel_attempted_at' - 'lost' WHERE id IN (SELECT id FROM `+jobs+` j WHERE now IN ('failed', 'cancelled') AND ($1::bigint[] IS NULL OR id = ANY($1)))`, ids)
		n = int(tag.RowsAffected())
		return err
	})
}

func collect(ctx context.Context, tx pgx.Tx, query string, args ...any) ([]int64, error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int64])
}

// Export copies all studies with their records into another store.
func (s *Store) Export(ctx context.Context, to search.Store) (studies, records int, err error) {
	var all []search.Saved
	err = s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		all = nil
		names := map[int64]string{}
		rows, err := tx.Query(ctx, "SELECT id, name FROM crepe.study ORDER BY id")
		if err != nil {
			return err
		}
		defer rows.Close()
		var ids []int64
		for rows.Next() {
			var id int64
			var name string
			if err := rows.Scan(&id, &name); err != nil {
				return err
			}
			ids, names[id] = append(ids, id), name
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for _, id := range ids {
			saved := search.Saved{Name: names[id]}
			if saved.Provenance, err = fields(ctx, tx, id); err != nil {
				return err
			}
			rows, err := tx.Query(ctx, "SELECT kind, key, value FROM crepe.record WHERE study = $1 ORDER BY id", id)
			if err != nil {
				return err
			}
			saved.Records, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r search.SavedRecord, err error) {
				err = row.Scan(&r.Kind, &r.Key, &r.Value)
				return r, err
			})
			if err != nil {
				return err
			}
			all = append(all, saved)
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	for _, saved := range all {
		st, err := to.Study(ctx, saved.Name, saved.Provenance)
		if err != nil {
			return studies, records, err
		}
		for _, r := range saved.Records {
			if err := st.Add(ctx, r.Kind, r.Record); err != nil {
				return studies, records, err
			}
			records++
		}
		studies++
	}
	return studies, records, nil
}
