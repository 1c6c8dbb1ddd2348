package live_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/crepe-llm/crepe/internal/browsertest"
	"github.com/crepe-llm/crepe/report"
	"github.com/crepe-llm/crepe/report/live"
)

// show writes a document and opens it.
func show(t testing.TB, b *browsertest.Browser, d *report.Document) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	f, err := os.Create(path)
	if err == nil {
		err = report.Write(f, d)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	address := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
	b.GoTo(t, address.String())
}

// drawnSeries is a series of a chart as ECharts gives it back.
type drawnSeries struct {
	Name string `json:"name"`
	Data []struct {
		Value []any `json:"value"`
		Row   int   `json:"row"`
	} `json:"data"`
}

// drawn returns the series of a figure's chart whose points are of rows.
func drawn(t *testing.T, b *browsertest.Browser, id string) []drawnSeries {
	t.Helper()
	text := browsertest.Value[string](t, b, fmt.Sprintf(`(() => {
		crepeReport.draw(%[1]q);
		const o = echarts.getInstanceByDom(document.querySelector("#" + CSS.escape(%[1]q) + " .chart")).getOption();
		return JSON.stringify(o.series.map((s) => ({ name: s.name, data: (s.data || []).filter((d) => d.row !== undefined) })));
	})()`, id))
	var s []drawnSeries
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// expected returns of each row what a chart must show, by the columns that it names:
// the numbers, in the order in which a point of that kind has them.
func expected(c *report.Chart, row []any, series string, columns []report.Column) (want []any, at []int) {
	y := c.Y[0]
	switch c.Kind {
	case "heatmap", "triangle":
		return []any{row[c.Value]}, []int{2}
	case "histogram":
		for _, k := range c.Y {
			if columns[k].Name == series {
				y = k
			}
		}
		return []any{row[c.X], row[c.Until], row[y]}, []int{0, 1, 2}
	case "bars":
		if series == "± standard error" {
			return nil, nil
		}
		if len(c.Y) > 1 {
			for _, k := range c.Y {
				if columns[k].Name == series {
					y = k
				}
			}
		}
		return []any{row[y]}, []int{1}
	}
	return []any{row[c.X], row[y]}, []int{0, 1}
}

// number is a cell as JSON has it.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case float32:
		f, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		return f, err == nil
	case int:
		return float64(v), true
	}
	return 0, false
}

// checkChart compares all that the chart of f shows with the rows of v.
func checkChart(t *testing.T, b *browsertest.Browser, f report.Figure, v report.View) {
	t.Helper()
	points := 0
	for _, s := range drawn(t, b, f.ID) {
		for _, p := range s.Data {
			want, at := expected(f.Chart, v.Rows[p.Row], s.Name, f.Columns)
			for i, w := range want {
				n, ok := number(w)
				if !ok {
					continue // a name on an axis
				}
				if got, is := p.Value[at[i]].(float64); !is || got != n {
					t.Errorf("%s, %s, row %d: the chart has %v, want %v", f.Title, s.Name, p.Row, p.Value, w)
					return // one says enough
				}
				points++
			}
		}
	}
	least := 0 // a point for each row that has numbers
	for _, row := range v.Rows {
		k := f.Chart.Y[0]
		if f.Chart.Value >= 0 {
			k = f.Chart.Value
		}
		if _, ok := number(row[k]); ok {
			least++
		}
	}
	if points < least || least == 0 {
		t.Errorf("%s %s: %d numbers in the chart, want those of %d rows", f.Title, v.Label, points, least)
	}
}

