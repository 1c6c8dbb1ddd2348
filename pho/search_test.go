package pho

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/eval"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/provenance"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/search"
	"github.com/crepe-llm/crepe/tokenizer"
	"github.com/crepe-llm/crepe/windows"
)

// memory is a search.Store in memory, whose room ends after so many records.
type memory struct {
	studies map[string]*memoryStudy
	room    int
}

type memoryStudy struct {
	store   *memory
	fields  provenance.Record
	records []search.SavedRecord
}

var errFull = errors.New("disk full")

func newMemory() *memory { return &memory{studies: map[string]*memoryStudy{}, room: 1 << 30} }

func (m *memory) Study(_ context.Context, name string, fields provenance.Record) (search.Study, error) {
	if s := m.studies[name]; s != nil {
		if !reflect.DeepEqual(s.fields, fields) {
			return nil, &search.MismatchError{Store: "memory", Study: name, Have: s.fields, Ask: fields}
		}
		return s, nil
	}
	m.studies[name] = &memoryStudy{store: m, fields: fields}
	return m.studies[name], nil
}

func (m *memory) Forget(_ context.Context, name string) error { delete(m.studies, name); return nil }
func (m *memory) Close() error                                { return nil }

func (s *memoryStudy) Records(_ context.Context, kind string) ([]search.Record, error) {
	return s.saved().Of(kind), nil
}

// saved is what a reader of the study finds.
func (s *memoryStudy) saved() *search.Saved {
	return &search.Saved{Name: "search", Provenance: s.fields, Records: s.records}
}

func (s *memoryStudy) Add(_ context.Context, kind string, r search.Record) error {
	if s.store.room == 0 {
		return errFull
	}
	s.store.room--
	s.records = append(s.records, search.SavedRecord{Kind: kind, Record: r})
	return nil
}

func (s *memoryStudy) Remove(_ context.Context, kind, key string) error {
	s.records = slices.DeleteFunc(s.records, func(r search.SavedRecord) bool { return r.Kind == kind && r.Key == key })
	return nil
}

func demoModel(t testing.TB) *model.Model {
	t.Helper()
	dir, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	return openModel(t, dir)
}

func openModel(t testing.TB, dir string) *model.Model {
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
	return m
}

// demoTexts are few windows of the demo's calibration text, and others to verify on.
func demoTexts(t testing.TB, m *model.Model) [2]*windows.Set {
	t.Helper()
	dir, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	l := &windows.Loader{ModelDir: dir, ReadFile: tokenizer.In(dir), Vocab: m.Config.Vocab, MaxSeqLen: m.Config.MaxPositions}
	all, err := l.Calibration(t.Context(), recipe.Calibration{Source: "demo", Samples: 80, SeqLen: 32})
	if err != nil {
		t.Fatal(err)
	}
	calibration, verify, err := HeldOut(all, 12, 16)
	if err != nil {
		t.Fatal(err)
	}
	return [2]*windows.Set{calibration, verify}
}

// tokens is n windows of made-up text.
func tokens(n int, step int32) *windows.Set {
	s := &windows.Set{Source: "made up", SeqLen: 16}
	id := int32(1)
	for range n {
		w := make([]int32, s.SeqLen)
		for t := range w {
			id = (id*31 + step) % 4096
			w[t] = id
		}
		s.Tokens = append(s.Tokens, w)
	}
	return s
}

func options(store search.Store) Options {
	return Options{
		Recipe: recipe.Recipe{Sparsity: "70%"}, Objective: Perplexity, Sampler: "hillclimb", Trials: 7, Top: 3, Kernels: []int{9},
		Calibration: tokens(3, 7), Verify: tokens(32, 11), Store: store, Name: "search", Model: "demo",
	}
}

// small is a fixture, and options for it.
func small(t testing.TB) (*model.Model, func(store search.Store) Options) {
	m := openModel(t, "../testdata/fixtures/llama3-gqa")
	return m, func(store search.Store) Options {
		opt := options(store)
		for _, w := range slices.Concat(opt.Calibration.Tokens, opt.Verify.Tokens) {
			for i := range w {
				w[i] %= int32(m.Config.Vocab)
			}
		}
		return opt
	}
}

