package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/crepe-llm/crepe/search"
)

// format is of a job's arguments: what this program writes, and the newest it reads.
const format = 1

// jobArgs are an order as River keeps it. Two of the same record are one job, while
// it is neither finished nor given up.
type jobArgs struct {
	Format int             `json:"format"`
	Study  string          `json:"study" river:"unique"`
	Record string          `json:"record" river:"unique"` // its kind
	Key    string          `json:"key" river:"unique"`
	What   string          `json:"what"`
	Model  search.Weights  `json:"model"`
	Args   json.RawMessage `json:"args"`
}

// Kind implements river.JobArgs.
func (jobArgs) Kind() string { return "crepe" }

func (a jobArgs) order() search.Order {
	return search.Order{Study: a.Study, Kind: a.Record, Key: a.Key, What: a.What, Model: a.Model, Args: a.Args}
}

// unfinished are the states of jobs that somebody works or will.
var unfinished = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled,
}

// River takes the least number first.
const (
	soon  = 1
	later = 3
)

// attempts are how often an order may fail before it is given up, whoever tries.
const attempts = 3

var modelID = regexp.MustCompile(`^[0-9a-f]{8,64}$`)

// queueOf is the River queue of a model's orders: a worker takes from those of the
// models that it has.
func queueOf(w search.Weights) string {
	if !modelID.MatchString(w.ID) {
		panic(fmt.Sprintf("queue: model %q, want a hash in hexadecimal", w.ID))
	}
	return "model-" + w.ID
}

// Order implements search.Queue.
func (s *Store) Order(ctx context.Context, orders ...search.Order) error {
	_, err := s.order(ctx, orders)
	return err
}

// batch is how many orders one transaction takes.
const batch = 1000

// order returns the jobs' numbers; 0 of an order that is answered already.
func (s *Store) order(ctx context.Context, orders []search.Order) ([]int64, error) {
	var ids []int64
	for part := range slices.Chunk(orders, batch) {
		var some []int64
		err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			some, err = s.orderIn(ctx, tx, part)
			return err
		})
		if err != nil {
			return nil, err
		}
		ids = append(ids, some...)
	}
	return ids, nil
}

func (s *Store) orderIn(ctx context.Context, tx pgx.Tx, orders []search.Order) ([]int64, error) {
	done, err := s.answers(ctx, tx, orders)
	if err != nil {
		return nil, err
	}
	ids, models := make([]int64, len(orders)), map[string]search.Weights{}
	var params []river.InsertManyParams
	var at []int
	for i, o := range orders {
		if _, ok := done[i]; ok {
			continue
		}
		queue, priority := queueOf(o.Model), soon
		if o.Later {
			priority = later
		}
		models[queue] = o.Model
		params, at = append(params, river.InsertManyParams{
			Args: jobArgs{format, o.Study, o.Kind, o.Key, o.What, o.Model, o.Args},
			InsertOpts: &river.InsertOpts{
				Queue: queue, Priority: priority, MaxAttempts: attempts, UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: unfinished},
			},
		}), append(at, i)
	}
	for queue, m := range models {
		if _, err := tx.Exec(ctx, "INSERT INTO crepe.model VALUES ($1, $2, $3, $4) ON CONFLICT (queue) DO UPDATE SET name = excluded.name WHERE model.name <> excluded.name", queue, m.Name, m.ID, m.Bytes); err != nil {
			return nil, err
		}
	}
	if len(params) == 0 {
		return ids, nil
	}
	results, err := s.river.InsertManyTx(ctx, tx, params)
	if err != nil {
		return nil, err
	}
	var hasten []int64
	for i, r := range results {
		ids[at[i]] = r.Job.ID
		if r.UniqueSkippedAsDuplicate && r.Job.Priority > soon && !orders[at[i]].Later {
			hasten = append(hasten, r.Job.ID)
		}
	}
	if hasten != nil {
		_, err = tx.Exec(ctx, "UPDATE crepe.river_job SET priority = $1 WHERE id = ANY($2)", soon, hasten)
	}
	return ids, err
}

// answers returns the answers that are there, by the order's place in the list.
func (s *Store) answers(ctx context.Context, tx pgx.Tx, orders []search.Order) (map[int]string, error) {
	studies, kinds, keys := names(orders)
	rows, err := tx.Query(ctx, `SELECT o.ord, r.value FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS o (study, kind, key, ord)
		JOIN crepe.study s ON s.name = o.study JOIN crepe.record r ON r.study = s.id AND r.kind = o.kind AND r.key = o.key`, studies, kinds, keys)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := map[int]string{}
	for rows.Next() {
		var i int
		var value string
		if err := rows.Scan(&i, &value); err != nil {
			return nil, err
		}
		found[i-1] = value
	}
	return found, rows.Err()
}

