package grid

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/search"
)

// hall is a Queue whose orders are carried out on the spot, by one model after the other.
type hall struct {
	search.Store
	t       *testing.T
	texts   map[string][]byte
	workers []Model
	answers map[string]string
	did     int
}

func (h *hall) Keep(_ context.Context, hash string, text []byte) error {
	h.texts[hash] = text
	return nil
}

func (h *hall) Text(_ context.Context, hash string) ([]byte, error) {
	if text, ok := h.texts[hash]; ok {
		return text, nil
	}
	return nil, errors.New("no such text")
}

func (h *hall) Order(context.Context, ...search.Order) error    { return nil }
func (h *hall) Withdraw(context.Context, ...search.Order) error { return nil }

func (h *hall) Ask(ctx context.Context, orders []search.Order, each func(int, string) error) error {
	for i, o := range orders {
		if _, ok := h.answers[o.Key]; !ok {
			w, err := ParseWork(o.Args)
			if err != nil {
				return err
			}
			m := h.workers[h.did%len(h.workers)]
			m.Calibration, m.Verify, m.Evaluation = nil, nil, nil
			if h.answers[o.Key], err = w.Do(ctx, h, m, Options{Scratch: filepath.Join(h.t.TempDir(), "w"), Warn: h.t.Logf, Done: func(Cell) {}}); err != nil {
				return err
			}
			h.did++
		}
		if err := each(i, h.answers[o.Key]); err != nil {
			return err
		}
	}
	return nil
}

// What workers compute of orders is what one process computes; a cell by another
// engine is said in the table, or refused.
func TestSharedGrid(t *testing.T) {
	m := small(t)
	opt, done := options(t, t.TempDir())
	defer done()
	opt.Rows = []Row{opt.Rows[0], opt.Rows[2]}
	want, err := Run(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	h := &hall{Store: opt.Store, t: t, texts: map[string][]byte{}, answers: map[string]string{}, workers: []Model{m}}
	opt.Store = h
	for range 2 { // the second time it is there
		got, err := Run(t.Context(), m, opt)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range append([]*Cell{&got.Dense}, pointers(got.Cells)...) {
			if c.Provenance.Value("engine") != m.M.Engine().ID() {
				t.Errorf("%s at %s: provenance %v", c.Method, c.Pattern, c.Provenance)
			}
			c.Provenance = nil
		}
		if got, want := asJSON(t, plain(got)), asJSON(t, plain(want)); got != want {
			t.Errorf("shared %s\nwant %s", got, want)
		}
	}
	if h.did != 1+len(want.Cells) {
		t.Errorf("%d orders were carried out, want %d", h.did, 1+len(want.Cells))
	}

	other := m
	other.M = m.M.With(model.Options{Engine: another{m.M.Engine()}})
	h.did, h.answers, h.workers = 0, map[string]string{}, []Model{m, other}
	opt.Rows, opt.Patterns = opt.Rows[:1], opt.Patterns[:1]
	mixed, err := Run(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	r := &Report{Methods: []string{"magnitude"}, Patterns: opt.Patterns, Models: []ModelReport{*mixed}}
	if err := r.Write(&table, "markdown"); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"f32; dense", "Cells come from different engines", "- " + m.M.Engine().ID() + " by crepe", "- another by crepe", "): magnitude at 2:4"} {
		if !strings.Contains(table.String(), part) {
			t.Errorf("no %q in\n%s", part, table.String())
		}
	}
	opt.SameEngine = true
	if _, err := Run(t.Context(), m, opt); err == nil || !strings.Contains(err.Error(), "different engines") {
		t.Errorf("--same-engine: %v", err)
	}
	for key := range h.answers {
		h.answers[key] = `{"cell":{"method":"magnitude","pattern":"2:4","sparsity":7}}`
	}
	if _, err := Run(t.Context(), m, opt); err == nil || !strings.Contains(err.Error(), "the store is damaged") {
		t.Errorf("damaged: %v", err)
	}
}

func asJSON(t *testing.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// another is an engine with a name of its own.
type another struct{ engine.Engine }

func (another) ID() string { return "another" }

func pointers(cells []Cell) []*Cell {
	out := make([]*Cell, len(cells))
	for i := range cells {
		out[i] = &cells[i]
	}
	return out
}
