package queue

import (
	"context"
	"encoding/json"
	"flag"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/queue/pgtest"
)

var (
	crowd = flag.Int("queue-workers", 100, "simulated workers of BenchmarkCrowd")
	cells = flag.Int("queue-cells", 2000, "empty cells of BenchmarkCrowd")
)

// BenchmarkCrowd has simulated workers take empty cells: goroutines with a River client
// each that share 100 connections and poll. It reports claims a second, and the time
// from a claim to its answer.
func BenchmarkCrowd(b *testing.B) {
	server := pgtest.Start(b)
	for b.Loop() {
		url := server.Database(b)
		s, err := Open(b.Context(), url, Options{})
		if err != nil {
			b.Fatal(err)
		}
		shared, err := Open(b.Context(), url, Options{Connections: 100})
		if err != nil {
			b.Fatal(err)
		}
		all := orders(*cells, 0)
		inserted := time.Now()
		if err := s.Order(b.Context(), all...); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(*cells)/time.Since(inserted).Seconds(), "orders/s")
		ctx, cancel := context.WithCancel(b.Context())
		var mu sync.Mutex
		var done []time.Duration
		var workers sync.WaitGroup
		started := time.Now()
		for range *crowd {
			workers.Go(func() {
				_ = shared.Work(ctx, Worker{poll: true, Have: anything, Do: func(context.Context, search.Order) (string, error) {
					mu.Lock()
					defer mu.Unlock()
					done = append(done, time.Since(started))
					return "{}", nil
				}})
			})
		}
		if err := s.Ask(b.Context(), all, func(int, string) error { return nil }); err != nil {
			b.Fatal(err)
		}
		took := time.Since(started)
		cancel()
		workers.Wait()
		if len(done) != *cells {
			b.Errorf("%d cells were computed, want each of %d once", len(done), *cells)
		}
		latency := claimTimes(b, s)
		b.ReportMetric(float64(*cells)/took.Seconds(), "claims/s")
		b.ReportMetric(float64(latency[len(latency)/2].Microseconds())/1e3, "ms/claim-p50")
		b.ReportMetric(float64(latency[len(latency)*99/100].Microseconds())/1e3, "ms/claim-p99")
		s.Close()
		shared.Close()
	}
}

// claimTimes are how long jobs took from their claim to their end, in order.
func claimTimes(b *testing.B, s *Store) []time.Duration {
	rows, err := s.pool.Query(b.Context(), "SELECT extract(epoch FROM finalized_at - attempted_at)::float8 FROM crepe.river_job WHERE state = 'completed'")
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	var out []time.Duration
	for rows.Next() {
		var seconds float64
		if err := rows.Scan(&seconds); err != nil {
			b.Fatal(err)
		}
		out = append(out, time.Duration(seconds*1e9))
	}
	if rows.Err() != nil || len(out) == 0 {
		b.Fatal(len(out), rows.Err())
	}
	slices.Sort(out)
	return out
}

// BenchmarkOverhead is what the queue adds to a cell: cells that wait so long, taken by
// one worker and by two.
func BenchmarkOverhead(b *testing.B) {
	const n, took = 12, time.Second
	server := pgtest.Start(b)
	for b.Loop() {
		var one time.Duration
		for _, workers := range []int{1, 2} {
			url := server.Database(b)
			s, err := Open(b.Context(), url, Options{})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			for range workers {
				w, err := Open(b.Context(), url, Options{})
				if err != nil {
					b.Fatal(err)
				}
				all.Go(func() {
					defer w.Close()
					_ = w.Work(ctx, Worker{Have: anything, Do: func(ctx context.Context, o search.Order) (string, error) { return answer(ctx, o, "") }})
				})
			}
			warm := orders(n, took)[:workers]
			for i := range warm {
				warm[i].Key, warm[i].Args = "warm"+warm[i].Key, json.RawMessage("0")
			}
			if err := s.Ask(b.Context(), warm, func(int, string) error { return nil }); err != nil {
				b.Fatal(err)
			}
			started := time.Now()
			if err := s.Ask(b.Context(), orders(n, took), func(int, string) error { return nil }); err != nil {
				b.Fatal(err)
			}
			wall := time.Since(started)
			cancel()
			all.Wait()
			s.Close()
			if workers == 1 {
				one = wall
				b.ReportMetric(float64((wall-n*took).Milliseconds())/n, "ms/cell")
			} else {
				b.ReportMetric(wall.Seconds()/one.Seconds(), "two/one")
			}
		}
	}
}
