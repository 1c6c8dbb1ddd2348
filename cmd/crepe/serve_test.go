//go:build unix

package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// output takes what a command prints, for another goroutine to read.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// TestServe starts the server as a user does, for two models, and ends it with
// SIGTERM while it answers: the answer comes whole, and the exit code is 0.
func TestServe(t *testing.T) {
	var stdout, stderr output
	code := make(chan int, 1)
	go func() {
		code <- run([]string{"serve", "demo", "--against", "demo", "--port", "0", "--compute", "f32", "--memory", "1GiB"}, &stdout, &stderr)
	}()
	address := regexp.MustCompile(`demo and demo-dense at (http://127\.0\.0\.1:\d+) `)
	url := ""
	for deadline := time.Now().Add(time.Minute); url == ""; time.Sleep(10 * time.Millisecond) {
		if m := address.FindStringSubmatch(stderr.String()); m != nil {
			url = m[1]
		}
		if time.Now().After(deadline) {
			t.Fatal(stderr.String())
		}
	}
	ask := func(body string) *http.Response {
		r, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v", r, err)
		}
		return r
	}
	r := ask(`{"model": "demo-dense", "prompt": "The river", "stream": true, "max_tokens": 300, "ignore_eos": true, "temperature": 0}`)
	first := make([]byte, 1)
	if _, err := io.ReadFull(r.Body, first); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err != nil || !bytes.Contains(rest, []byte(`"finish_reason":"length"`)) || !bytes.HasSuffix(rest, []byte("data: [DONE]\n\n")) {
		t.Errorf("%v: %s", err, rest)
	}
	if c := <-code; c != exitOK {
		t.Errorf("exit code %d, want %d: %s", c, exitOK, stderr.String())
	}
	if s := stderr.String(); !strings.Contains(s, "demo: no chat template, so that it answers /v1/completions only") || !strings.Contains(s, "no more requests are taken") {
		t.Errorf("%s", s)
	}
}
