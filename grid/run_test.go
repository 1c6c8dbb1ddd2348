package grid

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/search/store"
	"github.com/crepe-llm/crepe/windows"
)

// tokens is n windows of made-up text.
func tokens(n int, step int32) *windows.Set {
	s := &windows.Set{Source: "made up", SeqLen: 16}
	id := int32(1)
	for range n {
		w := make([]int32, s.SeqLen)
		for t := range w {
			id = (id*31 + step) % 320
			w[t] = id
		}
		s.Tokens = append(s.Tokens, w)
	}
	return s
}

// small is a fixture, with texts.
func small(t *testing.T) Model { return open(t, "../testdata/fixtures/llama3-gqa") }

func open(t *testing.T, dir string) Model {
	t.Helper()
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	return Model{
		Name: "small", Dir: dir, ID: "small", Inv: inv, M: m,
		Calibration: tokens(3, 7), Verify: tokens(16, 11), Evaluation: tokens(8, 13),
	}
}

// options of a grid in dir; the store is the caller's to close.
func options(t *testing.T, dir string) (Options, func()) {
	t.Helper()
	rows, err := ParseRows([]string{"magnitude", "crepe+sparsegpt", "pho"}, nil, []Budget{{"perplexity", 3, 1}})
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), filepath.Join(dir, "g.study"))
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Rows: rows, Patterns: []string{"2:4", "60%"}, Base: recipe.Recipe{}.WithDefaults(),
		Store: db, Scratch: filepath.Join(dir, "g.cells"),
		Warn: func(string, ...any) {}, Done: func(Cell) {},
	}, func() { db.Close() }
}

// plain takes from a report what two runs may differ in.
func plain(r *ModelReport) *ModelReport {
	r.Dense.Seconds, r.Dense.Kept = 0, false
	for i := range r.Cells {
		r.Cells[i].Seconds, r.Cells[i].Kept = 0, false
	}
	return r
}

// A cell is what prune and eval make of its recipe; the second time it is kept,
// in another grid too, and with Again it is not.
func TestCellsAreKept(t *testing.T) {
	m, dir := small(t), t.TempDir()
	opt, done := options(t, dir)
	defer done()
	first, err := Run(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(opt.Scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left (%v)", opt.Scratch, err)
	}
	for _, c := range first.Cells {
		out := filepath.Join(t.TempDir(), "out")
		if _, err := prune.Run(t.Context(), m.Inv, m.M, prune.Options{Recipe: *c.Recipe, Output: out, Calibration: m.Calibration}); err != nil {
			t.Fatal(err)
		}
		inv, err := checkpoint.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		pruned, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
		if err != nil {
			t.Fatal(err)
		}
		want, err := eval.Perplexity(t.Context(), pruned, m.Evaluation.Tokens, eval.Options{})
		inv.Close()
		if err != nil || *c.Perplexity != want || c.Kept {
			t.Errorf("%s at %s: %+v, want %+v (%v)", c.Method, c.Pattern, *c.Perplexity, want, err)
		}
	}
	opt.Rows, opt.Patterns = opt.Rows[1:], []string{"60%", "2:4"}
	again, err := Run(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range again.Cells {
		if w := first.cell(c.Method, c.Pattern); !c.Kept || *c.Perplexity != *w.Perplexity || c.Sparsity != w.Sparsity {
			t.Errorf("%s at %s: %+v, want %+v, kept", c.Method, c.Pattern, c, w)
		}
	}
	opt.Again, opt.Rows = true, opt.Rows[1:]
	again, err = Run(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	if again.Dense.Kept || again.Cells[0].Kept || again.Cells[1].Kept || *again.Cells[1].Perplexity != *first.cell("pho", "2:4").Perplexity {
		t.Errorf("asked to compute again: %+v", again)
	}
	m.ID, opt.Again = "other", false
	if again, err = Run(t.Context(), m, opt); err != nil || again.Dense.Kept || again.Cells[0].Kept {
		t.Errorf("another model: %+v (%v)", again, err)
	}
}

// A grid that is stopped again and again, within cells too, ends as one that was
// never interrupted.
func TestGridGoesOn(t *testing.T) {
	m := small(t)
	opt, done := options(t, t.TempDir())
	defer done()
	opt.Patterns = opt.Patterns[:1]
	want, err := Run(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stops := 0
	for {
		opt, done := options(t, dir)
		opt.Patterns = opt.Patterns[:1]
		ctx, cancel := context.WithCancel(t.Context())
		updates, limit := 0, 5+stops*17
		opt.Progress = func(progress.Update) {
			if updates++; updates >= limit {
				cancel()
			}
		}
		got, err := Run(ctx, m, opt)
		done()
		cancel()
		if err == nil {
			if !reflect.DeepEqual(plain(got), plain(want)) {
				t.Errorf("interrupted it is %+v, want %+v", got, want)
			}
			break
		}
		if stops++; !errors.Is(err, context.Canceled) || stops > 200 {
			t.Fatalf("after %d stops: %v", stops, err)
		}
	}
	if stops < 3 {
		t.Errorf("stopped %d times: shows nothing", stops)
	}
	t.Logf("stopped %d times", stops)
}

// What a crepe kept that did not note its program is computed anew, and said so.
func TestCellsOfAnOlderCrepe(t *testing.T) {
	m := small(t)
	opt, done := options(t, t.TempDir())
	defer done()
	opt.Rows, opt.Patterns = opt.Rows[:1], opt.Patterns[:1]
	st, err := opt.Store.Study(t.Context(), study, nil)
	if err != nil {
		t.Fatal(err)
	}
	for kind, value := range map[string]string{
		perplexityKind: `{"what":"small, magnitude at 2:4","result":{"perplexity":1},"sparsity":0.5,"seconds":1}`,
		searchKind:     `{"best":{},"seconds":1}`,
	} {
		if err := st.Add(t.Context(), kind, search.Record{Key: "0123456789abcdef01234567", Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	var said []string
	opt.Warn = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	r, err := Run(t.Context(), m, opt)
	if err != nil || r.Cells[0].Kept || r.Cells[0].Perplexity.Perplexity == 1 {
		t.Errorf("%+v (%v), want it computed", r, err)
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "small: another program or engine has computed 1 of 2 cells; they are computed anew: program: an older crepe") {
		t.Errorf("said %q", said)
	}
	said = nil
	if r, err = Run(t.Context(), m, opt); err != nil || !r.Cells[0].Kept || said != nil {
		t.Errorf("the second time %+v (%v), said %q", r, err, said)
	}
}
