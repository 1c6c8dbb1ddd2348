// Package chat writes a conversation as the text that a model was trained on,
// by the chat template that came with its tokenizer.
package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/crepe-llm/crepe/internal/jinja"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/tokenizer"
)

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user or assistant
	Content string `json:"content"`
}

// Template is the chat template of a model. Several goroutines may use one.
type Template struct {
	path   string // of the file, for errors
	parsed *jinja.Template
	tokens map[string]any // special tokens by role: bos_token, …
}

// ErrNoTemplate says that a model has no chat template: it was trained to
// continue texts, not to answer.
var ErrNoTemplate = errors.New("no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): this is a base model, which continues a text and does not answer")

// The most that files may have. Published configs have up to 1 MB, templates 30 KB.
const (
	maxConfig   = 16 << 20 // bytes
	maxTemplate = 1 << 20
)

// roles are the special tokens that a template can name.
var roles = []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}

// Load reads the template of the model in dir, whose files readFile reads, where
// transformers looks for it: in chat_template.jinja, else in tokenizer_config.json
// (of several the one called default). A model without one is an ErrNoTemplate.
func Load(readFile tokenizer.ReadFile, dir string) (*Template, error) {
	config, err := readConfig(readFile, dir)
	if err != nil {
		return nil, err
	}
	t := &Template{path: filepath.Join(dir, "chat_template.jinja"), tokens: map[string]any{}}
	data, err := readFile("chat_template.jinja", maxTemplate)
	source := string(data)
	if errors.Is(err, fs.ErrNotExist) {
		t.path = filepath.Join(dir, configName)
		source, err = defaultTemplate(config["chat_template"])
		if err == nil && source == "" {
			return nil, fmt.Errorf("%s: %w", dir, ErrNoTemplate)
		}
		if err != nil {
			err = fmt.Errorf("%s: chat_template: %w", t.path, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if t.parsed, err = jinja.Parse(source); err != nil {
		return nil, fmt.Errorf("%s: chat template: %w", t.path, err)
	}
	for _, role := range roles {
		token, err := specialToken(config[role])
		if err != nil {
			return nil, fmt.Errorf("%s: %s: %w", filepath.Join(dir, configName), role, err)
		}
		if token != "" {
			t.tokens[role] = token
		}
	}
	return t, nil
}

const configName = "tokenizer_config.json"

// readConfig returns the keys of tokenizer_config.json, none if there is no such file.
func readConfig(readFile tokenizer.ReadFile, dir string) (map[string]json.RawMessage, error) {
	data, err := readFile(configName, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var keys map[string]json.RawMessage
	if err := pyjson.Unmarshal(data, &keys); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, configName), err)
	}
	return keys, nil
}

// defaultTemplate reads the key chat_template: a string, or a list of templates
// with names. It returns "" if there is none.
func defaultTemplate(raw json.RawMessage) (string, error) {
	var one string
	if len(raw) == 0 || json.Unmarshal(raw, &one) == nil { // null leaves it ""
		return one, nil
	}
	var several []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &several); err != nil {
		return "", errors.New("want a string, or a list of objects with name and template")
	}
	for _, t := range several {
		if t.Name == "default" {
			return t.Template, nil
		}
	}
	return "", fmt.Errorf("%d templates, none of which is called default", len(several))
}

// specialToken reads a special token: a string, or an object with content. It
// returns "" if there is none.
func specialToken(raw json.RawMessage) (string, error) {
	var token string
	if len(raw) == 0 || json.Unmarshal(raw, &token) == nil { // null leaves it ""
		return token, nil
	}
	var object struct{ Content string }
	if err := json.Unmarshal(raw, &object); err != nil {
		return "", errors.New("want a string, or an object with content")
	}
	return object.Content, nil
}

// EOS returns the token that ends an answer by the tokenizer's own account, "" if
// it names none. generation_config.json, which has more to say, may lack it.
func (t *Template) EOS() string {
	s, _ := t.tokens["eos_token"].(string)
	return s
}

// Options are what a template may look at beside the messages.
type Options struct {
	// Continue leaves the conversation's last message open, rather than to begin
	// the assistant's.
	Continue bool

	// Values are variables of the template by name, as JSON: enable_thinking.
	Values map[string]json.RawMessage

	Now time.Time // what some templates write as today's date
}

// Render returns the text of a conversation, up to where the assistant's answer
// begins. It has its special tokens in it: Encode it without more. An error may be
// the template's own word that it does not take such messages.
func (t *Template) Render(messages []Message, opt Options) (string, error) {
	list := jinja.NewList()
	for _, m := range messages {
		list.Items = append(list.Items, jinja.NewDict().Set("role", m.Role).Set("content", m.Content))
	}
	values := map[string]any{}
	for name, raw := range opt.Values {
		v, err := jinja.FromJSON(raw)
		if err != nil {
			return "", fmt.Errorf("template variable %.60q: %w", name, err)
		}
		values[name] = v
	}
	for role, token := range t.tokens {
		values[role] = token
	}
	values["messages"], values["add_generation_prompt"] = list, !opt.Continue
	values["tools"], values["documents"] = nil, nil
	text, err := t.parsed.Render(values, opt.Now)
	var raised *jinja.RaisedError
	switch {
	case errors.As(err, &raised):
		return "", fmt.Errorf("the model's chat template refuses these messages: %s", excerpt(raised.Message))
	case err != nil:
		return "", fmt.Errorf("%s: chat template: %w", t.path, err)
	}
	return text, nil
}

func excerpt(s string) string {
	const most = 200
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
