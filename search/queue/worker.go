package queue

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"github.com/crepe-llm/crepe/search"
)

// Lost is for how long nothing is heard of whoever works at a job, by the database's
// clock, before the job is another's.
const Lost = time.Minute

// Worker carries out orders, one at a time.
type Worker struct {
	// Have returns nil if orders for a model can be carried out here; else why not, and
	// they are left to others.
	Have func(ctx context.Context, w search.Weights) error

	// Do carries out an order and returns the record's value. When ctx ends the
	// order is no longer wanted, or not of this worker. What Leave returns leaves the
	// order to others.
	Do func(ctx context.Context, o search.Order) (string, error)

	// Idle is for how long there may be no work before Work returns. 0: for ever.
	Idle time.Duration

	// Lost is the package's if it is 0. All workers of a store have the same.
	Lost time.Duration

	poll bool // looks for orders now and then, and listens for none: many share a connection
}

// Leave returns err as what keeps this worker from an order that others may carry out.
func Leave(err error) error { return left{err} }

// left is an error of this worker, not of the order.
type left struct{ error }

func (l left) Unwrap() error { return l.error }

// How often a worker without work looks for some, and how long it stays with a model
// whose orders have run out.
const (
	lookEvery = time.Second
	stay      = 2 * time.Second
)

// beat is how often a worker says that it lives, and for how long it leaves an order
// to others that has failed here.
func (w *Worker) beat() time.Duration { return w.Lost / 6 }

// Work carries out orders until ctx ends, or nothing is left for as long as w says.
// What is then being worked on goes back into the queue.
func (s *Store) Work(ctx context.Context, w Worker) error {
	if w.Lost == 0 {
		w.Lost = Lost
	}
	refused := map[string]time.Time{} // models that are not here, and when that was seen
	for last := time.Now(); ; {
		queue, err := s.pick(ctx, w, refused)
		if err != nil {
			return err
		}
		if queue != "" {
			st := &stint{Store: s, w: w, queue: queue, fell: make(chan struct{}, 1)}
			if err := st.run(ctx); err != nil {
				return err
			}
			if st.left.Load() {
				refused[queue] = time.Now()
			}
			last = time.Now()
			continue
		}
		if err := s.once(ctx, func(ctx context.Context) error { return s.tend(ctx, w) }); err != nil && ctx.Err() == nil {
			s.heard(err)
		}
		if w.Idle > 0 && time.Since(last) >= w.Idle {
			return nil
		}
		if err := pause(ctx, lookEvery); err != nil {
			return err
		}
	}
}

// pause waits so long, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// askAgain is when a model that was not here is looked for again.
const askAgain = time.Minute

