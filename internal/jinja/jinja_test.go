package jinja

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// now is the time at which tools/golden_chat.py rendered.
var now = time.Date(2026, 3, 7, 9, 5, 30, 0, time.UTC)

// render parses and renders a template.
func render(source string, values map[string]any) (string, error) {
	t, err := Parse(source)
	if err != nil {
		return "", err
	}
	return t.Render(values, now)
}

// TestTransformers holds texts against transformers' (tools/golden_chat.py), and
// what is an error there against being one here.
func TestTransformers(t *testing.T) {
	paths := []string{"testdata/cases.json"}
	if more := os.Getenv("CREPE_CHAT_CASES"); more != "" {
		paths = append(paths, more)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Sources []string
			Values  []json.RawMessage
			Cases   []struct {
				Name           string
				Source, Values int
				Text           *string
				Error          string
			}
		}
		if err := json.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		if len(file.Cases) < 500 {
			t.Fatalf("%s: %d cases, want 500 or more", path, len(file.Cases))
		}
		for _, c := range file.Cases {
			v, err := FromJSON(file.Values[c.Values])
			if err != nil {
				t.Fatal(err)
			}
			values := map[string]any{}
			for i, k := range v.(*Dict).keys {
				values[k.(string)] = v.(*Dict).values[i]
			}
			source := file.Sources[c.Source]
			got, err := render(source, values)
			switch {
			case c.Text == nil && err == nil:
				t.Errorf("%s: %.200s: got %q, want an error: %s", c.Name, source, got, c.Error)
			case c.Text != nil && err != nil:
				t.Errorf("%s: %.200s: %v, want %q", c.Name, source, err, *c.Text)
			case c.Text != nil && got != *c.Text:
				t.Errorf("%s: %.200s:\n got %q\nwant %q", c.Name, source, got, *c.Text)
			}
		}
	}
}

// TestBounds renders templates that would take all memory or time, or overflow the
// stack.
func TestBounds(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, source := range []string{
		`{{ "a" * 10000000000 }}`,
		`{{ "a" * 9223372036854775807 }}`,
		`{{ [1] * 10000000000 }}`,
		`{% set ns = namespace(s="aaaaaaaaaaaaaaaa") %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}`,
		`{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}`,
		`{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}`,
		`{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}`,
		`{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s == [ns.s] }}{% set ns.t = [ns.s[0], ns.s[1]] %}{{ ns.t == ns.s }}`,
		`{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}`,
		`{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}`,
		`{% for a in range(100000) %}{% for b in range(100000) if false %}{% endfor %}{% endfor %}`,
		`{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}`,
		`{% macro m(x) %}{{ m(x) if x else m(not x) }}{% endmacro %}{{ m(1) }}`,
		`{% macro a() %}{{ b() }}{{ b() }}{% endmacro %}{% macro b() %}{{ c() }}{{ c() }}{% endmacro %}{% macro c() %}{{ a() }}{% endmacro %}{{ a() }}`,
		`{{ s | replace("x", s) }}`,
		`{{ s | indent(100000) }}{{ (s | replace("x", "\n")) | indent(100000) }}`,
		`{{ s | list | join(s) }}`,
		`{% for i in range(100000) %}{{ s }}{% endfor %}`,
		`{% for i in range(100000) %}{% if s in s ~ "y" %}{% endif %}{% endfor %}`,
		`{% for i in range(100000) %}{{ s | length }}{% set x = s.split("x") %}{% endfor %}`,
		`{{ "%99999999s" | format(1) }}`,
		`{{ [1] | tojson(indent=1000000000) }}`,
		`{{ [1] | batch(10000000000, 0) | list }}`,
		`{{ range(100000) | map("string") | map("list") | list | sort }}` + strings.Repeat(`{{ range(100000) | list | sort | sort | sort }}`, 100),
		`{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}`,
		`{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {}[ns.s] }}`,
		`{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ ns.s in {} }}`,
		`{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {}.get(ns.s) }}`,
		`{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ ns.s is sameas ns.s }}`,
		`{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ [ns.s] | unique }}`,
		`{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ dict([(ns.s, 1)]) }}`,
		`{% for i in range(100000) %}{{ s | length }}{% endfor %}`,
		`{% for i in range(100000) %}{{ s | int }}{% endfor %}`,
		`{% for i in range(100000) %}{{ s | float }}{% endfor %}`,
		`{% for i in range(100000) %}{{ s is lower }}{% endfor %}`,
		`{% for i in range(100000) %}{{ [s] | sort | length }}{% endfor %}`,
		`{% for i in range(100000) %}{{ [s, s] | unique | length }}{% endfor %}`,
		`{% for i in range(100000) %}{{ {s: 1} | length }}{% endfor %}`,
		`{% for i in range(100000) %}{{ [][s] }}{% endfor %}`,
		`{% for i in range(1000) %}{{ ("é" * 10000).strip("è" * 10000 ~ "é") }}{% endfor %}`,
		`{{ "x".startswith((s,) * 1000000) }}{% for i in range(1000) %}{{ s.startswith((s ~ "y",) * 10000) }}{% endfor %}`,
		`{{ 2 ** 1000 }}`,
		`{{ 4611686018427387904 * 4 }}`,
		"{{ " + strings.Repeat("(", 100_000) + "1" + strings.Repeat(")", 100_000) + " }}",
		"{{ " + strings.Repeat("-", 100_000) + "1 }}",
		"{{ " + strings.Repeat("not ", 100_000) + "1 }}",
		"{{ 1" + strings.Repeat(" + 1", 100_000) + " }}",
		"{{ 1" + strings.Repeat(" if 1 else 1", 100_000) + " }}",
		"{{ s" + strings.Repeat("|trim", 100_000) + " }}",
		"{{ s" + strings.Repeat(".x", 100_000) + " }}",
		strings.Repeat("{% if 1 %}", 50_000),
		strings.Repeat("{% for x in s %}", 50_000),
		strings.Repeat("x", maxSource+1),
	} {
		start := time.Now()
		_, err := render(source, map[string]any{"s": long})
		if err == nil {
			t.Errorf("%.200s: no error", source)
		}
		var raised *RaisedError
		if errors.As(err, &raised) || err != nil && strings.Contains(err.Error(), "undefined") {
			t.Errorf("%.200s: %v, want a bound", source, err)
		}
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("%.200s: took %v", source, d)
		}
	}
}

