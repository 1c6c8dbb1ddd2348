package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/crepe-llm/crepe/progress"
)

// meter shows progress on stderr: one live line on a terminal, otherwise a
// plain line now and then, so that a log stays readable.
type meter struct {
	w    io.Writer
	live bool

	label   string // of the live line
	started time.Time
	printed time.Time // plain lines: when the last one was
	bar     *progressbar.ProgressBar
	total   int64
}

// plainEvery is the time between two plain lines of one step.
const plainEvery = 10 * time.Second

func newMeter(w io.Writer) *meter {
	f, ok := w.(*os.File)
	return &meter{w: w, live: ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"}
}

// update is a progress.Func.
func (m *meter) update(u progress.Update) {
	now := time.Now()
	if u.Done == 0 || m.started.IsZero() || u.Total != m.total {
		m.finish()
		m.started, m.total = now, u.Total
		m.printed = now.Add(-plainEvery)
	}
	if m.live {
		m.drawLive(u)
		return
	}
	last := u.Done >= u.Total && u.Total > 0
	if !last && now.Sub(m.printed) < plainEvery {
		return
	}
	m.printed = now
	fmt.Fprintln(m.w, plainLine(u, now.Sub(m.started)))
}

func (m *meter) drawLive(u progress.Update) {
	bytes := u.Unit == "bytes"
	if m.bar == nil {
		options := []progressbar.Option{
			progressbar.OptionSetWriter(m.w),
			progressbar.OptionSetWidth(20),
			progressbar.OptionThrottle(100 * time.Millisecond),
			progressbar.OptionShowIts(),
			progressbar.OptionShowBytes(bytes),
			progressbar.OptionSetItsString(u.Unit),
			progressbar.OptionSetPredictTime(true),
			progressbar.OptionClearOnFinish(),
		}
		if bytes {
			options = append(options, progressbar.OptionShowCount())
		}
		m.bar = progressbar.NewOptions64(u.Total, options...)
	}
	label := u.Phase
	if !bytes { // the bar counts the whole step, the label its part
		label += fmt.Sprintf(", %d of %d", u.PartDone, u.PartTotal)
	}
	if label != m.label {
		m.label = label
		m.bar.Describe(fmt.Sprintf("%-28s", label))
	}
	_ = m.bar.Set64(u.Done) // a terminal that has gone is not an error of the work
}

// clearLine makes room for another line; the next update draws the bar again.
func (m *meter) clearLine() {
	if m.bar != nil {
		_ = m.bar.Clear()
	}
}

// finish clears the live line.
func (m *meter) finish() {
	if m.bar != nil {
		_ = m.bar.Clear()
		m.bar = nil
	}
	m.label = ""
	m.started = time.Time{}
}

// plainLine is "block 3 of 32: calibrate: 40 of 128 sequences, 12.1 sequences/s, 7s
// left". The count is that of the step's part, the time that of the whole step.
func plainLine(u progress.Update, elapsed time.Duration) string {
	done, total := float64(u.Done), float64(u.Total)
	line := fmt.Sprintf("%s: %d of %d %s", u.Phase, u.PartDone, u.PartTotal, u.Unit)
	if u.Unit == "bytes" {
		line = fmt.Sprintf("%s: %s of %s", u.Phase, formatBytes(u.PartDone), formatBytes(u.PartTotal))
		if u.PartTotal < 0 { // the server does not say
			line = fmt.Sprintf("%s: %s", u.Phase, formatBytes(u.PartDone))
		}
	}
	if s := elapsed.Seconds(); done > 0 && s > 0.001 {
		rate := done / s
		if u.Unit == "bytes" {
			line += fmt.Sprintf(", %s/s", formatBytes(int64(rate)))
		} else {
			line += fmt.Sprintf(", %.3g %s/s", rate, u.Unit)
		}
		if done < total {
			left := time.Duration((total - done) / rate * float64(time.Second))
			line += fmt.Sprintf(", %s left", left.Round(time.Second))
		}
	}
	return line
}
