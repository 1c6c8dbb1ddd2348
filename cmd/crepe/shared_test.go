package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/search/queue/pgtest"
)

// withPostgreSQL stops the tests' server after them.
type withPostgreSQL struct{ *testing.M }

func (m withPostgreSQL) Run() int { return pgtest.Main(m.M) }

// impatient is crepe whose workers are missed within seconds.
const impatient = "crepe-impatient"

func impatientMain() {
	workerLost = 5 * time.Second
	main()
}

// crew are worker processes that end with the test.
type crew struct {
	t    *testing.T
	url  string
	home string
	all  []*exec.Cmd
}

func newCrew(t *testing.T, n int) *crew {
	c := &crew{t: t, url: pgtest.Start(t).Database(t), home: t.TempDir()}
	for range n {
		c.all = append(c.all, c.spawn())
	}
	t.Cleanup(func() {
		for _, w := range c.all {
			w.Process.Kill()
			w.Wait()
		}
	})
	return c
}

func (c *crew) spawn() *exec.Cmd {
	w := child(c.t, c.t.TempDir(), c.home, []string{"worker", "--store", c.url, "--threads", "1"})
	w.Path, _ = exec.LookPath(impatient)
	w.Args[0] = impatient
	w.Stderr = &bytes.Buffer{}
	if err := w.Start(); err != nil {
		c.t.Fatal(err)
	}
	return w
}

// kill kills n workers at random moments, and replaces them.
func (c *crew) kill(n int, within time.Duration) {
	rng := splitmix.Source(7)
	for range n {
		time.Sleep(time.Duration(rng.Next() % uint64(within)))
		at := int(rng.Next() % uint64(len(c.all)))
		c.all[at].Process.Kill()
		c.all[at].Wait()
		c.all[at] = c.spawn()
	}
}

// impersonal is v without who computed it, and when.
func impersonal(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for _, name := range []string{"provenance", "by", "study", "csv"} {
			delete(x, name)
		}
		for _, e := range x {
			impersonal(e)
		}
	case []any:
		for _, e := range x {
			impersonal(e)
		}
	}
	return timeless(v)
}

// output is the JSON that crepe prints.
func (c *crew) output(args ...string) any {
	c.t.Helper()
	p := child(c.t, c.t.TempDir(), c.home, args)
	var stdout, stderr bytes.Buffer
	p.Stdout, p.Stderr = &stdout, &stderr
	if err := p.Run(); err != nil {
		for _, w := range c.all {
			c.t.Logf("worker: %v", w.Stderr)
		}
		c.t.Fatalf("crepe %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	if strings.Contains(stderr.String(), "p%40ss") {
		c.t.Errorf("stderr shows the password: %s", stderr.String())
	}
	var v any
	if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
		c.t.Fatalf("%v in %q", err, stdout.String())
	}
	return impersonal(v)
}

// The same command again, in the same folder, finds the recipe that it wrote; another
// recipe there is not replaced.
func TestSharedSearchAgain(t *testing.T) {
	c := newCrew(t, 1)
	dir := t.TempDir()
	search := func() (string, error) {
		p := child(t, dir, c.home, strings.Fields("search demo --trials 1 --top 1 --pattern 2:4 --samples 2 --seqlen 64 --windows 8 --store "+c.url))
		text, err := p.CombinedOutput()
		return string(text), err
	}
	for range 2 {
		if text, err := search(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "demo-pho-2of4.recipe.yaml"), []byte("version: 1\nmethod: wanda\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if text, err := search(); err == nil || !strings.Contains(text, "another than what the search has found") {
		t.Errorf("over another recipe: %v\n%s", err, text)
	}
}

// What three workers compute, of whom some are killed, is what one process computes.
func TestSharedWork(t *testing.T) {
	if os.Getenv("CREPE_TEST_FAULTS") != "all" {
		t.Skip("takes minutes; runs with CREPE_TEST_FAULTS=all")
	}
	small := "--samples 4 --seqlen 64 --windows 8 --json"
	for name, args := range map[string]string{
		"compare": "compare demo --methods magnitude,wanda,pho --trials 2 --top 1 --patterns 2:4",
		"study":   "study demo --configs 5 --pattern 2:4",
		"search":  "search demo --trials 8 --top 2 --pattern 2:4",
		"proxy":   "search demo --objective gini_pruned --trials 5 --top 1 --pattern 2:4",
	} {
		t.Run(name, func(t *testing.T) {
			c := newCrew(t, 3)
			args := strings.Fields(args + " " + small)
			want := c.output(args...)
			var killed chan bool
			if !testing.Short() {
				killed = make(chan bool)
				go func() { defer close(killed); c.kill(kills(), 3*time.Second) }()
			}
			shared := append(args, "--store", c.url)
			for _, when := range []string{"shared", "again"} {
				for _, d := range differences(when, c.output(shared...), want) {
					t.Error(d)
				}
			}
			if killed != nil {
				<-killed
			}
		})
	}
}

// kills is how many workers a test kills: CREPE_TEST_FAULTS=all asks for 50.
func kills() int {
	if os.Getenv("CREPE_TEST_FAULTS") == "all" {
		return 50
	}
	return 3
}

// differences lists where two JSON values differ.
func differences(path string, got, want any) (out []string) {
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		keys := map[string]bool{}
		for k := range w {
			keys[k] = true
		}
		for k := range g {
			keys[k] = true
		}
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			out = append(out, differences(path+"."+k, g[k], w[k])...)
		}
		return out
	case []any:
		if g, _ := got.([]any); len(g) == len(w) {
			for i := range w {
				out = append(out, differences(fmt.Sprintf("%s.%d", path, i), g[i], w[i])...)
			}
			return out
		}
	}
	if !reflect.DeepEqual(got, want) {
		out = append(out, fmt.Sprintf("%s: %v, want %v", path, got, want))
	}
	return out
}
