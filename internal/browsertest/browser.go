// Package browsertest opens pages in a headless Chromium for tests, where one is
// installed.
package browsertest

import (
	"context"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// browsers are the names that Chromium goes by.
var browsers = []string{"chromium", "chromium-browser", "google-chrome", "chrome"}

// Browser is a tab of a headless Chromium, and what it complained of.
type Browser struct {
	context.Context
	mu       sync.Mutex
	problems []string // on the console
	requests []string // for anything that is not in the page
}

// Open starts one of a width and a theme, light or dark; without a Chromium the test is
// skipped.
func Open(t testing.TB, width int, theme string) *Browser {
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
	b := &Browser{Context: ctx}
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

// GoTo opens a page, and fails the test if it takes what it must not.
func (b *Browser) GoTo(t testing.TB, address string) {
	t.Helper()
	if err := chromedp.Do(b.Context, chromedp.Navigate(address)); err != nil {
		t.Fatal(err)
	}
}

// Value returns what an expression is in the page.
func Value[T any](t testing.TB, b *Browser, expression string) T {
	t.Helper()
	v, err := chromedp.Run(b.Context, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// Until waits for an expression to be true.
func (b *Browser) Until(t testing.TB, expression string) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if Value[bool](t, b, expression) {
			return
		}
	}
	t.Fatalf("not true after a minute: %s; the page has %s", expression, Value[string](t, b, "document.body.innerText.slice(0, 2000)"))
}

// CheckQuiet fails the test if the console had an error or the page asked for more
// than itself.
func (b *Browser) CheckQuiet(t testing.TB, own string) {
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
