package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What could do something to a terminal comes out as a replacement, in tables too.
func TestTextForPeopleIsPrintable(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	w := a.table()
	fmt.Fprintln(w, "linear\tzeros")
	fmt.Fprintln(w, "\x1b]0;owned\a\u009b2J größer\t50 %")
	fmt.Fprintln(w, "\u202esrotsnetefas\u2069\t\u200f0 %")
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(a.text(), "output  %s\n", "a\rb"); err != nil {
		t.Fatal(err)
	}
	const want = "linear                zeros\n" + "\ufffd]0;owned\ufffd\ufffd2J größer  50 %\n\ufffdsrotsnetefas\ufffd        \u200f0 %\noutput  a\ufffdb\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// A folder's name that holds a line of its own is one line in tables and errors.
func TestNameOfTwoLines(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model\nsparsity  99 %\x1b[2J")
	if err := os.CopyFS(dir, os.DirFS("../../testdata/fixtures/llama-mha")); err != nil {
		t.Skip(err) // no such names here
	}
	var out, messages bytes.Buffer
	if code := run([]string{"inspect", dir}, &out, &messages); code != exitOK {
		t.Fatal(messages.String())
	}
	if !strings.Contains(out.String(), "/model\ufffdsparsity  99 %\ufffd[2J (LlamaForCausalLM") {
		t.Errorf("%q", out.String())
	}
	messages.Reset()
	if code := run([]string{"verify", dir}, &out, &messages); code != exitError {
		t.Errorf("exit code %d", code)
	}
	if want := "/model\ufffdsparsity  99 %\ufffd[2J: no crepe.json in it"; !strings.Contains(messages.String(), want) {
		t.Errorf("%q, want %q in it", messages.String(), want)
	}
	out.Reset()
	showBeside(&out, 80, generateReport{continuation: continuation{Model: dir}, Against: &continuation{Model: "b\nc"}, Same: new(int)})
	if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\nc") {
		t.Errorf("%q", out.String())
	}
}

func TestLogOfHTTP(t *testing.T) {
	var out bytes.Buffer
	logger := log.New(httpLog{&out}, "", 0)
	logger.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=<nil>", "hf_token")
	logger.Print("http: panic serving \x1b[2J")
	if want := "http: panic serving \ufffd[2J\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// A line that is too long for a prompt is said to be, with the bound.
func TestLinesOfRun(t *testing.T) {
	read := func(r io.Reader) (n int, err error) {
		lines := make(chan string)
		go func() {
			err = readLines(r, lines)
			close(lines)
		}()
		for range lines {
			n++
		}
		return n, err
	}
	if n, err := read(strings.NewReader("a\nb\n\nc")); n != 4 || err != nil {
		t.Errorf("%d lines, %v, want 4", n, err)
	}
	long := io.MultiReader(strings.NewReader("a\n"), strings.NewReader(strings.Repeat("x", maxPrompt+1)))
	if n, err := read(long); n != 1 || err == nil || !strings.Contains(err.Error(), "a line of more than 67108864 bytes") {
		t.Errorf("%d lines, %v, want 1 and what is wrong", n, err)
	}
}
