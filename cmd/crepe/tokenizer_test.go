package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/demo"
)

// demoWith returns a folder with the demo's model and its tokenizer.json
// edited.
func demoWith(t *testing.T, edit func(doc map[string]any)) string {
	t.Helper()
	from, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tokenizer.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	edit(doc)
	if data, err = json.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A pre-tokenizer that means something else in another engine's dialect changes
// the perplexity. The values are those of transformers 5.24 in float32 with the
// demo's model and these pre-tokenizers, windows of 128.
func TestPreTokenizerPatterns(t *testing.T) {
	split := func(pattern string, more ...any) map[string]any {
		steps := append([]any{map[string]any{"type": "Split", "pattern": map[string]any{"Regex": pattern}, "behavior": "Isolated"}}, more...)
		return map[string]any{"type": "Sequence", "pretokenizers": append(steps, map[string]any{"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})}
	}
	const upper, lower = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]`, `[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]`
	const contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)?`
	for name, c := range map[string]struct {
		pre any
		nll float64
	}{
		"Kimi": {split(`[\p{Han}]+|[^\r\n\p{L}\p{N}]?` + upper + `*` + lower + `+` + contractions + `|[^\r\n\p{L}\p{N}]?` + upper + `+` + lower + `*` + contractions +
			`|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`), math.Log(100.94)},
		"Viking": {split(` ?[^(\s|[.,!?…。，、।۔،])]+`, map[string]any{"type": "Digits", "individual_digits": true}), 4.823927},
	} {
		dir := demoWith(t, func(doc map[string]any) { doc["pre_tokenizer"] = c.pre })
		var rep evalReport
		command(t, &rep, "eval", dir, "--data", "testdata/wikitext.txt", "--seqlen", "128", "--compute", "f32", "--json")
		if !(math.Abs(float64(rep.NLL)-c.nll) <= 1e-4) || rep.Windows != 10 {
			t.Errorf("%s: %v nats a token over %d windows, want %v over 10", name, rep.NLL, rep.Windows, c.nll)
		}
	}
}

// A tokenizer that would never end or take all memory is stopped, and the text
// is named.
func TestHostileTokenizers(t *testing.T) {
	double := map[string]any{"type": "Replace", "pattern": map[string]any{"String": "e"}, "content": "ee"}
	for want, edit := range map[string]func(doc map[string]any){
		`testdata/wikitext.txt: pre_tokenizer Split: pattern "(([a-z ]+)+)+#": matching takes too many steps`: func(doc map[string]any) {
			doc["pre_tokenizer"] = map[string]any{"type": "Split", "pattern": map[string]any{"Regex": "(([a-z ]+)+)+#"}, "behavior": "Isolated"}
		},
		"testdata/wikitext.txt: normalizer: the text grows by more than": func(doc map[string]any) {
			doc["normalizer"] = map[string]any{"type": "Sequence", "normalizers": slices.Repeat([]any{double}, 40)}
		},
	} {
		var stdout, stderr bytes.Buffer
		code := run([]string{"eval", demoWith(t, edit), "--data", "testdata/wikitext.txt", "--seqlen", "128"}, &stdout, &stderr)
		if code == exitOK || !strings.Contains(stderr.String(), want) {
			t.Errorf("exit code %d, %s, want an error with %q", code, &stderr, want)
		}
	}
}

// A tokenizer may have more tokens than the model; a text with one of them is
// refused, and the token is named.
func TestTokenizerLargerThanModel(t *testing.T) {
	dir := demoWith(t, func(doc map[string]any) {
		doc["added_tokens"] = append(doc["added_tokens"].([]any), map[string]any{"id": 4096, "content": "<PRE>", "special": true})
	})
	text, err := os.ReadFile("testdata/wikitext.txt")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pre.txt")
	if err := os.WriteFile(path, append(text, "<PRE>"+string(text)...), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"eval", dir, "--data", path, "--seqlen", "128"},
		{"generate", dir, "--prompt", "a <PRE>"},
	} {
		var stdout, stderr bytes.Buffer
		code := run(args, &stdout, &stderr)
		const want = `token "<PRE>" of the tokenizer has id 4096, but the model's embedding has no row for it (it has 4096 rows)`
		if code == exitOK || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: exit code %d, %s, want an error with %q", args[0], code, &stderr, want)
		}
	}
	var rep evalReport // a text without it is measured
	command(t, &rep, "eval", dir, "--data", "testdata/wikitext.txt", "--seqlen", "128", "--json")
	if rep.Windows == 0 {
		t.Error("no window")
	}
}