// TestReportInABrowser opens a report of everything there is, light and dark, wide
// and on a phone: nothing complains, nothing is asked of a network, the page is not
// wider than the screen, and charts and tables have the saved numbers.
func TestReportInABrowser(t *testing.T) {
	d := report.Build("a report", sampleItems())
	for _, c := range []struct {
		name, theme string
		width       int
	}{{"light", "light", 1280}, {"dark", "dark", 1280}, {"narrow", "light", 380}} {
		t.Run(c.name, func(t *testing.T) {
			b := browsertest.Open(t, c.width, c.theme)
			show(t, b, d)
			if theme := browsertest.Value[string](t, b, "document.documentElement.dataset.theme"); theme != c.theme {
				t.Errorf("theme %s, want %s", theme, c.theme)
			}
			if over := browsertest.Value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("the page is %d pixels wider than the screen", over)
			}
			charts := 0
			for _, s := range d.Sections {
				if got := browsertest.Value[string](t, b, fmt.Sprintf("document.getElementById(%q).textContent", s.ID)); got != s.Title {
					t.Errorf("section %s is headed %q, want %q", s.ID, got, s.Title)
				}
				for _, f := range s.Figures {
					if f.Chart != nil {
						charts++
						checkChart(t, b, f, f.Views[0])
					}
					if !f.Texts {
						checkCSV(t, b, f, f.Views[0])
					}
				}
			}
			if charts < 15 {
				t.Errorf("%d charts, want those of all sections", charts)
			}
			if over := browsertest.Value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("with all charts the page is %d pixels wider than the screen", over)
			}
			b.CheckQuiet(t, "file://")
		})
	}
}

// On paper there is nothing to scroll: no table is wider than its page.
func TestReportOnPaper(t *testing.T) {
	const width = 720 // of A4 between its margins, in CSS pixels
	b := browsertest.Open(t, width, "light")
	show(t, b, report.Build("paper", sampleItems()))
	if _, err := chromedp.Call(b.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}); err != nil {
		t.Fatal(err)
	}
	if n := browsertest.Value[int](t, b, "document.querySelectorAll('table').length"); n < 5 {
		t.Errorf("%d tables, want those that are open", n)
	}
	if over := browsertest.Value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		t.Errorf("the page is %d pixels wider than the paper", over)
	}
	pdf, err := chromedp.Run(b.Context, chromedp.PrintToPDF())
	if err != nil || len(pdf) < 20_000 {
		t.Errorf("printed: %d bytes (%v), want pages with charts", len(pdf), err)
	}
}

// checkCSV compares what is copied of a table with its rows.
func checkCSV(t *testing.T, b *browsertest.Browser, f report.Figure, v report.View) {
	t.Helper()
	lines, err := csv.NewReader(strings.NewReader(browsertest.Value[string](t, b, fmt.Sprintf("crepeReport.csv(%q)", f.ID)))).ReadAll()
	if err != nil || len(lines) != len(v.Rows)+1 {
		t.Fatalf("%s: %d lines of CSV, want %d (%v)", f.Title, len(lines), len(v.Rows)+1, err)
	}
	for i, row := range v.Rows {
		for k, cell := range row {
			got := lines[i+1][k]
			if n, ok := number(cell); ok {
				if x, err := strconv.ParseFloat(got, 64); err != nil || x != n {
					t.Errorf("%s, row %d, %s: CSV has %s, want %v", f.Title, i, f.Columns[k].Name, got, cell)
				}
			} else if want := ""; cell != nil && got != fmt.Sprint(cell) || cell == nil && got != want {
				t.Errorf("%s, row %d, %s: CSV has %q, want %v", f.Title, i, f.Columns[k].Name, got, cell)
			}
		}
	}
}

// Everything can be reached and used with the keyboard; a choice changes the chart,
// and that of the same Linear beside it.
func TestReportByKeyboard(t *testing.T) {
	d := report.Build("keys", sampleItems()[:1])
	b := browsertest.Open(t, 1280, "light")
	show(t, b, d)
	press := func(keys string) {
		t.Helper()
		if err := chromedp.Do(b.Context, chromedp.KeyEvent(keys)); err != nil {
			t.Fatal(err)
		}
	}
	press("\t")
	if got := browsertest.Value[string](t, b, "document.activeElement.className"); got != "skip" {
		t.Errorf("the first Tab is at %q, want the link that skips", got)
	}
	press("\t\r")
	if got := browsertest.Value[string](t, b, "document.documentElement.dataset.theme"); got != "dark" {
		t.Errorf("Enter on the button for the theme: %s, want dark", got)
	}
	seen := map[string]bool{}
	for range 80 {
		press("\t")
		seen[browsertest.Value[string](t, b, "document.activeElement.tagName")] = true
	}
	for _, want := range []string{"A", "SELECT", "SUMMARY", "BUTTON"} {
		if !seen[want] {
			t.Errorf("80 Tabs reach %v, want %s among them", seen, want)
		}
	}
	var scores report.Section
	for _, s := range d.Sections {
		if s.ID == "scores" {
			scores = s
		}
	}
	f := scores.Figures[0]
	browsertest.Value[bool](t, b, fmt.Sprintf("document.querySelector('#%s select').focus(), true", f.ID))
	press(kb.ArrowDown)
	for _, f := range scores.Figures {
		if got := browsertest.Value[string](t, b, fmt.Sprintf("document.querySelector('#%s select').value", f.ID)); got != f.Views[1].Label {
			t.Errorf("%s shows %s after an arrow key, want %s", f.Title, got, f.Views[1].Label)
		}
		checkChart(t, b, f, f.Views[1])
	}
	b.CheckQuiet(t, "file://")
}

