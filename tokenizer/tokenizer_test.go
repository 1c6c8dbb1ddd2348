package tokenizer

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/crepe-llm/crepe/internal/onig"
)

// tiny returns a tokenizer.json of the tokens a b c ab abc <unk>, with members
// put in or replaced.
func tiny(t testing.TB, members string) []byte {
	t.Helper()
	doc := map[string]json.RawMessage{"model": json.RawMessage(tinyModel)}
	if err := json.Unmarshal([]byte(members), &doc); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const tinyModel = `{"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "abc": 5},
	"merges": [["a", "b"], "ab c"]}`

func mustParse(t testing.TB, data []byte) *Tokenizer {
	t.Helper()
	tok, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// By hand: "ababc" has a·b twice, rank 0, then ab·c, rank 1.
func TestEncodeTiny(t *testing.T) {
	tok := mustParse(t, tiny(t, `{"added_tokens": [{"content": "<s>", "special": true}],
		"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "S"}}, {"Sequence": {"id": "A"}}],
		"special_tokens": {"S": {"ids": [6]}}}}`))
	for _, c := range []struct {
		text    string
		special bool
		want    []int32
	}{
		{"ababc", true, []int32{6, 4, 5}},
		{"ababc", false, []int32{4, 5}},
		{"ba<s>x", false, []int32{2, 1, 6, 0}},
		{"xy", false, []int32{0, 0}},
		{"", true, []int32{6}},
		{"", false, []int32{}},
		{"a\xffb", false, []int32{1, 0, 2}},      // one U+FFFD
		{"\xe4\xb8", false, []int32{0, 0}},       // two: Go's range takes each byte by itself
		{"\xff<s>\xff", false, []int32{0, 6, 0}}, // added tokens are found between
		{"a\x00b", false, []int32{1, 0, 2}},      // NUL is a character like others
		{strings.Repeat("ab", 3), false, []int32{4, 4, 4}},
	} {
		if got := encode(t, tok, c.text, c.special); !slices.Equal(got, c.want) {
			t.Errorf("Encode(%q, %v) = %v, want %v", c.text, c.special, got, c.want)
		}
	}
	if n := tok.VocabSize(); n != 7 {
		t.Errorf("VocabSize = %d, want 7", n)
	}
	if id, ok := tok.ID("<s>"); !ok || id != 6 {
		t.Errorf("ID(<s>) = %d, %v, want 6", id, ok)
	}
	if s, ok := tok.Token(5); !ok || s != "abc" {
		t.Errorf("Token(5) = %q, %v, want abc", s, ok)
	}
	if _, ok := tok.Token(7); ok {
		t.Error("Token(7) exists")
	}
	if got := decode(t, tok, []int32{6, 5, 99, -1, 1}, true); got != "abc a" {
		t.Errorf("Decode = %q, want \"abc a\": no decoder joins by spaces", got)
	}
}

// Added tokens are not the model's: "é" is found in the text, but where
// single_word rejects it the model does not know it.
func TestAddedNotInModel(t *testing.T) {
	tok := mustParse(t, tiny(t, `{"added_tokens": [{"id": 77, "content": "é", "single_word": true}, {"content": "a"}, {"content": ""}]}`))
	if got, want := encode(t, tok, "é béb", false), []int32{6, 0, 2, 0, 2}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if n := tok.VocabSize(); n != 7 {
		t.Errorf("VocabSize = %d, want 7", n)
	}
}

func TestParseErrors(t *testing.T) {
	model := func(s string) string { return `{"model": ` + s + `}` }
	for _, c := range []struct{ members, want string }{
		{model(`{"type": "Unigram", "vocab": [["a", -1.5]]}`), `model type "Unigram" is not supported; supported: BPE`},
		{model(`{"type": "WordPiece", "vocab": {}}`), `model type "WordPiece" is not supported`},
		{model(`null`), "no model"},
		{model(`{"vocab": {}}`), "model without a type"},
		{model(`{"type": "BPE", "vocab": {"a": 0}}`), "want vocab and merges"},
		{model(`{"type": "BPE", "vocab": {"a": -1}, "merges": []}`), `token "a": id -1, want a number from 0 to 2147483647`},
		{model(`{"type": "BPE", "vocab": {"a": 4294967296}, "merges": []}`), `id 4294967296`},
		{model(`{"type": "BPE", "vocab": {"a": "b"}, "merges": []}`), `token "a": id "b"`},
		{model(`{"type": "BPE", "vocab": {"a": {}}, "merges": []}`), `token "a"`},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}`), `merge 0 ("a" "b"): "b" is not in the vocabulary`},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]]}`), `"aa" is not in the vocabulary`},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": ["a a a"]}`), `entry 0: "a a a", want two tokens`},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}`), "want a string"},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [["a","a","a"]]}`), "entry 0: want two tokens"},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [1]}`), "want a string"},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.1}`), "dropout 0.1 is not supported"},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"}`), `end_of_word_suffix "</w>"`},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "##"}`), `continuing_subword_prefix "##"`},
		{model(`{"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "<unk>"}`), `unk_token "<unk>" is not in the vocabulary`},
		{`{"version": "2.0"}`, `version "2.0", want "1.0"`},
		{`{"normalizer": {"type": "Precompiled"}}`, `normalizer type "Precompiled" is not supported; supported: NFC`},
		{`{"normalizer": {"type": "Sequence", "normalizers": [{"type": "Nmt"}]}}`, `normalizer type "Nmt"`},
		{`{"normalizer": {"type": "Replace", "content": "x"}}`, "normalizer Replace: no pattern"},
		{`{"pre_tokenizer": {"type": "BertPreTokenizer"}}`, `pre_tokenizer type "BertPreTokenizer" is not supported`},
		{`{"pre_tokenizer": {}}`, "pre_tokenizer without a type"},
		{`{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}}`, `pre_tokenizer Split: pattern "("`},
		{`{"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "Sideways"}}`, `behavior "Sideways"`},
		{`{"pre_tokenizer": {"type": "Metaspace", "replacement": "__"}}`, `replacement "__", want one character`},
		{`{"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"}}`, `prepend_scheme "last"`},
		{`{"post_processor": {"type": "BertProcessing"}}`, `post_processor type "BertProcessing" is not supported`},
		{`{"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "S"}}]}}`, `special token "S" is not among special_tokens`},
		{`{"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B"}}]}}`, "want pieces that are SpecialToken or Sequence A"},
		{`{"decoder": {"type": "WordPiece"}}`, `decoder type "WordPiece" is not supported`},
		{`{"decoder": {"type": "Strip", "content": ""}}`, "want one character"},
		{`{"normalizer": {"type": "Strip", "strip_left": true}, "added_tokens": [{"content": "\n", "normalized": true}]}`, `added token "\n": the normalizer leaves nothing of it`},
	} {
		_, err := Parse(tiny(t, c.members))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.members, err, c.want)
		}
	}
	for _, data := range []string{"", "{", "[]", `{"added_tokens": 3}`} {
		if _, err := Parse([]byte(data)); err == nil {
			t.Errorf("Parse(%q): no error", data)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	check := func(want string) {
		t.Helper()
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("error %v, want one with the path and %q", err, want)
		}
	}
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	check("no tokenizer: want tokenizer.json or tokenizer.model")
	write("tokenizer.model", []byte("<html>"))
	check("tokenizer.model: protobuf")
	good, err := os.ReadFile("testdata/sp-llama.model")
	if err != nil {
		t.Fatal(err)
	}
	write("tokenizer.model", good)
	write("tokenizer_config.json", []byte("{"))
	check("tokenizer_config.json")
	write("tokenizer.json", []byte("{}"))
	check("tokenizer.json: no model")
}

