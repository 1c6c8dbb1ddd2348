package batch

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/model"
)

const (
	demoDir     = "../demo/data/model"
	fixturesDir = "../testdata/fixtures"
)

func open(t *testing.T, dir string, c engine.Compute) *model.Model {
	t.Helper()
	inv, err := checkpoint.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(c)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newRunner(t *testing.T, m *model.Model, opt Options) *Runner {
	t.Helper()
	r, err := New(m, opt, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// answer is what a Runner made of a request.
type answer struct {
	tokens []Token
	result Result
	err    error
}

func (a answer) ids() []int32 {
	var ids []int32
	for _, t := range a.tokens {
		ids = append(ids, t.ID)
	}
	return ids
}

func ask(ctx context.Context, r *Runner, req Request) answer {
	var a answer
	a.result, a.err = r.Run(ctx, req, func(t Token) error {
		a.tokens = append(a.tokens, t)
		return nil
	})
	return a
}

// askAll asks all at once.
func askAll(t *testing.T, r *Runner, reqs []Request) []answer {
	t.Helper()
	answers := make([]answer, len(reqs))
	var wg sync.WaitGroup
	for i, req := range reqs {
		wg.Go(func() { answers[i] = ask(t.Context(), r, req) })
	}
	wg.Wait()
	for i, a := range answers {
		if a.err != nil {
			t.Fatalf("request %d: %v", i, a.err)
		}
	}
	return answers
}

// requests returns n of them, of different lengths, some with a beginning in common.
func requests(m *model.Model, n, most int) []Request {
	draws := splitmix.Source(1)
	random := func(n int) []int32 {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(draws.Next() % uint64(m.Config.Vocab))
		}
		return ids
	}
	limit := m.Config.MaxPositions
	common := random(min(40, limit/2))
	var reqs []Request
	for i := range n {
		prompt := random(1 + int(draws.Next()%uint64(min(30, limit/4))))
		if i%2 == 1 {
			prompt = append(slices.Clone(common), prompt...)
		}
		req := Request{Prompt: prompt, Options: generate.Options{MaxTokens: 1 + int(draws.Next()%uint64(most))}, Logprobs: true, Top: 2}
		if i%3 == 2 {
			req.Options.Sampling = generate.Sampling{Temperature: 1, TopP: 0.9, TopK: 50, Seed: uint64(i)}
		}
		reqs = append(reqs, req)
	}
	return reqs
}

// TestFixtures continues with every architecture what transformers continued,
// all of it beside other texts.
func TestFixtures(t *testing.T) {
	const prompt = 8
	tested := 0
	for _, name := range golden.Folders(t, fixturesDir) {
		stored, ok := golden.Read(t, filepath.Join(fixturesDir, name, "golden.safetensors"))["greedy.ids"]
		if !ok {
			continue
		}
		tested++
		var ids []int32
		for _, id := range stored.I64 {
			ids = append(ids, int32(id))
		}
		r := newRunner(t, open(t, filepath.Join(fixturesDir, name), engine.F32), Options{Chunk: 20})
		want := Request{Prompt: ids[:prompt], Options: generate.Options{MaxTokens: len(ids) - prompt}}
		reqs := append(requests(r.m, 5, 8), want, want)
		for _, a := range askAll(t, r, reqs)[5:] {
			if !slices.Equal(a.ids(), ids[prompt:]) || a.result.Reason != generate.AtMaxTokens {
				t.Errorf("%s: got %v, %s, want %v", name, a.ids(), a.result.Reason, ids[prompt:])
			}
		}
	}
	if tested < 14 {
		t.Errorf("%d fixtures have greedy.ids, want 14", tested)
	}
}

// TestExact holds all that comes of requests at once against the same ones by
// one, bit for bit, whatever they share and however prompts are cut; and it holds
// the default, in float32, to the same tokens.
func TestExact(t *testing.T) {
	for _, dir := range []string{"llama3-gqa", "gemma2", "qwen3_5", "phi3-longrope"} {
		dir := filepath.Join(fixturesDir, dir)
		for _, c := range []engine.Compute{engine.F32, engine.BF16} {
			m := open(t, dir, c)
			reqs := requests(m, 9, 12)
			var want []answer
			for i, req := range reqs { // nothing to share
				r := newRunner(t, m, Options{Exact: true})
				want = append(want, ask(t.Context(), r, req))
				if err := want[i].err; err != nil || want[i].result.Shared != 0 {
					t.Fatalf("%s: %v, %d shared", dir, err, want[i].result.Shared)
				}
			}
			for _, opt := range []Options{{Exact: true}, {Exact: true, Texts: 3, Chunk: 7}, {}} {
				if !opt.Exact && c == engine.BF16 || !m.Rewinds() && opt.Chunk > 0 {
					continue
				}
				r := newRunner(t, m, opt)
				for round := range 2 { // the second time all is there
					for i, a := range askAll(t, r, reqs) {
						if !slices.Equal(a.ids(), want[i].ids()) {
							t.Errorf("%s, %v, %+v, round %d, request %d: %v, alone %v", dir, c, opt, round, i, a.ids(), want[i].ids())
							continue
						}
						if opt.Exact && fmt.Sprint(a.tokens) != fmt.Sprint(want[i].tokens) {
							t.Errorf("%s, %v, %+v, round %d, request %d: other bits than alone:\n%v\n%v", dir, c, opt, round, i, a.tokens, want[i].tokens)
						}
					}
				}
				if n := r.Counts(); m.Rewinds() != (n.Shared > 0) {
					t.Errorf("%s, %+v: %d shared", dir, opt, n.Shared)
				}
			}
		}
	}
}

// A prompt that others share is computed once, also when all come at once.
func TestSharedPrefix(t *testing.T) {
	m := open(t, demoDir, engine.F32)
	r := newRunner(t, m, Options{Chunk: 64})
	common := make([]int32, 300)
	for i := range common {
		common[i] = int32(7 + i*13%1000)
	}
	var reqs []Request
	for i := range 8 {
		reqs = append(reqs, Request{Prompt: append(slices.Clone(common), int32(20+i), 30), Options: generate.Options{MaxTokens: 3}})
	}
	answers := askAll(t, r, reqs)
	n := r.Counts()
	if want := int64(7 * 300); n.Shared != want || n.Prompt != 8*302 || n.New != 8*3 || n.Requests != 8 {
		t.Errorf("%+v, want %d shared", n, want)
	}
	// A conversation goes on: its last turn's prompt and answer are there.
	next := slices.Concat(reqs[0].Prompt, answers[0].ids(), []int32{40, 41, 42})
	a := ask(t.Context(), r, Request{Prompt: next, Options: generate.Options{MaxTokens: 1}})
	if want := len(next) - 4; a.err != nil || a.result.Shared != want { // the last token of an answer is not computed
		t.Errorf("shared %d (%v), want %d", a.result.Shared, a.err, want)
	}
}

// A recurrence goes on where a text has ended, and nowhere else.
func TestSharedRecurrence(t *testing.T) {
	m := open(t, filepath.Join(fixturesDir, "qwen3_5"), engine.F32)
	r := newRunner(t, m, Options{})
	prompt := requests(m, 2, 4)[1].Prompt
	ask4 := func(r *Runner, prompt []int32) answer {
		return ask(t.Context(), r, Request{Prompt: prompt, Options: generate.Options{MaxTokens: 4}})
	}
	first := ask4(r, prompt)
	next := slices.Concat(prompt, first.ids(), []int32{9, 8})
	a, want := ask4(r, next), ask4(newRunner(t, m, Options{}), next)
	if !slices.Equal(a.ids(), want.ids()) || a.result.Shared != len(prompt)+3 || want.result.Shared != 0 {
		t.Errorf("%v with %d shared, want %v with %d", a.ids(), a.result.Shared, want.ids(), len(prompt)+3)
	}
	if a := ask4(r, prompt[:len(prompt)-2]); a.result.Shared != 0 {
		t.Errorf("a text that ends before: %d shared, want none", a.result.Shared)
	}
}

// Keys and values stay within their bound, whatever is asked and kept.
func TestCacheBound(t *testing.T) {
	m := open(t, demoDir, engine.F32)
	bound := 3 * m.CacheBytes(256)
	r := newRunner(t, m, Options{CacheBytes: bound})
	done := make(chan struct{})
	var most int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				most = max(most, r.Counts().CacheBytes)
			}
		}
	})
	reqs := requests(m, 12, 40)
	askAll(t, r, reqs)
	close(done)
	wg.Wait()
	if most > bound || most == 0 {
		t.Errorf("%d bytes, want at most %d", most, bound)
	}
	a := ask(t.Context(), r, Request{Prompt: []int32{1}, Options: generate.Options{MaxTokens: m.Config.MaxPositions - 1}})
	if a.err != nil {
		t.Errorf("a text that fits just so: %v", a.err)
	}
	small := newRunner(t, m, Options{CacheBytes: m.CacheBytes(256)})
	var large *TooLargeError
	if a := ask(t.Context(), small, Request{Prompt: []int32{1}}); !errors.As(a.err, &large) {
		t.Errorf("more than all keys and values: %v", a.err)
	}
}

