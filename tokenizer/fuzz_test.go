package tokenizer

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"
	"unicode/utf8"
)

func fuzzSeeds(f *testing.F) {
	f.Add(tiny(f, "{}"))
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

// No tokenizer.json makes Parse, or a tokenizer that it returns, panic.
func FuzzParse(f *testing.F) {
	fuzzSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("Regex")) && bytes.ContainsAny(data, "*+{") && len(data) > 1<<14 {
			t.Skip() // patterns may take exponential time, as with every backtracking engine
		}
		tok, err := Parse(data)
		if err != nil {
			return
		}
		ids := encode(t, tok, "a b1 <unk>▁\n'S é\xff", true)
		decode(t, tok, ids, false)
		decode(t, tok, append(ids, -1, 1<<30), true)
	})
}

// No tokenizer.model makes it panic either.
func FuzzSentencePiece(f *testing.F) {
	f.Add(pieces([]string{"▁", "ab", "bc", "a", "b", "c", "▁a"}, nil, num(4, 0)))
	f.Add(pieces([]string{"▁", "a"}, num(35, 1), num(3, 0)))
	f.Add(pieces(nil, num(41, ^uint64(0)), nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		tok, err := parseSentencePiece(data, llamaConfig{})
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
			if name == "lookahead" && len(data) > 1<<10 {
				continue
			}
			ids := encode(t, tok, text, false)
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