// tokenizer_config.json decides what stands around the text where there is only
// a tokenizer.model.
func TestLoadSentencePiece(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile("testdata/sp-llama.model")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tokenizer.model"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ conf, want string }{
		{`{}`, "<s> ▁ a </s> ▁ a"},
		{`{"add_bos_token": false}`, "▁ a </s> ▁ a"},
		{`{"add_bos_token": true, "add_eos_token": true, "legacy": true}`, "<s> ▁ a </s> ▁ a </s>"},
		{`{"legacy": false}`, "<s> ▁ a </s> a"},
	} {
		if err := os.WriteFile(filepath.Join(dir, "tokenizer_config.json"), []byte(c.conf), 0o666); err != nil {
			t.Fatal(err)
		}
		tok, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Join(spell(tok, encode(t, tok, "a</s>a", true)), " ")
		want := strings.ReplaceAll(c.want, "▁ a", spellOne(t, tok, "a"))
		if got != want {
			t.Errorf("%s: %s, want %s", c.conf, got, want)
		}
	}
}

// spellOne is the tokens of one part with the dummy prefix.
func spellOne(t *testing.T, tok *Tokenizer, s string) string {
	t.Helper()
	return strings.Join(spell(tok, encode(t, tok, s, false)), " ")
}

// All goroutines get the same ids; run with -race.
func TestConcurrent(t *testing.T) {
	tok := mustParse(t, readGzip(t, "testdata/llama3.json.gz"))
	texts := nastyStrings(t)
	want := make([][]int32, len(texts))
	for i, s := range texts {
		want[i] = encode(t, tok, s, true)
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range texts {
				i = (i*7 + g*191) % len(texts)
				if got := encode(t, tok, texts[i], true); !slices.Equal(got, want[i]) {
					t.Errorf("%q: %v, want %v", texts[i], got, want[i])
					return
				}
			}
		})
	}
	wg.Wait()
}