// CacheBytes is what caches take.
func TestCacheBytes(t *testing.T) {
	for _, c := range []engine.Compute{engine.F32, engine.BF16} {
		m := open(t, demoDir, c)
		r := newRunner(t, m, Options{})
		ask(t.Context(), r, Request{Prompt: make([]int32, 300), Options: generate.Options{MaxTokens: 2}})
		r.Close(t.Context())
		cache, pieces := m.NewCache(300), []model.Piece(nil)
		pieces = append(pieces, model.Piece{Cache: cache, Tokens: 300})
		x := m.NewMat(300)
		if err := m.Embed(x, make([]int32, 300)); err != nil {
			t.Fatal(err)
		}
		st := m.NewState()
		for i := range m.Blocks() {
			b, err := m.LoadBlock(i)
			if err == nil {
				err = b.Run(st, x, model.Mode{Pieces: pieces})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if got, want := m.CacheBytes(300), cache.Bytes(); got != want {
			t.Errorf("%v: %d bytes, want %d", c, got, want)
		}
	}
}

func TestEnds(t *testing.T) {
	m := open(t, demoDir, engine.F32)
	r := newRunner(t, m, Options{})
	prompt := []int32{0, 53, 260, 2309, 368, 3079, 292}
	all := ask(t.Context(), r, Request{Prompt: prompt})
	if len(all.tokens) != m.Config.MaxPositions-len(prompt) || all.result.Reason != generate.AtLimit {
		t.Errorf("without a limit: %d tokens, %s", len(all.tokens), all.result.Reason)
	}
	stop := all.ids()[9]
	a := ask(t.Context(), r, Request{Prompt: prompt, Options: generate.Options{Stop: []int32{-1, stop}}})
	if want := all.ids()[:slices.Index(all.ids(), stop)]; !slices.Equal(a.ids(), want) || a.result.Reason != generate.AtStop {
		t.Errorf("stop token: %v, %s, want %v", a.ids(), a.result.Reason, want)
	}
	full := append(slices.Clone(prompt), all.ids()...)
	if a := ask(t.Context(), r, Request{Prompt: full}); a.err != nil || len(a.tokens) != 0 || a.result.Reason != generate.AtLimit {
		t.Errorf("a prompt of the model's length: %v, %v, %s", a.err, a.tokens, a.result.Reason)
	}
	var tooLong *TooLongError
	for what, req := range map[string]Request{
		"no tokens":   {},
		"another id":  {Prompt: []int32{4096}},
		"temperature": {Prompt: prompt, Options: generate.Options{Sampling: generate.Sampling{Temperature: -1}}},
		"top":         {Prompt: prompt, Top: MaxTop + 1},
		"too long":    {Prompt: append(full, 5)},
	} {
		if a := ask(t.Context(), r, req); a.err == nil || errors.As(a.err, &tooLong) != (what == "too long") {
			t.Errorf("%s: %v", what, a.err)
		}
	}
	own := errors.New("own")
	if _, err := r.Run(t.Context(), Request{Prompt: prompt}, func(Token) error { return own }); err != own {
		t.Errorf("an error of yield: %v", err)
	}
}

// Requests that are given up, and slow readers, cost the others nothing: not even
// a place; and those that do not fit the queue are refused.
func TestQueueAndCancel(t *testing.T) {
	m := open(t, demoDir, engine.F32)
	r := newRunner(t, m, Options{Texts: 2, Queue: 3})
	ctx, cancel := context.WithCancel(t.Context())
	begun := make(chan struct{}, 8)
	release := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 { // hold both places, and do not read on
		wg.Go(func() {
			_, err := r.Run(ctx, Request{Prompt: []int32{5, 6}, Options: generate.Options{MaxTokens: 400}}, func(Token) error {
				begun <- struct{}{}
				<-release
				return ctx.Err()
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
		<-begun
	}
	waiting, leave := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() {
			if a := ask(waiting, r, Request{Prompt: []int32{7}}); !errors.Is(a.err, context.Canceled) {
				t.Errorf("cancelled in the queue: %v", a.err)
			}
		})
	}
	for r.Counts().Waiting < 3 {
		if n := r.Counts(); n.Running == 0 {
			t.Fatal("the slow readers lost their places before they were done")
		}
		time.Sleep(time.Millisecond)
	}
	if a := ask(t.Context(), r, Request{Prompt: []int32{7}}); !errors.Is(a.err, ErrQueue) {
		t.Errorf("a full queue: %v, want ErrQueue", a.err)
	}
	leave()
	cancel()
	close(release)
	wg.Wait()
	if a := ask(t.Context(), r, Request{Prompt: []int32{7}, Options: generate.Options{MaxTokens: 2}}); a.err != nil || len(a.tokens) != 2 {
		t.Errorf("after all have left: %v, %d tokens", a.err, len(a.tokens))
	}
	if n := r.Counts(); n.Refused != 1 {
		t.Errorf("%d refused, want 1", n.Refused)
	}
}

// Close lets what was asked come to its end; a context cuts it off. No goroutine
// is left.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	m := open(t, demoDir, engine.F32)
	r, err := New(m, Options{Texts: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{}, 1)
	var wg sync.WaitGroup
	for range 3 { // two of them wait
		wg.Go(func() {
			n := 0
			res, err := r.Run(t.Context(), Request{Prompt: []int32{5}, Options: generate.Options{MaxTokens: 20}}, func(Token) error {
				n++
				select {
				case begun <- struct{}{}:
				default:
				}
				return nil
			})
			if err != nil || n != 20 || res.Reason != generate.AtMaxTokens {
				t.Errorf("%d tokens, %v, %v, want 20", n, res, err)
			}
		})
	}
	for <-begun; r.Counts().Requests < 3; time.Sleep(time.Millisecond) {
	}
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if a := ask(t.Context(), r, Request{Prompt: []int32{5}}); !errors.Is(a.err, ErrClosed) {
		t.Errorf("after Close: %v", a.err)
	}

	if r, err = New(m, Options{}, nil); err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		_, err := r.Run(t.Context(), Request{Prompt: []int32{5}}, func(Token) error {
			select {
			case begun <- struct{}{}:
			default:
			}
			return nil
		})
		if !errors.Is(err, ErrClosed) {
			t.Errorf("cut off: %v", err)
		}
	})
	<-begun
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, before %d", runtime.NumGoroutine(), before)
}
