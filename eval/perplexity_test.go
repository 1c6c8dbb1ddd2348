package eval

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/internal/hidden"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/progress"
)

const fixture = "../testdata/fixtures/llama3-gqa"

func openFixture(t *testing.T) *model.Model {
	t.Helper()
	inv, err := checkpoint.Open(fixture)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// goldens returns the fixture's two sequences and, of transformers' logits for
// them, the mean negative log-likelihood of each.
func goldens(t *testing.T) (windows [][]int32, nll []float64) {
	t.Helper()
	g := golden.Read(t, fixture+"/golden.safetensors")
	ids, logits := g["input_ids"], g["logits"]
	tokens, vocab := ids.Shape[1], logits.Shape[2]
	for i := range ids.Shape[0] {
		var w []int32
		for _, id := range ids.I64[i*tokens : (i+1)*tokens] {
			w = append(w, int32(id))
		}
		sum := 0.0
		for t := range tokens - 1 {
			row := logits.F32[(i*tokens+t)*vocab : (i*tokens+t+1)*vocab]
			total := 0.0
			for _, v := range row {
				total += math.Exp(float64(v))
			}
			sum += math.Log(total) - float64(row[w[t+1]])
		}
		windows = append(windows, w)
		nll = append(nll, sum/float64(tokens-1))
	}
	return windows, nll
}

func TestPerplexityEqualsTransformers(t *testing.T) {
	windows, nll := goldens(t)
	got, err := Perplexity(t.Context(), openFixture(t), windows, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := (nll[0] + nll[1]) / 2
	// Each logit is within 2e-4 (the fixtures' README), a likelihood within twice that.
	if !(math.Abs(float64(got.NLL)-want) <= 4e-4) || !(math.Abs(float64(got.Perplexity)-math.Exp(float64(got.NLL))) <= 1e-12*float64(got.Perplexity)) {
		t.Errorf("got %+v, want a mean of %v nats", got, want)
	}
	if got.Windows != 2 || got.SeqLen != 24 || got.Tokens != 48 {
		t.Errorf("got %+v, want 2 windows of 24", got)
	}
}

// More windows than one batch of the head takes, the last batch not full: each
// counts once.
func TestManyWindowsAndAFile(t *testing.T) {
	two, nll := goldens(t)
	const n = 201
	var windows [][]int32
	want := 0.0
	for i := range n {
		windows = append(windows, two[i%2])
		want += nll[i%2] / n
	}
	steps := int64(0)
	inMemory, err := Perplexity(t.Context(), openFixture(t), windows, Options{Progress: func(u progress.Update) { steps = u.Done - u.Total }})
	if err != nil {
		t.Fatal(err)
	}
	if !(math.Abs(float64(inMemory.NLL)-want) <= 4e-4) || inMemory.Windows != n || steps != 0 {
		t.Errorf("got %+v with %d steps left, want a mean of %v nats", inMemory, steps, want)
	}
	inFile, err := Perplexity(t.Context(), openFixture(t), windows, Options{States: engine.Place{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	if inFile != inMemory {
		t.Errorf("with a file %+v, in memory %+v", inFile, inMemory)
	}
}

func TestPerplexityRefuses(t *testing.T) {
	m := openFixture(t)
	two, _ := goldens(t)
	for name, windows := range map[string][][]int32{"none": nil, "one token": {{1}}, "unknown id": {{1, 1 << 30}}} {
		if r, err := Perplexity(t.Context(), m, windows, Options{}); err == nil {
			t.Errorf("%s: got %+v, want an error", name, r)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Perplexity(ctx, m, two, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
	if _, err := Perplexity(t.Context(), m, two, Options{States: engine.Place{Dir: t.TempDir() + "/absent"}}); err == nil {
		t.Error("an absent folder to spill to: no error")
	}
}

func TestNotFiniteErrorNamesTheWindow(t *testing.T) {
	var e *NotFiniteError
	err := error(&NotFiniteError{Window: 3, NLL: math.NaN()})
	if !errors.As(err, &e) || err.Error() != "comparison: window 3 has a mean negative log-likelihood of NaN, want a finite number" {
		t.Errorf("got %v", err)
	}
}

// Every line of progress counts windows, and says which part of the work it counts
// them in: never windows × blocks.
func TestProgressCountsWindows(t *testing.T) {
	m := openFixture(t)
	windows, _ := goldens(t)
	seen := map[string]int64{}
	opt := Options{Progress: func(u progress.Update) {
		if u.Done > 0 && u.PartTotal != int64(len(windows)) || u.PartDone > u.PartTotal {
			t.Errorf("%+v, want parts of %d windows", u, len(windows))
		}
		seen[u.Phase] = u.PartDone
	}}
	if _, err := Perplexity(t.Context(), m, windows, opt); err != nil {
		t.Fatal(err)
	}
	if _, err := Against(t.Context(), m, m, windows, opt); err != nil {
		t.Fatal(err)
	}
	for _, phase := range []string{"perplexity: block 1 of 4", "perplexity: head", "compare: block 4 of 4", "compare, dense model: block 2 of 4", "compare: heads"} {
		if n, ok := seen[phase]; n != int64(len(windows)) {
			t.Errorf("%s: ended at %d windows (%v), want %d", phase, n, ok, len(windows))
		}
	}
}

// Hidden states are where there is room, and the result does not depend on it.
func TestPlaceFor(t *testing.T) {
	const dir = "dir"
	m := openFixture(t)
	device := &enginetest.Separate{Engine: cpu.New(engine.F32), Bytes: 1 << 40}
	on := m.With(model.Options{Engine: device})
	left, _ := on.OwnLeft(32)
	for _, c := range []struct {
		m           *model.Model
		own, budget int64
		want        engine.Place
	}{
		{m, 0, 0, engine.Place{}},
		{m, 0, 2 * hidden.Bytes(2, 32, m.Width()), engine.Place{}},
		{m, 0, 2*hidden.Bytes(2, 32, m.Width()) - 2, engine.Place{Dir: dir}},
		{on, 1 << 40, 1, engine.Place{}},
		{on, 1<<40 - left + hidden.Bytes(2, 32, m.Width()), 1, engine.Place{}},
		{on, 1<<40 - left + hidden.Bytes(2, 32, m.Width()) - 1, 0, engine.Place{Host: true}},
		{on, 1 << 20, 1, engine.Place{Dir: dir}},
	} {
		device.Bytes = c.own
		if got := PlaceFor(c.m, 2, 32, 1, c.budget, dir); got != c.want {
			t.Errorf("%d bytes of its own, %d in all: %+v, want %+v", c.own, c.budget, got, c.want)
		}
	}
	two := [][]int32{{1, 2, 3, 4}, {5, 6, 7, 8}}
	want, err := Perplexity(t.Context(), m, two, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Perplexity(t.Context(), on, two, Options{States: engine.Place{Host: true}}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}
