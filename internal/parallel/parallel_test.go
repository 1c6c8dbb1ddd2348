package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestForVisitsEachIndexOnce(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 64, 1000} {
		for _, grain := range []int{0, 1, 3, 64, 2000} {
			seen := make([]atomic.Int32, n)
			For(n, grain, func(lo, hi int) {
				if lo >= hi {
					t.Errorf("n=%d grain=%d: empty run [%d,%d)", n, grain, lo, hi)
				}
				for i := lo; i < hi; i++ {
					seen[i].Add(1)
				}
			})
			for i := range seen {
				if got := seen[i].Load(); got != 1 {
					t.Fatalf("n=%d grain=%d: index %d visited %d times, want 1", n, grain, i, got)
				}
			}
		}
	}
}

func TestForRaisesPanicInCaller(t *testing.T) {
	defer func() {
		if r := recover(); r != "boom" {
			t.Fatalf("recovered %v, want boom", r)
		}
	}()
	For(100, 1, func(lo, hi int) {
		if lo == 40 {
			panic("boom")
		}
	})
	t.Fatal("For returned, want a panic")
}

// Short loops from several goroutines at a time, one within another, with pauses in which
// helpers give up: every index is visited once, and nobody waits for ever.
func TestForAmongOthers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	var wg sync.WaitGroup
	for c := range 6 {
		wg.Go(func() {
			for round := range 400 {
				var sum atomic.Int64
				For(5, 1, func(lo, _ int) {
					For(7, 2, func(inner, hi int) {
						for i := inner; i < hi; i++ {
							sum.Add(int64(lo*7 + i))
						}
					})
				})
				if want := int64(34 * 35 / 2); sum.Load() != want {
					t.Errorf("caller %d, round %d: sum %d, want %d", c, round, sum.Load(), want)
				}
				if round%100 == c {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

// A slow run of a helper does not keep the caller spinning for ever, nor does it lose it.
func TestForWaitsForSlowHelpers(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	for range 20 {
		var done atomic.Int64
		For(3, 1, func(lo, _ int) {
			if lo > 0 {
				time.Sleep(2 * time.Millisecond)
			}
			done.Add(1)
		})
		if done.Load() != 3 {
			t.Fatalf("For returned after %d of 3 runs", done.Load())
		}
	}
}

// BenchmarkFor has loops as short as those of decoding.
func BenchmarkFor(b *testing.B) {
	work := make([]float64, 1<<12)
	for b.Loop() {
		For(len(work), len(work)/8, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				work[i] = work[i]*0.5 + 1
			}
		})
	}
}
