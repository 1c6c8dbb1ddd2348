package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/pyjson"
)

// tokenKeys are the members of tokenizer_config.json that name tokens. transformers
// adds those that tokenizer.json does not have as added tokens.
var tokenKeys = []string{
	"added_tokens_decoder", "additional_special_tokens", "extra_special_tokens",
	"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
}

// readUnlisted fills in t.unlisted.
func (t *Tokenizer) readUnlisted(readFile ReadFile, dir string) error {
	const name = "tokenizer_config.json"
	data, err := readFile(name, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var members map[string]json.RawMessage
	if err := pyjson.Unmarshal(data, &members); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	for _, key := range tokenKeys {
		var value any
		if members[key] == nil || json.Unmarshal(members[key], &value) != nil {
			continue
		}
		for _, token := range tokensIn(value) {
			if id, ok := t.ids[token]; ok {
				if _, added := t.added.byID[id]; added {
					continue
				}
			}
			if token != "" && !slices.Contains(t.unlisted, token) {
				t.unlisted = append(t.unlisted, token)
			}
			if len(t.unlisted) > maxUnlisted {
				return fmt.Errorf("%s: more than %d tokens that tokenizer.json does not have", filepath.Join(dir, name), maxUnlisted)
			}
		}
	}
	return nil
}

// maxUnlisted bounds the tokens that every text is searched for.
const maxUnlisted = 1 << 10

// tokensIn returns the tokens in a member: texts, objects with a content, and lists and
// objects of these.
func tokensIn(value any) (tokens []string) {
	switch v := value.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			tokens = append(tokens, tokensIn(e)...)
		}
	case map[string]any:
		if content, ok := v["content"].(string); ok {
			return []string{content}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			tokens = append(tokens, tokensIn(v[key])...)
		}
	}
	return tokens
}

// checkUnlisted refuses a text in which transformers would find a token that
// tokenizer.json does not have.
func (t *Tokenizer) checkUnlisted(text string) error {
	for _, token := range t.unlisted {
		if strings.Contains(text, token) {
			return fmt.Errorf("tokenizer_config.json names a token %.60q, which the text holds and tokenizer.json does not have as an added token: save the tokenizer anew with transformers", token)
		}
	}
	return nil
}
