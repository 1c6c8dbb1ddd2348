package tokenizer

import (
	"encoding/json"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// allocated returns how many bytes f allocates, garbage included.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// bombs are tokenizer.json files whose members make much of little.
func bombs(t testing.TB) map[string][]byte {
	t.Helper()
	replace := `{"type": "Replace", "pattern": {"String": "e"}, "content": "ee"}`
	times := func(n int, s string) string { return strings.Repeat(s+",", n-1) + s }
	nested := func(n int, inner string) string {
		return strings.Repeat(`{"type": "Sequence", "normalizers": [`, n) + inner + strings.Repeat("]}", n)
	}
	return map[string][]byte{
		"normalizer doubles": tiny(t, `{"normalizer": {"type": "Sequence", "normalizers": [`+times(40, replace)+`]}}`),
		"decoder doubles":    tiny(t, `{"added_tokens": [{"content": "e"}], "decoder": {"type": "Sequence", "decoders": [`+times(40, replace)+`]}}`),
		"stages double":      tiny(t, `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [`+times(40, `{"type": "ByteLevel", "use_regex": false}`)+`]}}`),
		"steps without end":  tiny(t, `{"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(([a-z ]+)+)+#"}, "behavior": "Isolated"}}`),
		"long added token":   tiny(t, `{"added_tokens": [{"content": "`+strings.Repeat("a", 1<<14)+`b"}]}`),
		"added tokens":       tiny(t, `{"added_tokens": [{"content": "`+strings.Repeat("a", maxAddedText)+`"}, {"content": "b"}]}`),
		"template":           tiny(t, `{"post_processor": {"type": "TemplateProcessing", "single": [`+times(2000, `{"Sequence": {"id": "A"}}`)+`]}}`),
		"text many times":    tiny(t, `{"post_processor": {"type": "TemplateProcessing", "single": [`+times(20, `{"Sequence": {"id": "A"}}`)+`]}}`),
		"template's ids": tiny(t, `{"post_processor": {"type": "TemplateProcessing", "single": [`+times(20, `{"SpecialToken": {"id": "S"}}`)+`],
			"special_tokens": {"S": {"ids": [`+times(100, "1")+`]}}}}`),
		"components":   tiny(t, `{"normalizer": {"type": "Sequence", "normalizers": [`+times(1000, `{}`)+`]}}`),
		"nested":       tiny(t, `{"normalizer": `+nested(4990, `{"type": "Prepend", "prepend": "`+strings.Repeat("x", 500_000)+`"}`)+`}`),
		"nested steps": tiny(t, `{"normalizer": {"type": "Sequence", "normalizers": [`+times(200, nested(1, times(200, `{"type":"NFC"}`)))+`]}}`),
		"big member":   tiny(t, `{"decoder": {"type": "Fuse", "x": "`+strings.Repeat("x", maxMember)+`"}}`),
		"big patterns": tiny(t, `{"pre_tokenizer": {"type": "Sequence", "pretokenizers": [`+times(200, `{"type": "Split", "pattern": {"Regex": "`+strings.Repeat("[é]", 200)+`"}, "behavior": "Isolated"}`)+`]}}`),
	}
}

// A tokenizer.json is read, and a text encoded, in bounded memory, or refused.
func TestBombs(t *testing.T) {
	want := map[string]string{
		"normalizer doubles": "normalizer: the text grows by more than 1049176 bytes",
		"decoder doubles":    "decoder: the text grows by more than",
		"stages double":      "pre_tokenizer: the text grows by more than",
		"steps without end":  `pre_tokenizer Split: pattern "(([a-z ]+)+)+#": matching takes too many steps`,
		"long added token":   "added tokens: finding them takes too many steps",
		"added tokens":       "added tokens of more than 4194304 bytes are not supported",
		"template":           "an array of more than 1024 elements is not supported",
		"text many times":    "a template with Sequence A more than 16 times is not supported",
		"template's ids":     "a template that adds more than 1024 ids is not supported",
		"components":         "normalizer: an array of more than 256 elements is not supported",
		"nested":             "normalizer: 9981 brackets within each other, want at most 64",
		"nested steps":       "normalizer: 40200 steps in its Sequences, want at most 256",
		"big member":         " bytes, want at most 1048576",
		"big patterns":       "pre_tokenizer: patterns of 160000 bytes, want at most 65536",
	}
	for name, data := range bombs(t) {
		var err error
		text := "é e " + strings.Repeat("a", 70)
		if name == "long added token" {
			text = strings.Repeat("a", 1<<15)
		}
		n := allocated(func() {
			var tok *Tokenizer
			if tok, err = Parse(data); err != nil {
				return
			}
			if _, err = tok.Encode(text, true); err != nil {
				return
			}
			_, err = tok.Decode(slices.Repeat([]int32{6}, 75), false)
		})
		if err == nil || !strings.Contains(err.Error(), want[name]) {
			t.Errorf("%s: error %v, want one with %q", name, err, want[name])
		}
		if n > 64<<20+100*len(data) {
			t.Errorf("%s: %d bytes allocated for %d, want at most 64 MiB and 100 times as many", name, n, len(data))
		}
	}
}

// A text of one word takes a small multiple of its size, also where it merges.
func TestEncodeMemory(t *testing.T) {
	tok := mustParse(t, readGzip(t, "testdata/whole.json.gz"))
	for _, s := range []string{strings.Repeat("a", 4<<20), strings.Repeat("the ", 1<<20), strings.Repeat("é", 2<<20)} {
		tok.idle = nil
		n := allocated(func() { encode(t, tok, s, false) })
		if n > 16*len(s) {
			t.Errorf("%.8q…: %d bytes allocated for %d of text, want at most 16 times as many", s, n, len(s))
		}
	}
}

func fuzzSeeds(f *testing.F) {
	f.Add(tiny(f, "{}"))
	for _, data := range bombs(f) {
		if len(data) < 1<<18 {
			f.Add(data)
		}
	}
	files, err := filepath.Glob("testdata/*.json.gz")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, path := range files {
		// Vocabulary and merges cut short: small inputs are mutated faster.
		var doc map[string]any
		if err := json.Unmarshal(readGzip(f, path), &doc); err != nil {
			f.Fatal(err)
		}
		model := doc["model"].(map[string]any)
		model["merges"] = []any{}
		model["vocab"] = map[string]any{"a": 1, "b": 2, "<unk>": 0, "▁": 3, "Ġ": 4}
		data, err := json.Marshal(doc)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// Ceilings on what parsers allocate, in bytes for each byte of input, beside
// what small inputs take: tables, and working memory of maps and decoders.
const (
	baseBytes     = 32 << 20
	bytesPerInput = 6000 // a bracket expression of nine bytes: its sets while they are made, a table of four kilobytes
)

// No tokenizer.json makes Parse, or a tokenizer that it returns, panic or take
// memory out of proportion.
func FuzzParse(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		var tok *Tokenizer
		var err error
		if n := allocated(func() { tok, err = Parse(data) }); n > baseBytes+bytesPerInput*len(data) {
			t.Errorf("%d bytes allocated for %d", n, len(data))
		}
		if err != nil {
			return
		}
		const text = "a b1 <unk>▁\n'S é\xff"
		ids, err := tok.Encode(text, true)
		if err != nil {
			return
		}
		if limit := maxSequences*len(text)*growthFactor + maxPieces + baseGrowth; len(ids) > limit {
			t.Errorf("%d ids of %d bytes", len(ids), len(text))
		}
		tok.Decode(ids, false)
		tok.Decode(append(ids, -1, 1<<30), true)
	})
}

// Nor does a tokenizer.model.
func FuzzSentencePiece(f *testing.F) {
	f.Add(pieces([]string{"▁", "ab", "bc", "a", "b", "c", "▁a"}, nil, num(4, 0)))
	f.Add(pieces([]string{"▁", "a"}, num(35, 1), num(3, 0)))
	f.Add(pieces(nil, num(41, ^uint64(0)), nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var tok *Tokenizer
		var err error
		if n := allocated(func() { tok, err = parseSentencePiece(data, llamaConfig{}) }); n > baseBytes+bytesPerInput*len(data) {
			t.Errorf("%d bytes allocated for %d", n, len(data))
		}
		if err != nil {
			return
		}
		decode(t, tok, encode(t, tok, "a b1 <s>▁\n é\xff", true), true)
	})
}

// Any bytes are encoded by every tokenizer; where nothing normalizes the text
// or strips it, the ids decode to it.
func FuzzEncode(f *testing.F) {
	for _, s := range nastyStrings(f)[:200] {
		f.Add([]byte(s))
	}
	f.Add([]byte("\xff\xc0\x80\xed\xa0\x80"))
	all := goldenTokenizers(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		text := string(data)
		for name, tok := range all {
			var ids []int32
			if n := allocated(func() { ids = encode(t, tok, text, false) }); n > baseBytes+200*len(data) {
				t.Errorf("%s: %d bytes allocated for %d", name, n, len(data))
			}
			if name != "gpt2" && name != "o200k" && name != "whole" && name != "deepseek-llm" {
				continue
			}
			if !utf8.ValidString(text) {
				text = string([]rune(text))
			}
			if got := decode(t, tok, ids, false); got != text {
				t.Errorf("%s: %q becomes %q", name, text, got)
			}
		}
	})
}
