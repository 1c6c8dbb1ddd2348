package live_test

import (
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"

	"github.com/crepe-llm/crepe/internal/browsertest"
	"github.com/crepe-llm/crepe/report"
)

// BenchmarkOpen measures how long a report takes to open in a browser, from the start of
// the navigation until it is loaded, with all headings and tables, and until the first
// chart is there; and the processor time of the page's main thread up to each, which a busy
// machine changes less.
func BenchmarkOpen(b *testing.B) {
	for _, c := range []struct {
		name   string
		blocks int
	}{{"demo", 6}, {"32blocks", 32}} {
		d := report.Build("opens", []report.Item{sampleRun("run", c.blocks, 0)})
		b.Run(c.name, func(b *testing.B) {
			var load, chart, cpuLoad, cpuChart float64
			n := 0
			for b.Loop() {
				tab := browsertest.Open(b, 1280, "light") // another browser each time: nothing is cached
				_, err := chromedp.Call(tab.Context, performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks})
				if err != nil {
					b.Fatal(err)
				}
				before := taskSeconds(b, tab)
				show(b, tab, d)
				cpuLoad += taskSeconds(b, tab) - before
				shown := 0.0
				for shown == 0 {
					time.Sleep(50 * time.Millisecond) // asking takes the page's time
					shown = browsertest.Value[float64](b, tab, `[...document.querySelectorAll(".chart")].some((c) => c.querySelector("svg, canvas")) ? performance.now() : 0`)
				}
				chart += shown
				load += browsertest.Value[float64](b, tab, `performance.getEntriesByType("navigation")[0].loadEventEnd`)
				cpuChart += taskSeconds(b, tab) - before
				n++
			}
			b.ReportMetric(load/float64(n), "ms/load")
			b.ReportMetric(chart/float64(n), "ms/chart")
			b.ReportMetric(1000*cpuLoad/float64(n), "cpu-ms/load")
			b.ReportMetric(1000*cpuChart/float64(n), "cpu-ms/chart")
		})
	}
}

// taskSeconds is the processor time that the page's main thread has taken.
func taskSeconds(t testing.TB, b *browsertest.Browser) float64 {
	t.Helper()
	got, err := chromedp.Call(b.Context, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got.Metrics {
		if m.Name == "TaskDuration" {
			return m.Value
		}
	}
	t.Fatalf("no TaskDuration in %d metrics", len(got.Metrics))
	return 0
}
