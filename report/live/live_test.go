package live_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/windows"
)

const fixture = "../../testdata/fixtures/llama-mha"

// fixtureRun is a run of a tiny model.
type fixtureRun struct {
	t   *testing.T
	opt prune.Options
}

// pruneFixture prunes a tiny model into the folder output: all of it, or, of a run
// that is interrupted, so many blocks.
func pruneFixture(t *testing.T, output string, blocks int) *fixtureRun {
	t.Helper()
	r := newFixtureRun(t, output)
	if blocks == 0 {
		r.finish()
		return r
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.opt.Progress = func(u progress.Update) {
		if strings.HasPrefix(u.Phase, fmt.Sprintf("block %d ", blocks+1)) {
			cancel()
		}
	}
	if err := r.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, want it interrupted", err)
	}
	return r
}

// newFixtureRun is a run of a tiny model into the folder output.
func newFixtureRun(t *testing.T, output string) *fixtureRun {
	t.Helper()
	ids := golden.Read(t, filepath.Join(fixture, "golden.safetensors"))["input_ids"]
	set := &windows.Set{Source: "fixture", SeqLen: ids.Shape[1]}
	for at := 0; at < len(ids.I64); at += set.SeqLen {
		var w []int32
		for _, v := range ids.I64[at : at+set.SeqLen] {
			w = append(w, int32(v))
		}
		set.Tokens = append(set.Tokens, w)
	}
	return &fixtureRun{t: t, opt: prune.Options{
		Recipe: recipe.Recipe{Method: "wanda", Calibration: recipe.Calibration{Source: "fixture"}, Eval: recipe.Eval{Source: "fixture"}},
		Model:  "tiny", Output: output, Calibration: set, Evaluation: set, Memory: 1 << 30,
	}}
}

func (r *fixtureRun) run(ctx context.Context) error {
	inv, err := checkpoint.Open(fixture)
	if err != nil {
		return err
	}
	defer inv.Close()
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		return err
	}
	_, err = prune.Run(ctx, inv, m, r.opt)
	return err
}

// finish ends the run, or does all of it.
func (r *fixtureRun) finish() {
	r.t.Helper()
	r.opt.Resume, r.opt.Progress = true, nil
	if err := r.run(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// Only pages of this machine are answered, and only the questions that there are.
func TestServer(t *testing.T) {
	dir := t.TempDir()
	pruneFixture(t, filepath.Join(dir, "run"), 0)
	if err := os.WriteFile(filepath.Join(dir, "bad.study"), []byte("not a database"), 0o666); err != nil {
		t.Fatal(err)
	}
	address := serve(t, dir)
	ask := func(method, path, host, body string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			r.Host = host
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(text)
	}
	for _, c := range []struct {
		method, path, host, body string
		status                   int
		want                     string
	}{
		{"GET", "", "", "", 200, "<title>live</title>"},
		{"GET", "", "localhost:80", "", 200, "<title>live</title>"},
		{"GET", "", "[::1]", "", 200, "<title>live</title>"},
		{"GET", "", "[::1]:80", "", 200, "<title>live</title>"},
		{"GET", "", "[fe80::1]", "", 403, "this machine's own address"},
		{"GET", "", "evil.example", "", 403, "this machine's own address"},
		{"POST", "data", "192.168.0.1:80", "{}", 403, "this machine's own address"},
		{"POST", "data", "", "{}", 200, `"state":"finished run"`},
		{"POST", "data", "", "{}", 200, `bad.study: want a folder of crepe prune`},
		{"POST", "data", "", `{"without":["run"]}`, 200, `"sections":[]`},
		{"POST", "data", "", `{`, 400, "unexpected EOF"},
		{"GET", "data", "", "", 405, ""},
		{"GET", "..%2frun", "", "", 404, ""},
	} {
		if status, text := ask(c.method, c.path, c.host, c.body); status != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s of %s with %s: %d %.300s, want %d with %s", c.method, c.path, c.host, c.body, status, text, c.status, c.want)
		}
	}
}

// A page hears of every change.
func TestEvents(t *testing.T) {
	dir := t.TempDir()
	address := serve(t, dir)
	answer, err := http.Get(address + "events")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("type %s", got)
	}
	lines := bufio.NewScanner(answer.Body)
	if !lines.Scan() || lines.Text() != ": here" {
		t.Fatalf("%q, want a sign of life", lines.Text())
	}
	pruneFixture(t, filepath.Join(dir, "run"), 0)
	for lines.Scan() {
		if lines.Text() == "event: change" {
			return
		}
	}
	t.Errorf("no change was told: %v", lines.Err())
}

// A page hears of a JSON file only once it holds a result.
func TestEventsOfAFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "eval.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write(`{}`)
	answer, err := http.Get(serve(t, dir) + "events")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	told := make(chan struct{}, 16)
	go func() {
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			if lines.Text() == "event: change" {
				told <- struct{}{}
			}
		}
	}()
	write(`{"model":"m","compute":"f32"}`)
	select {
	case <-told:
		t.Error("a change was told, want none of what is no result")
	case <-time.After(200 * time.Millisecond):
	}
	write(`{"model":"m","compute":"f32","perplexity":12.5}`)
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Error("no change was told of a result")
	}
}
