package serve

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/talk"
)

// reply is an answer, or a piece of one in a stream.
type reply struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	Model   string `json:"model"`
	Choices []any  `json:"choices"`
	Usage   *usage `json:"usage,omitempty"`
}

// head returns the reply that each piece of an answer begins as.
func head(prefix, object string, m *talk.Model) reply {
	return reply{ID: newID(prefix), Object: object, Created: time.Now().Unix(), Model: m.Name, Choices: []any{}}
}

// with returns r with choices.
func (r reply) with(choices ...any) reply {
	r.Choices = choices
	return r
}

// using returns r with no choices and a usage.
func (r reply) using(u usage) reply {
	r.Usage = &u
	return r
}

// orNil is null for "".
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// tokenText is a token as text, by itself.
func tokenText(m *talk.Model, id int32) string {
	text, err := m.Tokenizer.Decode([]int32{id}, false)
	if err != nil {
		return ""
	}
	return text
}

// completionForm writes the answers of /v1/completions.
type completionForm struct {
	reply
	m        *talk.Model
	logprobs bool
	texts    []strings.Builder
	log      []*completionLogprobs
	offsets  []int // characters of each choice so far, by its tokens
}

type completionChoice struct {
	Text     string              `json:"text"`
	Index    int                 `json:"index"`
	Logprobs *completionLogprobs `json:"logprobs"`
	Finish   *string             `json:"finish_reason"`
}

type completionLogprobs struct {
	Tokens  []string             `json:"tokens"`
	Token   []float64            `json:"token_logprobs"`
	Top     []map[string]float64 `json:"top_logprobs"`
	Offsets []int                `json:"text_offset"`
}

func (c *completion) form(m *talk.Model, choices int) form {
	f := &completionForm{
		reply: head("cmpl-", "text_completion", m), m: m, logprobs: c.Logprobs != nil,
		texts: make([]strings.Builder, choices), log: make([]*completionLogprobs, choices), offsets: make([]int, choices),
	}
	if f.logprobs {
		for i := range f.log {
			f.log[i] = &completionLogprobs{}
		}
	}
	return f
}

func (f *completionForm) begin() []any { return nil }

// logprobsOf returns what is known of a choice's next token; nil unless it was asked
// for.
func (f *completionForm) logprobsOf(choice int, t *batch.Token) *completionLogprobs {
	if !f.logprobs || t == nil {
		return nil
	}
	top := map[string]float64{}
	for _, l := range t.Top {
		text := tokenText(f.m, l.ID)
		if _, ok := top[text]; !ok { // of tokens that are one text the likeliest
			top[text] = l.Logprob
		}
	}
	text, offset := tokenText(f.m, t.ID), f.offsets[choice]
	f.offsets[choice] += utf8.RuneCountInString(text)
	return &completionLogprobs{[]string{text}, []float64{t.Logprob}, []map[string]float64{top}, []int{offset}}
}

func (f *completionForm) add(choice int, p talk.Piece) {
	f.texts[choice].WriteString(p.Text)
	if l := f.logprobsOf(choice, p.Token); l != nil {
		all := f.log[choice]
		all.Tokens, all.Token = append(all.Tokens, l.Tokens...), append(all.Token, l.Token...)
		all.Top, all.Offsets = append(all.Top, l.Top...), append(all.Offsets, l.Offsets...)
	}
}

func (f *completionForm) piece(choice int, p talk.Piece, finish string) any {
	return f.with(completionChoice{p.Text, choice, f.logprobsOf(choice, p.Token), orNil(finish)})
}

func (f *completionForm) answer(finish []string, u usage) any {
	var choices []any
	for i := range f.texts {
		choices = append(choices, completionChoice{f.texts[i].String(), i, f.log[i], orNil(finish[i])})
	}
	return f.with(choices...).using(u)
}

func (f *completionForm) used(u usage) any { return f.using(u) }

// chatForm writes the answers of /v1/chat/completions.
type chatForm struct {
	reply
	m        *talk.Model
	logprobs bool
	texts    []strings.Builder
	log      []*chatLogprobs
}

type chatChoice struct {
	Index    int           `json:"index"`
	Message  *chatMessage  `json:"message,omitempty"`
	Delta    *chatDelta    `json:"delta,omitempty"`
	Logprobs *chatLogprobs `json:"logprobs"`
	Finish   *string       `json:"finish_reason"`
}

type chatMessage struct {
	Role    string  `json:"role"`
	Content string  `json:"content"`
	Refusal *string `json:"refusal"`
}

type chatDelta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

type chatLogprobs struct {
	Content []chatLogprob `json:"content"`
	Refusal *string       `json:"refusal"`
}

type chatLogprob struct {
	Token   string        `json:"token"`
	Logprob float64       `json:"logprob"`
	Bytes   []int         `json:"bytes"` // null of a part of a character
	Top     []chatLogprob `json:"top_logprobs,omitempty"`
}

func (c *chatCompletion) form(m *talk.Model, choices int) form {
	f := &chatForm{
		reply: head("chatcmpl-", "chat.completion", m), m: m, logprobs: c.Logprobs,
		texts: make([]strings.Builder, choices), log: make([]*chatLogprobs, choices),
	}
	if c.Stream {
		f.Object = "chat.completion.chunk"
	}
	if f.logprobs {
		for i := range f.log {
			f.log[i] = &chatLogprobs{Content: []chatLogprob{}}
		}
	}
	return f
}

func (f *chatForm) begin() []any {
	var first []any
	for i := range f.texts {
		first = append(first, f.with(chatChoice{Index: i, Delta: &chatDelta{Role: "assistant", Content: new(string)}}))
	}
	return first
}

func (f *chatForm) logprob(l batch.Likely) chatLogprob {
	text := tokenText(f.m, l.ID)
	c := chatLogprob{Token: text, Logprob: l.Logprob}
	if !strings.ContainsRune(text, utf8.RuneError) {
		c.Bytes = []int{}
		for _, b := range []byte(text) {
			c.Bytes = append(c.Bytes, int(b))
		}
	}
	return c
}

// logprobsOf returns what is known of a token; nil unless it was asked for.
func (f *chatForm) logprobsOf(t *batch.Token) *chatLogprobs {
	if !f.logprobs || t == nil {
		return nil
	}
	c := f.logprob(batch.Likely{ID: t.ID, Logprob: t.Logprob})
	for _, l := range t.Top {
		c.Top = append(c.Top, f.logprob(l))
	}
	return &chatLogprobs{Content: []chatLogprob{c}}
}

func (f *chatForm) add(choice int, p talk.Piece) {
	f.texts[choice].WriteString(p.Text)
	if l := f.logprobsOf(p.Token); l != nil {
		f.log[choice].Content = append(f.log[choice].Content, l.Content...)
	}
}

func (f *chatForm) piece(choice int, p talk.Piece, finish string) any {
	delta := &chatDelta{}
	if finish == "" {
		delta.Content = &p.Text
	}
	return f.with(chatChoice{Index: choice, Delta: delta, Logprobs: f.logprobsOf(p.Token), Finish: orNil(finish)})
}

func (f *chatForm) answer(finish []string, u usage) any {
	var choices []any
	for i := range f.texts {
		choices = append(choices, chatChoice{
			Index: i, Message: &chatMessage{Role: "assistant", Content: f.texts[i].String()}, Logprobs: f.log[i], Finish: orNil(finish[i]),
		})
	}
	return f.with(choices...).using(u)
}

func (f *chatForm) used(u usage) any { return f.using(u) }
