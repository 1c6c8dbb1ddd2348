package generate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tokenizer"
)

const (
	demoDir     = "../demo/data/model"
	fixturesDir = "../testdata/fixtures"
)

func open(t *testing.T, dir string) *model.Model {
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

func run(t *testing.T, g *Generator, prompt []int32, opt Options) ([]int32, Reason) {
	t.Helper()
	var ids []int32
	reason, err := g.Run(t.Context(), prompt, opt, func(id int32) error {
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, reason
}

func newGenerator(t *testing.T, m *model.Model, bytes int64) *Generator {
	t.Helper()
	g, err := New(m, bytes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestFixtures decodes what transformers decoded, with every architecture, with
// all blocks in memory and with none.
func TestFixtures(t *testing.T) {
	const prompt = 8
	tested := 0
	for _, name := range golden.Folders(t, fixturesDir) {
		stored, ok := golden.Read(t, filepath.Join(fixturesDir, name, "golden.safetensors"))["greedy.ids"]
		if !ok {
			continue // phi3-longrope, which TestTransformers has
		}
		tested++
		var ids []int32
		for _, id := range stored.I64 {
			ids = append(ids, int32(id))
		}
		for _, bytes := range []int64{0, 1} {
			g := newGenerator(t, open(t, filepath.Join(fixturesDir, name)), bytes)
			if want := int(1-bytes) * g.m.Blocks(); g.Resident() != want {
				t.Errorf("%s: %d blocks in memory, want %d", name, g.Resident(), want)
			}
			got, reason := run(t, g, ids[:prompt], Options{MaxTokens: len(ids) - prompt})
			if !slices.Equal(got, ids[prompt:]) || reason != AtMaxTokens {
				t.Errorf("%s: got %v, %s, want %v", name, got, reason, ids[prompt:])
			}
		}
	}
	if tested < 14 {
		t.Errorf("%d fixtures have greedy.ids, want 14", tested)
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTransformers holds ids and text against transformers' (tools/golden_generate.py);
// one case grows over the length at which its positions turn otherwise.
func TestTransformers(t *testing.T) {
	var cases []struct {
		Model, Prompt, Text string
		IDs, New            []int32
	}
	readJSON(t, "testdata/greedy.json", &cases)
	if len(cases) < 4 {
		t.Fatalf("%d cases, want 4 or more", len(cases))
	}
	for _, c := range cases {
		g := newGenerator(t, open(t, "../"+c.Model), 0)
		if got, _ := run(t, g, c.IDs, Options{MaxTokens: len(c.New)}); !slices.Equal(got, c.New) {
			t.Errorf("%s %q: got %v, want %v", c.Model, c.Prompt, got, c.New)
		}
		if c.Text == "" {
			continue
		}
		tok, err := tokenizer.Load("../" + c.Model)
		if err != nil {
			t.Fatal(err)
		}
		if ids, err := tok.Encode(c.Prompt, true); err != nil || !slices.Equal(ids, c.IDs) {
			t.Errorf("%q: encoded as %v (%v), want %v", c.Prompt, ids, err, c.IDs)
		}
		if got := streamed(t, NewText(tok, c.IDs), c.New, true); got != c.Text {
			t.Errorf("%q: text %q, want %q", c.Prompt, got, c.Text)
		}
	}
}

func TestEnds(t *testing.T) {
	m := open(t, demoDir)
	g := newGenerator(t, m, 0)
	prompt := []int32{0, 53, 260, 2309, 368, 3079, 292}
	ids, reason := run(t, g, prompt, Options{})
	if len(ids) != m.Config.MaxPositions-len(prompt) || reason != AtLimit {
		t.Errorf("without a limit %d tokens, %s, want %d", len(ids), reason, m.Config.MaxPositions-len(prompt))
	}
	at := slices.Index(ids, ids[9])
	if got, reason := run(t, g, prompt, Options{Stop: []int32{-1, ids[9]}}); !slices.Equal(got, ids[:at]) || reason != AtStop {
		t.Errorf("stop token %d: %v, %s, want %v", ids[9], got, reason, ids[:at])
	}
	full := append(slices.Clone(prompt), ids...)
	if got, reason := run(t, g, full, Options{}); len(got) != 0 || reason != AtLimit {
		t.Errorf("a prompt of the model's length: %v, %s, want nothing", got, reason)
	}
	for want, prompt := range map[string][]int32{
		"the prompt has no tokens":                 nil,
		"513 tokens, want at most the model's 512": append(full, 5),
		"id 4096, want one in [0, 4096)":           {4096},
	} {
		_, err := g.Run(t.Context(), prompt, Options{}, func(int32) error { return nil })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	stop := errors.New("stop")
	if _, err := g.Run(t.Context(), prompt, Options{}, func(int32) error { return stop }); err != stop {
		t.Errorf("an error of yield: %v, want it", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Run(ctx, prompt, Options{}, func(int32) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestDistribution holds what remains to choose from against transformers'
// logits processors, which compute in float32.
func TestDistribution(t *testing.T) {
	var cases []struct {
		Temperature float64
		TopK        int     `json:"top_k"`
		TopP        float64 `json:"top_p"`
		Logits      []float32
		P           []float64
	}
	readJSON(t, "testdata/sample.json", &cases)
	if len(cases) < 8 {
		t.Fatalf("%d cases, want 8", len(cases))
	}
	for _, c := range cases {
		s, r := NewSampler(Sampling{Temperature: c.Temperature, TopK: c.TopK, TopP: c.TopP}), new(Ranking)
		r.Reset(c.Logits)
		r.Top(1)
		n, sum := s.choice(r)
		got := make([]float64, len(c.Logits))
		for _, id := range r.Top(n) {
			got[id] = s.weight(r, id) / sum
		}
		golden.Compare(t, "probabilities", got, c.P, golden.Tolerance{Abs: 1e-6})
	}
}

// Drawn often enough, tokens come as often as their probabilities say, within
// five standard deviations; the same seed draws the same ones, another others.
func TestSampling(t *testing.T) {
	logits := []float32{float32(math.Log(1)), float32(math.Log(2)), float32(math.Log(5)), float32(math.Log(2)), -40}
	const n = 20000
	draw := func(seed uint64) (ids []int32, counts [5]int) {
		s, r := NewSampler(Sampling{Temperature: 1, Seed: seed}), new(Ranking)
		for range n {
			id, err := s.Next(logits, r)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
			counts[id]++
		}
		return ids, counts
	}
	ids, counts := draw(1)
	for i, p := range []float64{0.1, 0.2, 0.5, 0.2, 0} {
		if d := math.Abs(float64(counts[i]) - p*n); !(d <= 5*math.Sqrt(p*(1-p)*n)) {
			t.Errorf("token %d came %d times of %d, want a share of %v", i, counts[i], n, p)
		}
	}
	if same, _ := draw(1); !slices.Equal(same, ids) {
		t.Error("the same seed drew other tokens")
	}
	if other, _ := draw(2); slices.Equal(other, ids) {
		t.Error("another seed drew the same tokens")
	}
	greedy := NewSampler(Sampling{})
	if id, err := greedy.Next([]float32{1, 3, 3}, new(Ranking)); id != 1 || err != nil {
		t.Errorf("greedy: %d, %v, want the first of equals", id, err)
	}
	for _, bad := range [][]float32{{1, float32(math.NaN())}, {1, float32(math.Inf(1))}} {
		if _, err := NewSampler(Sampling{Temperature: 1}).Next(bad, new(Ranking)); err == nil {
			t.Errorf("logits %v: no error", bad)
		}
	}
	for _, bad := range []Sampling{{Temperature: -1}, {Temperature: math.NaN()}, {Temperature: math.Inf(1)}, {TopK: -1}, {TopP: 1.5}, {TopP: -0.1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

// A ranking that is asked for a few is the beginning of the whole order.
func TestRanking(t *testing.T) {
	draws := splitmix.Source(3)
	for _, vocab := range []int{1, 7, 64, 65, 600, 3000} {
		logits := make([]float32, vocab)
		for i := range logits {
			logits[i] = float32(draws.Next() % 200) // many are equal
		}
		want := make([]int32, vocab)
		for i := range want {
			want[i] = int32(i)
		}
		slices.SortStableFunc(want, func(a, b int32) int { return cmp.Compare(logits[b], logits[a]) })
		r := new(Ranking)
		for _, n := range []int{1, 2, 64, 65, 512, 513, vocab, vocab + 1, 3} {
			r.Reset(logits)
			for _, n := range []int{n, n / 2, n + 3} {
				if got := r.Top(n); !slices.Equal(got, want[:min(n, vocab)]) {
					t.Fatalf("top %d of %d: %v, want %v", n, vocab, got, want[:min(n, vocab)])
				}
			}
		}
		sum := 0.0
		for _, v := range logits {
			sum += math.Exp(float64(v))
		}
		if got := r.LogSum(); !(math.Abs(got-math.Log(sum)) <= 1e-9) {
			t.Errorf("LogSum %v, want %v", got, math.Log(sum))
		}
	}
}

func TestThreadsDoNotMatter(t *testing.T) {
	var got [2][]int32
	for i, n := range []int{1, 4} {
		old := runtime.GOMAXPROCS(n)
		got[i], _ = run(t, newGenerator(t, open(t, demoDir), 0), []int32{0, 53, 260}, Options{MaxTokens: 30, Sampling: Sampling{Temperature: 1, Seed: 5}})
		runtime.GOMAXPROCS(old)
	}
	if !slices.Equal(got[0], got[1]) {
		t.Errorf("1 thread %v, 4 threads %v", got[0], got[1])
	}
}

// streamed returns the text of ids as it comes, with what is left or without.
func streamed(t *testing.T, x *Text, ids []int32, withRest bool) string {
	t.Helper()
	text := ""
	add := func(s string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		text += s
	}
	for _, id := range ids {
		add(x.Add(id))
	}
	if withRest {
		add(x.Rest())
	}
	return text
}

// Characters whose bytes are several tokens, at the end of a prompt and after
// it, and a text that ends within one.
func TestText(t *testing.T) {
	for _, dir := range []string{demoDir, "../eval/task/testdata/tokenizers/pieces", "../eval/task/testdata/tokenizers/nobos"} {
		tok, err := tokenizer.Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		const prompt, rest = "A naïve 日本", "語の文 is 🙂 here 。"
		all, err1 := tok.Encode(prompt+rest, true)
		begin, err2 := tok.Encode(prompt, true)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(all[:len(begin)], begin) {
			t.Fatalf("%s: the prompt's tokens are not the beginning of the text's", dir)
		}
		for end := len(begin); end <= len(all); end++ {
			got := streamed(t, NewText(tok, begin), all[len(begin):end], false)
			if strings.Contains(got, "\uFFFD") || !strings.HasPrefix(rest, got) {
				t.Errorf("%s: %d tokens are %q", dir, end-len(begin), got)
			}
		}
		if got := streamed(t, NewText(tok, begin), all[len(begin):], true); got != rest {
			t.Errorf("%s: all tokens are %q, want %q", dir, got, rest)
		}
	}
}

func TestStopTokens(t *testing.T) {
	for _, c := range []struct {
		generation, config string
		want               []int32
	}{
		{`{"eos_token_id": 2}`, `{"eos_token_id": 7}`, []int32{2}},
		{`{"eos_token_id": [2, 3]}`, `{}`, []int32{2, 3}},
		{`{"eos_token_id": null}`, `{"eos_token_id": 7}`, []int32{7}},
		{``, `{"text_config": {"eos_token_id": [7, 8]}}`, []int32{7, 8}},
		{``, `{"eos_token_id": null}`, nil},
		{``, `{}`, nil},
	} {
		dir := t.TempDir()
		if c.generation != "" {
			if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(c.generation), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := StopTokens(tokenizer.In(dir), dir, []byte(c.config))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s and %s: %v, %v, want %v", c.generation, c.config, got, err, c.want)
		}
		for _, bad := range []string{`{"eos_token_id": "2"}`, `{`, `{"eos_token_id": [2.5]}`} {
			if err := os.WriteFile(filepath.Join(dir, "generation_config.json"), []byte(bad), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := StopTokens(tokenizer.In(dir), dir, []byte(c.config)); err == nil || !strings.Contains(err.Error(), "generation_config.json: ") {
				t.Errorf("%s: %v, want an error that names the file", bad, err)
			}
		}
	}
}

// FuzzStopTokens reads any text as a config.
func FuzzStopTokens(f *testing.F) {
	f.Add([]byte(`{"eos_token_id": [2, 3], "x": NaN}`))
	f.Add([]byte(`{"eos_token_id": null, "text_config": {"eos_token_id": 7}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		golden.Ceiling(t, uint64(64<<10+100*len(data)), func() { _, _ = stopTokens(data) })
	})
}
