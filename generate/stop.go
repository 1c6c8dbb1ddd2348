package generate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/tokenizer"
)

// maxConfig is what a generation_config.json may have; a real one is below 10 KB.
const maxConfig = 16 << 20 // bytes

// StopTokens returns the tokens that end a text: eos_token_id, a number or a
// list of them, of generation_config.json in dir, or where that does not have
// it of config, the model's config.json (of text_config, where only that has it).
// readFile reads the files of dir.
func StopTokens(readFile tokenizer.ReadFile, dir string, config []byte) ([]int32, error) {
	const name = "generation_config.json"
	path := filepath.Join(dir, name)
	data, err := readFile(name, maxConfig)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil {
		ids, err := stopTokens(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if len(ids) > 0 {
			return ids, nil
		}
	}
	ids, err := stopTokens(config)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "config.json"), err)
	}
	return ids, nil
}

func stopTokens(data []byte) ([]int32, error) {
	var c struct {
		EOS  json.RawMessage `json:"eos_token_id"`
		Text struct {
			EOS json.RawMessage `json:"eos_token_id"`
		} `json:"text_config"`
	}
	if err := pyjson.Unmarshal(data, &c); err != nil {
		return nil, err
	}
	raw := c.EOS
	if len(raw) == 0 || string(raw) == "null" {
		raw = c.Text.EOS
	}
	var ids []int32
	if len(raw) == 0 || json.Unmarshal(raw, &ids) == nil {
		return ids, nil
	}
	var id int32
	if err := json.Unmarshal(raw, &id); err != nil {
		return nil, fmt.Errorf("eos_token_id: %s, want a token's number or a list of them", raw)
	}
	return []int32{id}, nil
}