// errGivenUp marks the error of an order that nobody will carry out.
var errGivenUp = errors.New("given up")

// How often Ask looks for answers. A search waits for one after the other, a grid for
// thousands at a time.
const (
	askOften  = 50 * time.Millisecond
	askSeldom = 500 * time.Millisecond
	many      = 100
)

// Ask implements search.Queue.
func (s *Store) Ask(ctx context.Context, orders []search.Order, each func(i int, value string) error) error {
	ids, err := s.order(ctx, orders)
	if err != nil {
		return err
	}
	open := make([]int, len(orders))
	for i := range open {
		open[i] = i
	}
	for lonely := time.Now().Add(hintAfter); len(open) > 0; {
		if !lonely.IsZero() && time.Now().After(lonely) {
			lonely = time.Time{}
			if err := s.hint(ctx, ids); err != nil {
				return err
			}
		}
		some := make([]search.Order, len(open))
		for i, at := range open {
			some[i] = orders[at]
		}
		var found map[int]string
		err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
			if found, err = s.answers(ctx, tx, some); err != nil || len(found) > 0 {
				return err
			}
			return s.givenUp(ctx, tx, some, open, ids)
		})
		if err != nil {
			return err
		}
		var left []int
		for i, at := range open {
			value, ok := found[i]
			if !ok {
				left = append(left, at)
				continue
			}
			lonely = time.Time{}
			if err := each(at, value); err != nil {
				return err
			}
		}
		wait := askOften
		if len(left) > many {
			wait = askSeldom
		}
		if open = left; len(open) > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(wait):
			}
		}
	}
	return nil
}

// hintAfter is when Ask says that nobody is at work.
const hintAfter = 10 * time.Second

// hint says so if nobody is at work on any of these jobs.
func (s *Store) hint(ctx context.Context, ids []int64) error {
	busy := false
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		return tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM crepe.river_job WHERE id = ANY($1) AND state = 'running')", ids).Scan(&busy)
	})
	if err == nil && !busy {
		s.note("no worker has begun with this yet: start one with crepe worker --store, with the model in reach; crepe store status shows who works")
	}
	return err
}

// givenUp returns the error of the first order whose job has ended without an answer.
func (s *Store) givenUp(ctx context.Context, tx pgx.Tx, orders []search.Order, open []int, ids []int64) error {
	jobs := make([]int64, len(open))
	for i, at := range open {
		jobs[i] = ids[at]
	}
	var id int64
	var state string
	var why []byte
	err := tx.QueryRow(ctx, `SELECT id, state, errors[array_length(errors, 1)] FROM crepe.river_job
		WHERE id = ANY($1) AND state IN ('cancelled', 'discarded') ORDER BY id LIMIT 1`, jobs).Scan(&id, &state, &why)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	what := orders[slices.Index(jobs, id)].What
	if state == string(rivertype.JobStateCancelled) {
		return fmt.Errorf("%s: job %d was cancelled: run the same command again to ask for it again (%w)", what, id, errGivenUp)
	}
	var e rivertype.AttemptError
	if err := json.Unmarshal(why, &e); err != nil {
		return fmt.Errorf("%s: job %d: %w", what, id, err)
	}
	return fmt.Errorf("%s: job %d was given up after %d attempts, the last: %s (%w; crepe store retry, or the same command again, asks for it again)", what, id, attempts, strings.TrimSpace(e.Error), errGivenUp)
}

// Withdraw implements search.Queue.
func (s *Store) Withdraw(ctx context.Context, orders ...search.Order) error {
	if len(orders) == 0 {
		return nil
	}
	studies, kinds, keys := names(orders)
	return s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM crepe.river_job USING unnest($1::text[], $2::text[], $3::text[]) AS o (study, kind, key)
			WHERE state = 'available' AND priority = $4 AND args->>'study' = o.study AND args->>'record' = o.kind AND args->>'key' = o.key`,
			studies, kinds, keys, later)
		return err
	})
}

// names are the orders' names as columns.
func names(orders []search.Order) (studies, kinds, keys []string) {
	for _, o := range orders {
		studies, kinds, keys = append(studies, o.Study), append(kinds, o.Kind), append(keys, o.Key)
	}
	return studies, kinds, keys
}
