package tokenizer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A token that only tokenizer_config.json names is one to transformers, which adds
// it: a text that holds it is refused, and no other.
func TestUnlistedTokens(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("tokenizer.json", string(tiny(t, `{"added_tokens": [{"content": "<a>"}]}`)))
	for config, want := range map[string]string{
		`{"added_tokens_decoder": {"7": {"content": "b"}}, "model_max_length": Infinity}`: `a token "b"`,
		`{"additional_special_tokens": ["<a>", {"content": "b"}]}`:                        `a token "b"`,
		`{"extra_special_tokens": {"image_token": "b"}}`:                                  `a token "b"`,
		// Of several it is always the same: keys go by the alphabet.
		`{"extra_special_tokens": {"e": "d", "d": "d", "c": "d", "b": "d", "a": "b", "f": "d", "g": "d", "h": "d"}}`: `a token "b"`,
		`{"bos_token": {"content": "b"}}`:                                                 `a token "b"`,
		`{"bos_token": "<a>", "eos_token": null, "pad_token": "c", "chat_template": "b"}`: "",
		`{"added_tokens_decoder": 7, "extra_special_tokens": [[{}, null]]}`:               "",
	} {
		write("tokenizer_config.json", config)
		tok, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tok.Encode("a b d <a>", false)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v, want %q", config, err, want)
		}
	}
	write("tokenizer_config.json", "{")
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "tokenizer_config.json") {
		t.Errorf("half a file: %v", err)
	}
}
