package live_test

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/crepe-llm/crepe/report"
	"github.com/crepe-llm/crepe/report/live"
)

// browsers are the names that Chromium goes by.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "chrome"}

// browser is a tab of a headless Chromium, and what it complained of.
type browser struct {
	context.Context
	mu       sync.Mutex
	problems []string // on the console
	requests []string // for anything that is not in the page
}

// open starts one; without a Chromium the test is skipped.
func open(t testing.TB, width int, theme string) *browser {
	t.Helper()
	path := ""
	for _, name := range browsers {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skipf("no browser: none of %s is installed", strings.Join(browsers, ", "))
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)
	all, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(all)
	t.Cleanup(cancel)
	b := &browser{Context: ctx}
	console, requests := chromedp.Console(ctx), chromedp.Events(ctx, network.RequestWillBeSent)
	go func() {
		for m, err := range console {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.problems = append(b.problems, m.String())
			b.mu.Unlock()
		}
	}()
	go func() {
		for r, err := range requests {
			if err != nil {
				return
			}
			b.mu.Lock()
			b.requests = append(b.requests, r.Request.URL)
			b.mu.Unlock()
		}
	}()
	_, err := chromedp.Call(ctx, network.Enable, network.EnableParams{})
	if err == nil {
		_, err = chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}})
	}
	if err == nil {
		err = chromedp.Do(ctx, chromedp.EmulateViewport(int64(width), 900))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// goTo opens a page, and fails the test if it takes what it must not.
func (b *browser) goTo(t testing.TB, address string) {
	t.Helper()
	if err := chromedp.Do(b.Context, chromedp.Navigate(address)); err != nil {
		t.Fatal(err)
	}
}

// show writes a document and opens it.
func (b *browser) show(t testing.TB, d *report.Document) {
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
	b.goTo(t, address.String())
}

// value returns what an expression is in the page.
func value[T any](t testing.TB, b *browser, expression string) T {
	t.Helper()
	v, err := chromedp.Run(b.Context, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// until waits for an expression to be true.
func (b *browser) until(t testing.TB, expression string) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if value[bool](t, b, expression) {
			return
		}
	}
	t.Fatalf("not true after a minute: %s; the page has %s", expression, value[string](t, b, "document.body.innerText.slice(0, 2000)"))
}

// checkQuiet fails the test if the console had an error or the page asked for more
// than itself.
func (b *browser) checkQuiet(t *testing.T, own string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		t.Errorf("console: %s", p)
	}
	for _, r := range b.requests {
		if !strings.HasPrefix(r, own) && !strings.HasPrefix(r, "data:") {
			t.Errorf("the page asked for %s", r)
		}
	}
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
func drawn(t *testing.T, b *browser, id string) []drawnSeries {
	t.Helper()
	text := value[string](t, b, fmt.Sprintf(`(() => {
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
func checkChart(t *testing.T, b *browser, f report.Figure, v report.View) {
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
			b := open(t, c.width, c.theme)
			b.show(t, d)
			if theme := value[string](t, b, "document.documentElement.dataset.theme"); theme != c.theme {
				t.Errorf("theme %s, want %s", theme, c.theme)
			}
			if over := value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("the page is %d pixels wider than the screen", over)
			}
			charts := 0
			for _, s := range d.Sections {
				if got := value[string](t, b, fmt.Sprintf("document.getElementById(%q).textContent", s.ID)); got != s.Title {
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
			if over := value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
				t.Errorf("with all charts the page is %d pixels wider than the screen", over)
			}
			b.checkQuiet(t, "file://")
		})
	}
}

// On paper there is nothing to scroll: no table is wider than its page.
func TestReportOnPaper(t *testing.T) {
	const width = 720 // of A4 between its margins, in CSS pixels
	b := open(t, width, "light")
	b.show(t, report.Build("paper", sampleItems()))
	if _, err := chromedp.Call(b.Context, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}); err != nil {
		t.Fatal(err)
	}
	if n := value[int](t, b, "document.querySelectorAll('table').length"); n < 5 {
		t.Errorf("%d tables, want those that are open", n)
	}
	if over := value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		t.Errorf("the page is %d pixels wider than the paper", over)
	}
	pdf, err := chromedp.Run(b.Context, chromedp.PrintToPDF())
	if err != nil || len(pdf) < 20_000 {
		t.Errorf("printed: %d bytes (%v), want pages with charts", len(pdf), err)
	}
}

// checkCSV compares what is copied of a table with its rows.
func checkCSV(t *testing.T, b *browser, f report.Figure, v report.View) {
	t.Helper()
	lines, err := csv.NewReader(strings.NewReader(value[string](t, b, fmt.Sprintf("crepeReport.csv(%q)", f.ID)))).ReadAll()
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
	b := open(t, 1280, "light")
	b.show(t, d)
	press := func(keys string) {
		t.Helper()
		if err := chromedp.Do(b.Context, chromedp.KeyEvent(keys)); err != nil {
			t.Fatal(err)
		}
	}
	press("\t")
	if got := value[string](t, b, "document.activeElement.className"); got != "skip" {
		t.Errorf("the first Tab is at %q, want the link that skips", got)
	}
	press("\t\r")
	if got := value[string](t, b, "document.documentElement.dataset.theme"); got != "dark" {
		t.Errorf("Enter on the button for the theme: %s, want dark", got)
	}
	seen := map[string]bool{}
	for range 80 {
		press("\t")
		seen[value[string](t, b, "document.activeElement.tagName")] = true
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
	value[bool](t, b, fmt.Sprintf("document.querySelector('#%s select').focus(), true", f.ID))
	press(kb.ArrowDown)
	for _, f := range scores.Figures {
		if got := value[string](t, b, fmt.Sprintf("document.querySelector('#%s select').value", f.ID)); got != f.Views[1].Label {
			t.Errorf("%s shows %s after an arrow key, want %s", f.Title, got, f.Views[1].Label)
		}
		checkChart(t, b, f, f.Views[1])
	}
	b.checkQuiet(t, "file://")
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
	b := open(t, 380, "light")
	b.show(t, d)
	value[bool](t, b, "document.querySelectorAll('.chart').forEach((c) => crepeReport.draw(c.dataset.figure)), true")
	if got := value[string](t, b, "String(window.hacked)"); got != "undefined" {
		t.Errorf("a text was run: hacked is %s", got)
	}
	if got := value[string](t, b, "document.querySelector('h1').textContent"); got != script {
		t.Errorf("the title is %q, want %q", got, script)
	}
	for _, want := range []string{script, backwards, long} {
		quoted, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		if !value[bool](t, b, fmt.Sprintf("[...document.querySelectorAll('.texts pre')].some((p) => p.textContent === %s)", quoted)) {
			t.Errorf("no text is %.80q", want)
		}
	}
	if over := value[int](t, b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
		t.Errorf("the page is %d pixels wider than the screen", over)
	}
	b.checkQuiet(t, "file://")
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
	b := open(t, 1280, "light")
	b.goTo(t, address)
	b.until(t, "document.getElementById('report').textContent.includes('nothing to show')")
	value[int](t, b, "window.stays = 1")

	run := pruneFixture(t, filepath.Join(dir, "one"), 1) // stops after a block
	b.until(t, "document.querySelectorAll('#runs input').length === 1 && document.querySelector('#runs').textContent.includes('blocks pruned: 1')")
	b.until(t, "document.getElementById('linears') !== null")
	run.finish()
	b.until(t, "document.querySelector('#runs').textContent.includes('finished run')")
	pruneFixture(t, filepath.Join(dir, "two"), 0)
	b.until(t, "[...document.querySelectorAll('#runs li')].filter((l) => l.textContent.includes('finished run')).length === 2 && document.querySelectorAll('#summary-0 tbody tr').length === 2")

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
	value[bool](t, b, "document.querySelector('#runs input').click(), true")
	b.until(t, "document.querySelectorAll('#summary-0 tbody tr').length === 1 && document.querySelector('#summary-0 tbody').textContent.includes('two')")
	if value[int](t, b, "window.stays") != 1 {
		t.Error("the page was loaded again")
	}
	b.checkQuiet(t, address)
}