// Names and texts that are no good are shown as they are.
func TestHostileTextIsText(t *testing.T) {
	const script = `<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">`
	const backwards = "\u202eevil\u202c שלום"
	long := strings.Repeat("very long ", 1<<20/10)
	var items []report.Item
	for _, name := range []string{script, backwards, `</script><script>window.hacked = 3</script>`, "'; window.hacked = 4; '", long} {
		item := sampleRun(name, 1, 0)
		item.Run.Record.Model = name
		item.Run.Manifest.Recipe.Method = "wanda"
		items = append(items, item,
			report.Item{Name: name + " texts", Texts: &report.Texts{Prompt: name, Continuation: report.Continuation{Model: name, Text: name}}})
	}
	d := report.Build(script, items)
	b := browsertest.Open(t, 380, "light")
	show(t, b, d)
	browsertest.Value[bool](t, b, "document.querySelectorAll('.chart').forEach((c) => crepeReport.draw(c.dataset.figure)), true")
	if got := browsertest.Value[string](t, b, "String(window.hacked)"); got != "undefined" {
		t.Errorf("a text was run: hacked is %s", got)
	}
	if got := browsertest.Value[string](t, b, "document.querySelector('h1').textContent"); got != script {
		t.Errorf("the title is %q, want %q", got, script)
	}
	for _, want := range []string{script, backwards, long} {
		quoted, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if !browsertest.Value[bool](t, b, fmt.Sprintf("[...document.querySelectorAll('.texts pre')].some((p) => p.textContent === %s)", quoted)) {
			t.Errorf("no text is %.80q", want)
		}
	}
	if over := browsertest.Value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		t.Errorf("the page is %d pixels wider than the screen", over)
	}
	b.CheckQuiet(t, "file://")
}

// serve serves what lies in dir, and returns the address.
func serve(t *testing.T, dir string) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &live.Server{Paths: []string{dir}, Title: "live", Every: 20 * time.Millisecond}
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/"
}

// What comes in is shown without reloading, and the reader chooses what to see.
func TestLiveInABrowser(t *testing.T) {
	dir := t.TempDir()
	address := serve(t, dir)
	b := browsertest.Open(t, 1280, "light")
	b.GoTo(t, address)
	b.Until(t, "document.getElementById('report').textContent.includes('nothing to show')")
	browsertest.Value[int](t, b, "window.stays = 1")

	run := pruneFixture(t, filepath.Join(dir, "one"), 1) // stops after a block
	b.Until(t, "document.querySelectorAll('#runs input').length === 1 && document.querySelector('#runs').textContent.includes('blocks pruned: 1')")
	b.Until(t, "document.getElementById('linears') !== null")
	run.finish()
	b.Until(t, "document.querySelector('#runs').textContent.includes('finished run')")
	pruneFixture(t, filepath.Join(dir, "two"), 0)
	b.Until(t, "[...document.querySelectorAll('#runs li')].filter((l) => l.textContent.includes('finished run')).length === 2 && document.querySelectorAll('#summary-0 tbody tr').length === 2")

	items, err := report.Load(t.Context(), []string{filepath.Join(dir, "one"), filepath.Join(dir, "two")})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range report.Build("", items).Sections {
		for _, f := range s.Figures {
			if f.Chart != nil {
				checkChart(t, b, f, f.Views[0])
			}
		}
	}
	browsertest.Value[bool](t, b, "document.querySelector('#runs input').click(), true")
	b.Until(t, "document.querySelectorAll('#summary-0 tbody tr').length === 1 && document.querySelector('#summary-0 tbody').textContent.includes('two')")
	if browsertest.Value[int](t, b, "window.stays") != 1 {
		t.Error("the page was loaded again")
	}
	b.CheckQuiet(t, address)
}
