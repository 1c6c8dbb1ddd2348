package chat

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/tokenizer"
)

// folder writes files by name and returns their folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestLoad(t *testing.T) {
	const echo = `{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}go{% endif %}{{ eos_token }}{{ thinking }}{{ strftime_now('%Y') }}`
	quoted, err := json.Marshal(echo)
	if err != nil {
		t.Fatal(err)
	}
	tokens := `"bos_token": "<s>", "eos_token": {"__type": "AddedToken", "content": "</s>"}, "pad_token": null`
	for name, files := range map[string]map[string]string{
		"a file":        {"chat_template.jinja": echo, "tokenizer_config.json": `{` + tokens + `, "chat_template": "other"}`},
		"the config":    {"tokenizer_config.json": `{` + tokens + `, "chat_template": ` + string(quoted) + `}`},
		"one of a list": {"tokenizer_config.json": `{` + tokens + `, "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": ` + string(quoted) + `}]}`},
	} {
		dir := folder(t, files)
		tmpl, err := Load(tokenizer.In(dir), dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		opt := Options{Values: map[string]json.RawMessage{"thinking": json.RawMessage("3")}, Now: time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)}
		got, err := tmpl.Render([]Message{{"user", "a"}, {"assistant", "b"}}, opt)
		if want := "<s>user:a;assistant:b;go</s>32026"; err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
		opt.Continue = true
		if got, _ = tmpl.Render(nil, opt); got != "<s></s>32026" {
			t.Errorf("%s: continued: %q", name, got)
		}
		if tmpl.EOS() != "</s>" {
			t.Errorf("%s: EOS %q", name, tmpl.EOS())
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"tokenizer_config.json: ":                                  {"tokenizer_config.json": `{`},
		"chat_template: want a string, or":                         {"tokenizer_config.json": `{"chat_template": 5}`},
		"chat_template: 1 templates, none of":                      {"tokenizer_config.json": `{"chat_template": [{"name": "x", "template": "y"}]}`},
		"bos_token: want a string, or":                             {"tokenizer_config.json": `{"chat_template": "x", "bos_token": 1}`},
		"tokenizer_config.json: chat template: line 1: unexpected": {"tokenizer_config.json": `{"chat_template": "{{ 1 + }}"}`},
		"chat_template.jinja: chat template: line 1: unexpected":   {"chat_template.jinja": `{% if %}`},
	} {
		dir := folder(t, files)
		if _, err := Load(tokenizer.In(dir), dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", files, err, want)
		}
	}
	for _, files := range []map[string]string{nil, {"tokenizer_config.json": `{}`}, {"tokenizer_config.json": `{"chat_template": null}`}} {
		dir := folder(t, files)
		if _, err := Load(tokenizer.In(dir), dir); !errors.Is(err, ErrNoTemplate) {
			t.Errorf("%v: %v, want ErrNoTemplate", files, err)
		}
	}
}

func TestRenderErrors(t *testing.T) {
	for source, want := range map[string]string{
		"{{ raise_exception('alternate!') }}": "the model's chat template refuses these messages: alternate!",
		"{{ messages[7].role }}":              "chat_template.jinja: chat template: item 7 of a list is undefined",
		"{{ 'a' * 9999999999 }}":              "the template makes more than",
	} {
		dir := folder(t, map[string]string{"chat_template.jinja": source})
		tmpl, err := Load(tokenizer.In(dir), dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tmpl.Render([]Message{{"user", "a"}}, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
	dir := folder(t, map[string]string{"chat_template.jinja": "x"})
	tmpl, _ := Load(tokenizer.In(dir), dir)
	if _, err := tmpl.Render(nil, Options{Values: map[string]json.RawMessage{"v": json.RawMessage("{")}}); err == nil || !strings.Contains(err.Error(), `template variable "v"`) {
		t.Errorf("a variable that is no JSON: %v", err)
	}
}