// The two ways to merge agree with the definition, for words of any length.
func TestMergeProperty(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		table := newMergeTable(64)
		next := int32(4)
		for rank := range uint32(40) {
			// Ranks in pairs, as pieces of equal score share one.
			table.set(rng.Int32N(next), rng.Int32N(next), rank/2, next)
			next++
		}
		word := make([]int32, 1+rng.IntN(120))
		for i := range word {
			word[i] = rng.Int32N(4)
		}
		want := mergeByDefinition(slices.Clone(word), &table)
		var m merger
		for name, merge := range map[string]func([]int32, *mergeTable) int{"short": m.mergeShort, "long": m.mergeLong} {
			got := slices.Clone(word)
			got = got[:merge(got, &table)]
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %v becomes %v, want %v", name, word, got, want)
			}
		}
	}
}

func mergeByDefinition(ids []int32, t *mergeTable) []int32 {
	for {
		best, at := uint32(noRank), -1
		for i := range len(ids) - 1 {
			if rank, _ := t.get(ids[i], ids[i+1]); rank < best {
				best, at = rank, i
			}
		}
		if at < 0 {
			return ids
		}
		_, ids[at] = t.get(ids[at], ids[at+1])
		ids = slices.Delete(ids, at+1, at+2)
	}
}

// A scanner and the engine with the same pattern match the same.
func TestScannersMatchEngine(t *testing.T) {
	texts := append(nastyStrings(t), evalText(t)[:20000])
	for pattern, scan := range patterns {
		engine, err := onig.Compile(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range texts {
			compareMatches(t, pattern, s, matcher{finder: scan}, matcher{engine: engine})
		}
	}
	engine, err := onig.Compile(trailingPattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range texts {
		compareMatches(t, trailingPattern, s, matcher{finder: trailingSpaces{}}, matcher{engine: engine})
	}
}

func compareMatches(t *testing.T, pattern, s string, got, want matcher) {
	t.Helper()
	list := func(m matcher) (out [][2]int) {
		b := newBudget(len(s))
		if err := m.each(s, &b, func(lo, hi int) { out = append(out, [2]int{lo, hi}) }); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		return out
	}
	if g, w := list(got), list(want); !slices.Equal(g, w) {
		t.Errorf("%s on %.200q: %v, want %v", pattern, s, g, w)
	}
}

// What a split cuts, joined, is the text; Removed leaves the matches out.
func TestSplitBehaviors(t *testing.T) {
	for _, c := range []struct {
		behavior string
		invert   bool
		want     string
	}{
		{"Isolated", false, "-|a|-|-|b|c|-"},
		{"Removed", false, "a|b|c"},
		{"Removed", true, "-|-|-|-"},
		{"MergedWithPrevious", false, "-|a-|-|b|c-"},
		{"MergedWithNext", false, "-a|-|-b|c|-"},
		{"Contiguous", false, "-|a|--|b|c|-"},
	} {
		// Each letter is a word of its own first, so that b and c stay apart
		// where they are not matched.
		tok := mustParse(t, tiny(t, fmt.Sprintf(`{"pre_tokenizer": {"type": "Split", "pattern": {"String": "-"}, "behavior": %q, "invert": %v}}`, c.behavior, c.invert)))
		var parts []string
		tok.stages[0].apply(&encoder{t: &Tokenizer{stages: []stage{tok.stages[0], recorder{&parts}}}}, 1, "-a--bc-", true)
		got := strings.ReplaceAll(strings.Join(parts, "|"), "bc", "b|c")
		if got != c.want {
			t.Errorf("%s, invert %v: %s, want %s", c.behavior, c.invert, got, c.want)
		}
	}
}

// recorder is a stage that notes what comes to it.
type recorder struct{ parts *[]string }

func (r recorder) apply(_ *encoder, _ int, text string, _ bool) { *r.parts = append(*r.parts, text) }

// Decoding replaces what is not UTF-8 as Rust does: by maximal beginnings.
func TestLossy(t *testing.T) {
	for in, want := range map[string]string{
		"a":                "a",
		"\xff":             "\ufffd",
		"\xe4\xb8x":        "\ufffdx",            // a rune that breaks off: one
		"\xe4\xb8\xe4\xb8": "\ufffd\ufffd",       // two of them
		"\xed\xa0\x80":     "\ufffd\ufffd\ufffd", // a surrogate: no beginning of a rune
		"\xf0\x90\x80":     "\ufffd",
		"\xf4\x90\x80\x80": "\ufffd\ufffd\ufffd\ufffd",
		"\xc0\x80":         "\ufffd\ufffd",
		"\xf0\x9f\x91x":    "\ufffdx",
	} {
		if got := lossy(in); got != want {
			t.Errorf("lossy(%x) = %q, want %q", in, got, want)
		}
	}
}

// A whole text as one word is merged in O(n log n): a megabyte in well under
// the minutes that a quadratic merge takes.
func TestLongWord(t *testing.T) {
	tok := mustParse(t, readGzip(t, "testdata/whole.json.gz"))
	for _, s := range []string{strings.Repeat("a", 1<<20), strings.Repeat(" ", 1<<20), strings.Repeat("the ", 1<<18)} {
		if got := decode(t, tok, encode(t, tok, s, true), true); got != s {
			t.Errorf("%.8q…: does not decode to itself", s)
		}
	}
	// Nor is white space before a word scanned anew from each of its places.
	tok = mustParse(t, readGzip(t, "testdata/deepseek-llm.json.gz"))
	s := strings.Repeat(" ", 1<<20) + "x"
	if got := decode(t, tok, encode(t, tok, s, true), true); got != s {
		t.Error("spaces do not decode to themselves")
	}
}

// Metaspace with prepend_scheme "first" marks a text only where it begins with what the
// input begins with. The tokens are those of tokenizers 0.23.3.
func TestWhereATextBegins(t *testing.T) {
	const strip, spaces = `{"type": "Strip", "strip_left": true, "strip_right": true}`, `{"Regex": "^ +"}`
	replace := func(pattern, content string) string {
		return `{"type": "Replace", "pattern": ` + pattern + `, "content": "` + content + `"}`
	}
	for _, c := range []struct{ normalizer, text, want string }{
		{strip, "a b ", "▁ a ▁ b"},
		{strip, " a b", "a ▁ b"},
		{replace(spaces, ""), "a", "▁ a"},
		{replace(spaces, ""), " a", "a"},
		{replace(spaces, "x"), " a", "▁ x a"},
		{replace(spaces, "x"), "  a", "x a"},
		{replace(`{"String": "b"}`, ""), "ab", "▁ a"},
		{replace(`{"String": "b"}`, ""), "bba", "a"},
		{replace(`{"String": "ab"}`, "x"), "aba", "x a"},
		{replace(`{"String": "ab"}`, "x"), "bab", "▁ b x"},
		{`{"type": "Sequence", "normalizers": [` + strip + `, {"type": "NFC"}]}`, " a", "a"},
		{`{"type": "Sequence", "normalizers": [` + strip + `, {"type": "NFC"}]}`, "a", "▁ a"},
	} {
		tok := mustParse(t, []byte(`{"normalizer": `+c.normalizer+`, "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true},
			"model": {"type": "BPE", "unk_token": "<unk>", "vocab": {"<unk>": 0, "▁": 1, "a": 2, "b": 3, "x": 4}, "merges": []}}`))
		var got []string
		for _, id := range encode(t, tok, c.text, false) {
			token, _ := tok.Token(id)
			got = append(got, token)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s, %q: %s, want %s", c.normalizer, c.text, s, c.want)
		}
	}
}
