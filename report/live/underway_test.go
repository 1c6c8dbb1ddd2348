package live_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pho"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search/store"
	"github.com/crepe-llm/crepe/windows"
)

// listener asks for data whenever the server tells of a change, as a page does.
type listener struct {
	t       *testing.T
	address string
	changes chan struct{}
	states  []string // that it was told, each once
}

func listen(t *testing.T, dir string) *listener {
	t.Helper()
	l := &listener{t: t, address: serve(t, dir), changes: make(chan struct{}, 1000)}
	answer, err := http.Get(l.address + "events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	lines := bufio.NewScanner(answer.Body)
	lines.Scan() // it listens
	go func() {
		for lines.Scan() {
			if lines.Text() == "event: change" {
				l.changes <- struct{}{}
			}
		}
	}()
	return l
}

// until waits for changes up to the one after which the only result is in this state.
func (l *listener) until(want string) {
	l.t.Helper()
	late := time.After(60 * time.Second)
	for !slices.Contains(l.states, want) {
		select {
		case <-l.changes:
		case <-late:
			l.t.Fatalf("told of %q, want %q as well", l.states, want)
		}
		answer, err := http.Post(l.address+"data", "application/json", strings.NewReader("{}"))
		if err != nil {
			l.t.Fatal(err)
		}
		var data struct{ Items []struct{ State string } }
		err = json.NewDecoder(answer.Body).Decode(&data)
		answer.Body.Close()
		if err != nil {
			l.t.Fatal(err)
		}
		if len(data.Items) == 1 {
			l.states = append(l.states, data.Items[0].State)
		}
	}
}

// A page hears of every block of a run as soon as it is pruned: the run waits for it.
func TestEveryBlockIsTold(t *testing.T) {
	dir := t.TempDir()
	l := listen(t, dir)
	r := newFixtureRun(t, filepath.Join(dir, "run"))
	next := 2
	r.opt.Progress = func(u progress.Update) {
		if strings.HasPrefix(u.Phase, fmt.Sprintf("block %d ", next)) {
			l.until(fmt.Sprintf("at work or interrupted, blocks pruned: %d", next-1))
			next++
		}
	}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.until("finished run")
	if next != 4 {
		t.Errorf("%d blocks, want the 3 of the fixture", next-1)
	}
}

// A page hears of every candidate of a search as soon as it is rated or measured: the
// search waits for it.
func TestEveryCandidateIsTold(t *testing.T) {
	inv, err := checkpoint.Open("../../testdata/fixtures/llama3-gqa")
	if err != nil {
		t.Fatal(err)
	}
	defer inv.Close()
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l := listen(t, dir)
	file, err := store.Open(t.Context(), filepath.Join(dir, "search.study"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	text := func(n, seed int) *windows.Set {
		s := &windows.Set{Source: "made up", SeqLen: 16}
		for i := range n {
			w := make([]int32, s.SeqLen)
			for k := range w {
				w[k] = int32((seed + i*i*31 + k*k*7 + i*k) % m.Config.Vocab)
			}
			s.Tokens = append(s.Tokens, w)
		}
		return s
	}
	trials, steps := 0, 0
	_, err = pho.Search(t.Context(), m, pho.Options{
		Recipe: recipe.Recipe{Sparsity: "70%"}, Objective: pho.Perplexity, Sampler: "hillclimb", Trials: 4, Top: 2, Kernels: []int{9},
		Calibration: text(3, 1), Verify: text(32, 5), Store: file, Name: "search", Model: "fixture",
		Leaders: func(stage int, c []pho.Candidate) {
			if stage == 1 {
				trials++
				l.until(fmt.Sprintf("search, trials: %d", trials))
				return
			}
			if over := slices.Contains(l.states, "finished search"); !over {
				steps++
				if last := slices.ContainsFunc(c, func(c pho.Candidate) bool { return c.Perplexity != 0 }); !last {
					l.until(fmt.Sprintf("search, trials: %d, steps of stage 2: %d", trials, steps))
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.until("finished search")
	if trials != 4 || steps < 5 {
		t.Errorf("told of %d trials and %d steps, want 4 and those of 5 candidates", trials, steps)
	}
}
