// Package bench measures crepe's kernels on the machine it runs on, beside what
// the machine can do at best: the peaks.
//
// Every case is run until it has taken a while, at least minRuns times, and the
// fastest run counts: what else the machine does can only make one slower.
package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/sysinfo"
	"github.com/crepe-llm/crepe/progress"
)

// Options says what to measure.
type Options struct {
	// Quick measures small shapes, briefly: a second or two and some 100 MB
	// instead of half a minute and 0.8 GB. Caches hold them, so shares of the
	// read bandwidth may be above 1.
	Quick bool

	Progress progress.Func
}

// Report is what was measured.
type Report struct {
	Level   string  `json:"kernels"` // instruction level, cpu.Current: avx512, avx2, generic
	BF16    bool    `json:"bf16"`    // the processor multiplies bfloat16
	Threads int     `json:"threads"`
	Quick   bool    `json:"quick"`
	Peaks   []Case  `json:"peaks"`
	Cases   []Case  `json:"cases"`
	Seconds float64 `json:"seconds"` // of the whole measurement
	PeakRSS int64   `json:"peak_rss_bytes"`
}

// Case is one measurement.
type Case struct {
	Group   string  `json:"group"`
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"` // of the fastest run
	Runs    int     `json:"runs"`
	Rate    float64 `json:"rate"`
	Unit    string  `json:"unit"`            // of the rate: GFLOP/s, GB/s, MB/s
	Of      string  `json:"of,omitempty"`    // the peak that it is held against
	Share   float64 `json:"share,omitempty"` // of that peak
}

// The names of the peaks.
const (
	peakF32  = "f32 multiply-add"
	peakBF16 = "bf16 multiply-add"
	peakRead = "read memory"
)

// Run measures. It allocates the operands of one case at a time.
func Run(ctx context.Context, o Options) (*Report, error) {
	start := time.Now()
	r := &runner{ctx: ctx, quick: o.Quick}
	r.Report = Report{Level: cpu.Current().String(), BF16: cpu.AVX512BF16, Threads: runtime.GOMAXPROCS(0), Quick: o.Quick}
	// The peaks a second time: what disturbed them once would flatter all else.
	steps := []func(*runner) error{measurePeaks, products, vectors, attention, scores, solves, tokenizers, measurePeaks}
	bar := o.Progress.Start("bench", int64(len(steps)), "groups")
	for _, step := range steps {
		if err := step(r); err != nil {
			return nil, err
		}
		runtime.GC() // the operands of the last case go before the next come
		bar.Add(1)
	}
	for i := range r.Cases {
		c := &r.Cases[i]
		if p := r.peak(c.Of); p != nil {
			c.Share = c.Rate / p.Rate
		}
	}
	r.Seconds, r.PeakRSS = time.Since(start).Seconds(), sysinfo.PeakRSS()
	return &r.Report, nil
}

// runner is a Run at work.
type runner struct {
	Report
	ctx   context.Context
	quick bool
}

// peak returns the one called name, nil if there is none.
func (r *runner) peak(name string) *Case {
	for i := range r.Peaks {
		if r.Peaks[i].Name == name {
			return &r.Peaks[i]
		}
	}
	return nil
}

const minRuns = 3

// time returns the shortest time of f, of runs that take together about
// 0.4 s, or 0.04 s if quick.
func (r *runner) time(f func() error) (best time.Duration, runs int, err error) {
	least := 400 * time.Millisecond
	if r.quick {
		least /= 10
	}
	var total time.Duration
	for runs < minRuns || total < least {
		if err := r.ctx.Err(); err != nil {
			return 0, 0, err
		}
		start := time.Now()
		if err := f(); err != nil {
			return 0, 0, err
		}
		took := max(time.Since(start), 1)
		if runs == 0 || took < best {
			best = took
		}
		total += took
		runs++
	}
	return best, runs, nil
}

// measure adds a case: f does work operations or bytes; of names the peak that
// the rate is a share of, if any.
func (r *runner) measure(group, name string, work float64, unit, of string, f func() error) error {
	c, err := r.clock(group, name, work, unit, f)
	c.Of = of
	r.Cases = append(r.Cases, c)
	return err
}

// measurePeak adds a peak, or betters it.
func (r *runner) measurePeak(name string, work float64, unit string, f func() error) error {
	c, err := r.clock("peak", name, work, unit, f)
	if p := r.peak(name); p == nil {
		r.Peaks = append(r.Peaks, c)
	} else if c.Rate > p.Rate {
		*p = c
	}
	return err
}

func (r *runner) clock(group, name string, work float64, unit string, f func() error) (Case, error) {
	best, runs, err := r.time(f)
	if err != nil {
		return Case{}, fmt.Errorf("bench: %s, %s: %w", group, name, err)
	}
	return Case{Group: group, Name: name, Seconds: best.Seconds(), Runs: runs, Unit: unit,
		Rate: work / best.Seconds() / scaleOf[unit]}, nil
}

// scaleOf is how many operations or bytes a unit of a rate is.
var scaleOf = map[string]float64{"GFLOP/s": 1e9, "GB/s": 1e9, "MB/s": 1e6}