// pick returns a queue with orders that can be carried out here, of several the one
// that has waited longest; empty if there is none.
func (s *Store) pick(ctx context.Context, w Worker, refused map[string]time.Time) (string, error) {
	type choice struct {
		queue string
		model search.Weights
	}
	var all []choice
	err := s.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		all = nil
		rows, err := tx.Query(ctx, `SELECT m.queue, m.name, m.id, m.bytes FROM crepe.model m JOIN LATERAL (
			SELECT j.priority, j.id FROM crepe.river_job j WHERE j.state = 'available' AND j.queue = m.queue AND j.scheduled_at <= now()
			ORDER BY j.priority, j.scheduled_at, j.id LIMIT 1) first ON true ORDER BY first.priority, first.id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c choice
			if err := rows.Scan(&c.queue, &c.model.Name, &c.model.ID, &c.model.Bytes); err != nil {
				return err
			}
			all = append(all, c)
		}
		return rows.Err()
	})
	if err != nil {
		return "", err
	}
	for _, c := range all {
		when, seen := refused[c.queue]
		if seen && time.Since(when) < askAgain {
			continue
		}
		err := w.Have(ctx, c.model)
		if err == nil {
			delete(refused, c.queue)
			return c.queue, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		if refused[c.queue] = time.Now(); !seen {
			s.note("left to other workers: %v", err)
		}
	}
	return "", nil
}

// fetchEvery is how soon a worker fetches again. River's 100 ms are 1 % of a cell of 10 s.
const fetchEvery = 10 * time.Millisecond

// endsWithin is how long a worker that is told to stop tries to give its order back.
const endsWithin = 10 * time.Second

// stint is a time in which a worker takes orders for one model.
type stint struct {
	river.WorkerDefaults[jobArgs]
	*Store
	w     Worker
	queue string

	client *river.Client[pgx.Tx]
	now    atomic.Pointer[turn] // nil between orders
	last   atomic.Int64         // when an order began or ended, Unix nanoseconds
	failed atomic.Bool          // an order failed here
	left   atomic.Bool          // an order was left to others
	fell   chan struct{}        // is sent to then
}

// turn is an order that is being carried out.
type turn struct {
	job    int64
	cancel context.CancelCauseFunc
}

// run works until the queue is empty, an order fails, or ctx ends.
func (st *stint) run(ctx context.Context) error {
	workers := river.NewWorkers()
	river.AddWorker(workers, st)
	var err error
	st.client, err = newClient(st.pool, &river.Config{
		Queues: map[string]river.QueueConfig{st.queue: {MaxWorkers: 1}}, Workers: workers,
		FetchCooldown: fetchEvery, PollOnly: st.w.poll, LeaderElectionDisabled: st.w.poll,
		JobTimeout: -1, // an order takes as long as it takes, while its worker is heard of
	})
	if err != nil {
		return err
	}
	life := context.WithoutCancel(ctx) // an end is asked for by Stop
	if err := st.once(ctx, func(context.Context) error { return st.client.Start(life) }); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		st.heard(err)
		return pause(ctx, lookEvery)
	}
	beat := time.NewTicker(st.w.beat())
	defer beat.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var stopped chan error // nil as long as more may come
	stop := func() {
		stopped = make(chan error, 1)
		go func() { stopped <- st.client.Stop(life) }() // after the order that may just have begun
	}
	st.last.Store(time.Now().UnixNano())
	for {
		select {
		case <-ctx.Done():
			// The order goes back; a database that does not answer finds out by itself.
			end, cancel := context.WithTimeout(life, endsWithin)
			defer cancel()
			if err := st.client.StopAndCancel(end); err != nil {
				st.note("%v", st.explain(err))
			}
			return ctx.Err()
		case err := <-stopped:
			if err == nil && st.failed.Load() && !st.left.Load() {
				return pause(ctx, st.w.beat())
			}
			return st.explain(err)
		case <-beat.C:
			if err := st.once(ctx, st.beat); ctx.Err() == nil {
				st.heard(err)
			}
		case <-st.fell:
			if stopped == nil {
				stop()
			}
		case <-look.C:
			if stopped == nil && st.now.Load() == nil && time.Since(time.Unix(0, st.last.Load())) > stay {
				stop()
			}
		}
	}
}

// beat says that this worker lives, hears whether its order is still wanted, and
// looks after the orders of those that do not live.
func (st *stint) beat(ctx context.Context) error {
	if t := st.now.Load(); t != nil {
		// A job that was given up for lost is this worker's still, if nobody has taken it.
		_, err := st.pool.Exec(ctx, `UPDATE crepe.river_job SET attempted_at = now(), state = 'running', attempt = attempt + (state = 'available')::int
			WHERE id = $1 AND (state = 'running' OR state = 'available' AND metadata ? 'lost') AND attempted_by[array_length(attempted_by, 1)] = $2`, t.job, st.client.ID())
		if err != nil {
			return err
		}
		var state string
		err = st.pool.QueryRow(ctx, "SELECT state FROM crepe.river_job WHERE id = $1", t.job).Scan(&state)
		switch {
		case errors.Is(err, pgx.ErrNoRows), state == string(rivertype.JobStateCompleted), state == string(rivertype.JobStateCancelled):
			t.cancel(errUnwanted)
		case err != nil:
			return err
		}
	}
	return st.tend(ctx, st.w)
}

var errUnwanted = errors.New("the order was answered by another worker, or cancelled")

// losses are how many workers an order may take with it before it is given up: one
// that needs more memory than any of them has.
const losses = 20

// tend gives the jobs of lost workers to others, and lets none wait for a time that
// a clock gone wrong has set. River's rescuer does not suit: it goes by the clock of
// one of the workers and by the longest time that a job may take, which is not known
// of a cell. Here the database's clock counts, and one process at a time looks.
func (s *Store) tend(ctx context.Context, w Worker) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		mine, err := tx.Exec(ctx, "UPDATE crepe.tended SET at = now() WHERE ctid IN (SELECT ctid FROM crepe.tended WHERE at < now() - $1::interval FOR UPDATE SKIP LOCKED)", w.beat())
		if err != nil || mine.RowsAffected() == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE crepe.river_job SET
				state = CASE WHEN metadata ? 'cancel_attempted_at' THEN 'cancelled' WHEN coalesce((metadata->>'lost')::int, 0) + 1 >= $2 THEN 'discarded' ELSE 'available' END::crepe.river_job_state,
				finalized_at = CASE WHEN metadata ? 'cancel_attempted_at' OR coalesce((metadata->>'lost')::int, 0) + 1 >= $2 THEN now() END,
				attempt = greatest(attempt - 1, 0), scheduled_at = now(),
				metadata = jsonb_set(metadata, '{lost}', to_jsonb(coalesce((metadata->>'lost')::int, 0) + 1)),
				errors = array_append(errors, jsonb_build_object('at', now(), 'attempt', attempt, 'trace', '', 'error',
					format('its worker %s was not heard of for %s', attempted_by[array_length(attempted_by, 1)], $1::interval)))
			WHERE state = 'running' AND kind = 'crepe' AND attempted_at < now() - $1::interval`, w.Lost, losses); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE crepe.river_job SET state = 'available', scheduled_at = now()
			WHERE kind = 'crepe' AND (state IN ('retryable', 'scheduled') AND scheduled_at < now() OR state IN ('available', 'retryable', 'scheduled') AND scheduled_at > now() + $1::interval)`, w.Lost)
		return err
	})
}

// NextRetry implements river.Worker: at once, for another worker; this one rests.
func (st *stint) NextRetry(*river.Job[jobArgs]) time.Time { return time.Now().Add(time.Second) }

// Work implements river.Worker.
func (st *stint) Work(ctx context.Context, job *river.Job[jobArgs]) error {
	a := job.Args
	if st.failed.Load() {
		return river.JobSnooze(0) // this worker rests
	}
	if a.Format > format {
		st.fail()
		return fmt.Errorf("an order of format %d, want at most %d: a newer crepe has made it; update crepe on this machine", a.Format, format)
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	st.now.Store(&turn{job.ID, cancel})
	defer func() {
		st.last.Store(time.Now().UnixNano())
		st.now.Store(nil)
	}()
	value, err := st.value(work, a.order())
	if err == nil {
		err = st.deliver(ctx, job, value)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(work), errUnwanted):
		return nil // the job has ended; River changes only what runs
	case ctx.Err() != nil:
		return ctx.Err()
	}
	st.fail()
	if errors.As(err, new(left)) {
		st.left.Store(true)
		st.note("left to other workers: %s: %v", a.What, err)
		return river.JobSnooze(0)
	}
	st.note("%s: %v", a.What, err)
	return err
}

// fail ends the stint.
func (st *stint) fail() {
	st.failed.Store(true)
	select {
	case st.fell <- struct{}{}:
	default:
	}
}

// value is the answer to an order: that of another worker if it is there already.
func (st *stint) value(ctx context.Context, o search.Order) (string, error) {
	var have map[int]string
	err := st.change(ctx, func(ctx context.Context, tx pgx.Tx) (err error) {
		have, err = st.answers(ctx, tx, []search.Order{o})
		return err
	})
	if err != nil {
		return "", err
	}
	if v, ok := have[0]; ok {
		return v, nil
	}
	return st.w.Do(ctx, o)
}

// deliver adds the record and ends the job, in one transaction. It insists: the work
// is done.
func (st *stint) deliver(ctx context.Context, job *river.Job[jobArgs], value string) error {
	a := job.Args
	return st.change(ctx, func(ctx context.Context, tx pgx.Tx) error {
		const add = "INSERT INTO crepe.record (study, kind, key, value) SELECT id, $2, $3, $4 FROM crepe.study WHERE name = $1 ON CONFLICT DO NOTHING"
		if _, err := tx.Exec(ctx, "INSERT INTO crepe.study (name) SELECT $1 WHERE NOT EXISTS (SELECT FROM crepe.study WHERE name = $1) ON CONFLICT DO NOTHING", a.Study); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, add, a.Study, a.Record, a.Key, value); err != nil {
			return err
		}
		_, err := river.JobCompleteTx[*riverpgxv5.Driver](ctx, tx, job)
		if errors.Is(err, rivertype.ErrNotFound) {
			return nil // it was deleted
		}
		return err
	})
}