func find(t testing.TB, m *model.Model, opt Options) *Result {
	t.Helper()
	res, err := Search(t.Context(), m, opt)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// The winner is that of measuring every candidate in full, or within half a percent of
// it, those that always take part included, and is measured in full itself. A proxy is followed if it goes with perplexity, and not otherwise.
func TestSearchFindsTheWinnerOfAll(t *testing.T) {
	m := demoModel(t)
	text := demoTexts(t, m)
	for _, c := range []struct{ objective, pattern string }{{Perplexity, "2:4"}, {GiniPruned, "50%"}} {
		opt := options(newMemory())
		opt.Objective, opt.Calibration, opt.Verify, opt.Trials, opt.Top = c.objective, text[0], text[1], 6, 2
		opt.Sampler, opt.Recipe.Sparsity = SamplerOf(c.objective), c.pattern
		opt.Known = []Known{{"elsewhere", Coefficients{Alpha: 1, Beta: 0.5, Kernel: 9, Power: 1, Kinds: map[string]Kind{"v_proj": {Alpha: 1, Power: 0.5}}}}}
		if c.pattern == "2:4" {
			opt.Recipe = recipe.Recipe{Pattern: c.pattern}
		}
		res := find(t, m, opt)
		checkHistory(t, opt, res)
		always := []string{"default", "wanda", "ria", "elsewhere"}
		if c.objective == GiniPruned {
			always = append(always, "equal")
			if res.Check == nil || res.Check.Correlation == nil || res.Check.Followed != (res.Check.Rho >= leastRho) || (res.Objective == GiniPruned) != res.Check.Followed {
				t.Errorf("%v: objective %s after the check %+v", c, res.Objective, res.Check)
			}
		}
		if len(res.Verified) != len(always)+2 || res.Trials != 6 {
			t.Errorf("%v: %d verified of %d, want %d of 6", c, len(res.Verified), res.Trials, len(always)+2)
		}
		for _, name := range always {
			if !slices.ContainsFunc(res.Verified, func(c Candidate) bool { return c.Name == name }) {
				t.Errorf("%v: %s did not take part", c, name)
			}
		}
		v := newVerifier(m, opt)
		givenUp, lowest := 0, eval.Number(math.Inf(1))
		for _, one := range res.Verified {
			m, err := v.measure(t.Context(), "x", opt.RecipeOf(one.Coefficients))
			if err != nil {
				t.Fatal(err)
			}
			got := eval.Number(math.Exp(mean(m.NLL)))
			lowest = min(lowest, got)
			if one.GivenUp {
				givenUp++
				if one.Perplexity != 0 || one.Screened.Windows < MinVerify || one.Screened.Chance > 1-Confidence {
					t.Errorf("%v: %+v was given up with %+v", c, one, one.Screened)
				}
			} else if got != one.Perplexity {
				t.Errorf("%v: %+v: perplexity %v by itself", c, one, got)
			}
		}
		for b, share := range res.Best.Blocks {
			if of := res.Best.Depth; (of == nil || *of == Depth{}) && !(math.Abs(share-0.5) <= 1e-4) || !(share > 0 && share < 1) {
				t.Errorf("%v: block %d has %v zeros with %v", c, b, share, res.Best)
			}
		}
		if len(res.Best.Blocks) != m.Blocks() || res.Best.Perplexity > 1.005*lowest || !reflect.DeepEqual(res.Best, res.Verified[0]) {
			t.Errorf("%v: best %+v, want perplexity %v", c, res.Best, lowest)
		}
		if givenUp < 2 {
			t.Errorf("%v: %d candidates were given up: the test shows nothing of that", c, givenUp)
		}
		t.Logf("%v: %d of %d given up, best %s, %.4f", c, givenUp, len(res.Verified), res.Best, res.Best.Perplexity)
	}
}

// checkHistory compares what a study tells of a search with the search's result.
func checkHistory(t *testing.T, opt Options, res *Result) {
	t.Helper()
	saved := opt.Store.(*memory).studies[opt.Name].saved()
	h, err := ReadHistory(saved)
	if err != nil {
		t.Fatal(err)
	}
	s := h.Stage2
	if len(h.Trials) != res.Trials || s == nil || !s.Over || s.Dense != res.Dense || !reflect.DeepEqual(h.Check, res.Check) {
		t.Fatalf("%d trials, check %+v, stage 2 %+v, want %d, %+v and one that is over, dense %v", len(h.Trials), h.Check, s, res.Trials, res.Check, res.Dense)
	}
	if !reflect.DeepEqual(s.Candidates[s.Best()], res.Best) {
		t.Errorf("best %+v, want %+v", s.Candidates[s.Best()], res.Best)
	}
	list := slices.Clone(s.Candidates)
	sortCandidates(list)
	if !reflect.DeepEqual(list, res.Verified) {
		t.Errorf("candidates %+v, want %+v", list, res.Verified)
	}
	inFull := 0
	for _, step := range s.Steps {
		if step.Full {
			inFull++
		}
	}
	last := s.Steps[len(s.Steps)-1]
	for i, c := range s.Candidates {
		if c.GivenUp && last.Chances[i] != c.Screened.Chance {
			t.Errorf("candidate %d: chance %v after the last step, want %v", i, last.Chances[i], c.Screened.Chance)
		}
		if c.Perplexity != 0 {
			inFull--
		}
	}
	if inFull != 0 || s.Steps[0].Chances != nil || s.Steps[0].Windows < MinVerify {
		t.Errorf("steps %+v, want one for each candidate pruned in full, and chances from the first of them on", s.Steps)
	}
	// While it was at work, less was known, and nobody was given up.
	for n := range saved.Records {
		part := *saved
		part.Records = saved.Records[:n]
		h, err := ReadHistory(&part)
		if err != nil {
			t.Fatalf("%d records: %v", n, err)
		}
		if s := h.Stage2; s != nil && (s.Over || slices.ContainsFunc(s.Candidates, func(c Candidate) bool { return c.GivenUp })) {
			t.Errorf("%d of %d records: it is over", n, len(saved.Records))
		}
	}
}

// A search that ends at every record, and goes on after each, ends as one that
// was never interrupted; so does one on another number of threads.
func TestSearchGoesOn(t *testing.T) {
	m, options := small(t)
	for _, objective := range []string{Perplexity, Full, "outliers_retained"} {
		opt := options(newMemory())
		opt.Objective, opt.Sampler, opt.Trials, opt.Top = objective, SamplerOf(objective), 3, 1
		want := find(t, m, opt)
		cut := newMemory()
		opt.Store = cut
		runs := 0
		for {
			cut.room = 1
			res, err := Search(t.Context(), m, opt)
			if err == nil {
				if !reflect.DeepEqual(res, want) {
					t.Errorf("%s: cut, it finds %+v, want %+v", objective, res, want)
				}
				break
			}
			if !errors.Is(err, errFull) {
				t.Fatal(err)
			}
			runs++
		}
		if runs < 8 {
			t.Errorf("%s: cut %d times, want once for every record", objective, runs)
		}
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	opt := options(newMemory())
	one := find(t, m, opt)
	runtime.GOMAXPROCS(3)
	if three := find(t, m, options(newMemory())); !reflect.DeepEqual(one, three) {
		t.Errorf("on one thread %+v, on three %+v", one, three)
	}
}

// Another budget reads the same study and finds what it would by itself.
func TestSearchWithAnotherBudget(t *testing.T) {
	m, options := small(t)
	few := options(newMemory())
	few.Trials, few.Top = 4, 1
	want := find(t, m, few)
	both := options(newMemory())
	find(t, m, both)
	both.Trials, both.Top = 4, 1
	if got := find(t, m, both); !reflect.DeepEqual(got, want) {
		t.Errorf("after a larger search %+v, want %+v", got, want)
	}
}

func TestSearchRefusesAnotherStudy(t *testing.T) {
	m := demoModel(t)
	opt := options(newMemory())
	opt.Trials, opt.Top = 2, 1
	find(t, m, opt)
	for name, change := range map[string]func(*Options){
		"kernels: [9], this is [3 9]":             func(o *Options) { o.Kernels = []int{3, 9} },
		"model: demo, this is other":              func(o *Options) { o.Model = "other" },
		"pattern: 70%, this is 2:4":               func(o *Options) { o.Recipe.Sparsity, o.Recipe.Pattern = "", "2:4" },
		"sampler: hillclimb, this is random":      func(o *Options) { o.Sampler = "random" },
		"seed: 0, this is 1":                      func(o *Options) { o.Seed = 1 },
		"verification: made up":                   func(o *Options) { o.Verify = tokens(32, 12) },
		"calibration: made up":                    func(o *Options) { o.Calibration = tokens(3, 12) },
		"recipe skip: none, this is x":            func(o *Options) { o.Recipe.Skip = "x" },
		"trials: 2, want at least the 3":          func(o *Options) { o.Top = 3 },
		"trials: 0, want at least 1":              func(o *Options) { o.Trials = 0 },
		`unknown sampler "prayer"`:                func(o *Options) { o.Sampler = "prayer" },
		"kernel: 4":                               func(o *Options) { o.Kernels = []int{4} },
		"multiple of 5":                           func(o *Options) { o.Recipe.Sparsity, o.Recipe.Pattern = "", "2:5" },
		"crepe+dsnot, want no step":               func(o *Options) { o.Recipe.Refine = "dsnot" },
		"objective: perplexity, this is full":     func(o *Options) { o.Objective = Full },
		`unknown objective "luck"`:                func(o *Options) { o.Objective = "luck" },
		"known x: none, this is {":                func(o *Options) { o.Known = []Known{{"x", RIA(9)}} },
		"target prunes none of 256":               func(o *Options) { o.Recipe.Sparsity = "0%"; o.Name = "new" },
		`skip: ".*" leaves no Linear to prune`:    func(o *Options) { o.Recipe.Skip = ".*"; o.Name = "newer" },
		"calibration: sequence 1: token 3 has id": func(o *Options) { o.Calibration.Tokens[1][3] = 123456; o.Name = "newest" },
	} {
		bad := opt
		bad.Calibration = tokens(3, 7)
		change(&bad)
		if strings.HasPrefix(name, "multiple") {
			bad.Name = "five"
		}
		_, err := Search(t.Context(), m, bad)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want one with %q", err, name)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	opt.Name = "cancelled"
	if _, err := Search(cancelled, m, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// So does a study of proxies.
func TestStudyGoesOn(t *testing.T) {
	m, options := small(t)
	none := func(int, Config) {}
	opt := options(newMemory())
	want, err := Study(t.Context(), m, opt, 4, none)
	if err != nil {
		t.Fatal(err)
	}
	cut := newMemory()
	opt.Store = cut
	for range 4 {
		cut.room = 1
		if _, err := Study(t.Context(), m, opt, 4, none); err != nil && !errors.Is(err, errFull) {
			t.Fatal(err)
		}
	}
	cut.room = 0 // what is left needs none
	got, err := Study(t.Context(), m, opt, 4, none)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("cut, it finds %+v (%v), want %+v", got, err, want)
	}
	if _, err := Study(t.Context(), m, opt, 2, none); err == nil || !strings.Contains(err.Error(), "configs: 2, want at least 3") {
		t.Errorf("error %v, want one about 2 configurations", err)
	}
	if len(want.Proxies) != 5 || want.Linear != "model.layers.0.self_attn.q_proj" {
		t.Errorf("%+v, want five proxies at the first q_proj", want)
	}
}

// A study of another program or engine, or of an older crepe, is left as it is.
func TestSearchBesideAnothersStudy(t *testing.T) {
	m := demoModel(t)
	opt := options(newMemory())
	opt.Trials, opt.Top = 2, 1
	own, err := opt.Provenance(m)
	if err != nil {
		t.Fatal(err)
	}
	for why, other := range map[string]provenance.Record{
		"program: other made it, this is ": append(provenance.Record{{Name: "program", Value: "other"}}, own[1:]...),
		"engine: other, this is cpu/":      append(provenance.Record{own[0], {Name: "engine", Value: "other"}}, own[2:]...),
		"program: an older crepe":          {{Name: "crepe", Value: "0.1.0"}, {Name: "pattern", Value: "70%"}},
	} {
		store := newMemory()
		opt.Store = store
		if _, err := store.Study(t.Context(), opt.Name, other); err != nil {
			t.Fatal(err)
		}
		var said []string
		opt.Warn = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
		st, err := opt.openStudy(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := opt.openStudy(t.Context(), m); err != nil || again != st {
			t.Errorf("%s: the second time another study (%v)", why, err)
		}
		if st == search.Study(store.studies[opt.Name]) || len(store.studies) != 2 {
			t.Errorf("%s: it went on with the other's", why)
		}
		if len(said) != 2 || !strings.Contains(said[0], why) || !strings.HasPrefix(said[0], "memory: the ") {
			t.Errorf("said %q, want %q", said, why)
		}
	}
}
