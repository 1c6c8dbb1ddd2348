// Package jinja renders chat templates: Jinja as transformers sets it up for
// them, which is Jinja2 3.1 in its immutable sandbox with trim_blocks,
// lstrip_blocks, break and continue, generation blocks, and transformers' own
// tojson, raise_exception and strftime_now.
//
// A template comes with a model and is not trusted. It reads what Render is given
// and nothing else, and it cannot change that. Steps, depth, and the bytes that
// it makes are bounded; beyond a bound Render returns an error that says so.
//
// Not known, and an error: templates in several files (extends, include,
// import, block), recursive loops, str.format, *args and **kwargs in calls, and
// integers of more than 62 bits.
package jinja

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// The bounds. A published template takes some thousand steps for a conversation,
// and makes its text a few times over.
const (
	maxSource = 1 << 20   // bytes of a template; the longest published has 30 KB
	maxNest   = 200       // brackets and blocks within each other
	maxSteps  = 2_000_000 // operations of a Render
	maxBytes  = 64 << 20  // of all strings and lists that a Render makes
	maxCalls  = 50        // macros that call each other
)

// Template is a parsed template. Several goroutines may render one.
type Template struct {
	body []node
}

// Parse reads a template.
func Parse(source string) (*Template, error) {
	switch {
	case len(source) > maxSource:
		return nil, fmt.Errorf("template of %d bytes, want at most %d", len(source), maxSource)
	case !utf8.ValidString(source):
		return nil, errors.New("template is not UTF-8 text")
	}
	tokens, err := lex(source)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	body := p.body()
	if p.err == nil && p.peek().kind != tokenEnd {
		p.fail("unexpected %s", p.peek())
	}
	if p.err != nil {
		return nil, p.err
	}
	return &Template{body: body}, nil
}

// Render returns the template's text for values: None is nil, and there are
// bool, int64, float64, string, *List and *Dict. now is what strftime_now says.
func (t *Template) Render(values map[string]any, now time.Time) (string, error) {
	r := &run{now: now, steps: maxSteps, bytes: maxBytes}
	root := &scope{vars: map[string]any{}}
	for name, f := range globals {
		root.vars[name] = &function{name: name, call: f}
	}
	for name, v := range values {
		root.vars[name] = v
	}
	var out strings.Builder
	r.exec(t.body, &scope{vars: map[string]any{}, parent: root}, &out)
	if r.err != nil {
		return "", r.err
	}
	return out.String(), nil
}

// RaisedError is what a template says by raise_exception: that it does not take
// these messages.
type RaisedError struct{ Message string }

func (e *RaisedError) Error() string { return e.Message }
