package live_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/crepe-llm/crepe/internal/browsertest"
	"github.com/crepe-llm/crepe/report"
)

// TestPictures takes the pictures of docs/ from a report, if CREPE_TEST_PICTURES
// names the folder to put them in and CREPE_TEST_REPORT the results to show, with
// commas between: runs, a search and a grid. .ci/pictures does both.
func TestPictures(t *testing.T) {
	dir, results := os.Getenv("CREPE_TEST_PICTURES"), os.Getenv("CREPE_TEST_REPORT")
	if dir == "" || results == "" {
		t.Skip("CREPE_TEST_PICTURES and CREPE_TEST_REPORT name no folder and no results")
	}
	items, err := report.Load(t.Context(), strings.Split(results, ","))
	if err != nil {
		t.Fatal(err)
	}
	d := report.Build("demo", items)
	for _, p := range []struct {
		file, theme, section string
		width, height        int
	}{
		{"report-linears.png", "light", "linears", 1200, 510},
		{"report-search.png", "light", "search", 1200, 1800},
		{"report-grid.png", "dark", "grid", 1200, 1000},
	} {
		b := browsertest.Open(t, p.width, p.theme)
		if err := chromedp.Do(b.Context, chromedp.EmulateViewport(int64(p.width), int64(p.height))); err != nil {
			t.Fatal(err)
		}
		show(t, b, d)
		browsertest.Value[bool](t, b, fmt.Sprintf("document.getElementById(%q).closest('section').querySelectorAll('.chart').forEach((c) => crepeReport.draw(c.dataset.figure)), document.getElementById(%q).scrollIntoView(), true", p.section, p.section))
		png, err := chromedp.Run(b.Context, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p.file), png, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}