// A conversation of the size that a server takes is well within the bounds.
func TestLongConversation(t *testing.T) {
	source, err := os.ReadFile("testdata/thinking.jinja")
	if err != nil {
		t.Fatal(err)
	}
	messages := NewList()
	for i := range 2000 {
		role := []string{"user", "assistant"}[i%2]
		messages.Items = append(messages.Items, NewDict().Set("role", role).Set("content", strings.Repeat("word ", 100)))
	}
	text, err := render(string(source), map[string]any{"messages": messages})
	if err != nil || len(text) < 2000*500 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for source, want := range map[string]string{
		"a\n{{ x.y }}":                `'x' is undefined`,
		"a\n\n{% if x %}":             `line 3: unexpected end of template, want [elif else endif]`,
		"a\n{{ 1 + }}":                `line 2: unexpected end of expression`,
		"{% include 'x' %}":           `line 1: statement "include" is not known`,
		"{{ raise_exception('no') }}": "no",
		"{{ s | nothing }}":           "filter nothing is not known",
	} {
		if _, err := render(source, map[string]any{"s": "a"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", source, err, want)
		}
	}
}

func FuzzRender(f *testing.F) {
	data, err := os.ReadFile("testdata/cases.json")
	if err != nil {
		f.Fatal(err)
	}
	var file struct{ Sources []string }
	if err := json.Unmarshal(data, &file); err != nil || len(file.Sources) == 0 {
		f.Fatalf("%d sources, %v", len(file.Sources), err)
	}
	for _, s := range file.Sources {
		f.Add(s)
	}
	messages := NewList(NewDict().Set("role", "user").Set("content", "a"), NewDict().Set("role", "assistant").Set("content", nil))
	f.Fuzz(func(t *testing.T, source string) {
		render(source, map[string]any{"messages": messages, "l": NewList(int64(1), 2.5), "d": NewDict().Set("a", true), "s": "é", "n": int64(3)})
	})
}
