// Package talk answers in text: a model with its tokenizer, its chat template and
// the tokens that end its answers, over a batch.Runner that continues many texts at
// once.
package talk

import (
	"context"
	"errors"
	"fmt"

	"github.com/crepe-llm/crepe/batch"
	"github.com/crepe-llm/crepe/chat"
	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/tokenizer"
)

// Model is a model that can be talked to. Several goroutines may use one.
type Model struct {
	Name      string
	Runner    *batch.Runner
	Tokenizer *tokenizer.Tokenizer
	Template  *chat.Template // nil: it continues texts, but does not answer
	NoChat    error          // why there is no Template
	Stop      []int32        // tokens that end a text
	Vocab     int
	Window    int // tokens that prompt and answer may have together
}

// Load reads tokenizer, chat template and ends of the model in dir, whose files
// readFile reads and whose config.json is config. It leaves the Runner to its caller,
// who reads weights when all of these are known to be there.
func Load(name string, vocab, window int, readFile tokenizer.ReadFile, dir string, config []byte) (*Model, error) {
	m := &Model{Name: name, Vocab: vocab, Window: window}
	var err error
	if m.Tokenizer, err = tokenizer.LoadWith(readFile, dir); err != nil {
		return nil, err
	}
	if m.Stop, err = generate.StopTokens(readFile, dir, config); err != nil {
		return nil, err
	}
	m.Template, m.NoChat = chat.Load(readFile, dir)
	if m.NoChat != nil && !errors.Is(m.NoChat, chat.ErrNoTemplate) {
		return nil, m.NoChat
	}
	if m.Template != nil {
		if id, ok := m.Tokenizer.ID(m.Template.EOS()); ok {
			m.Stop = append(m.Stop, id)
		}
	}
	return m, nil
}

// Encode returns the tokens of a text to continue, with the tokenizer's default
// special tokens.
func (m *Model) Encode(text string) ([]int32, error) { return m.encode(text, true) }

// EncodeChat returns the tokens of a conversation, up to where the answer begins.
func (m *Model) EncodeChat(messages []chat.Message, opt chat.Options) ([]int32, error) {
	if m.Template == nil {
		return nil, m.NoChat
	}
	text, err := m.Template.Render(messages, opt)
	if err != nil {
		return nil, err
	}
	return m.encode(text, false)
}

func (m *Model) encode(text string, special bool) ([]int32, error) {
	ids, err := m.Tokenizer.Encode(text, special)
	if err == nil {
		err = m.Tokenizer.CheckIDs(ids, m.Vocab)
	}
	if err != nil {
		return nil, fmt.Errorf("prompt: %w", err)
	}
	return ids, nil
}

// Options say how a text goes on. The zero value is greedy and goes on to the
// model's own end, or to its longest text.
type Options struct {
	MaxTokens int
	generate.Sampling
	Stop     []string // texts that end it, and are not part of it
	Endless  bool     // the model's own end does not end it
	Logprobs bool
	Top      int // so many of the likeliest tokens come with each
}

// Piece is a new token, and the text that it completes: none while it may be part of
// a character or of a stop text. The last Piece may have text and no token.
type Piece struct {
	Text  string
	Token *batch.Token
}

// Ending says how a text ended.
type Ending struct {
	Stopped bool // by the model or by a text of Options.Stop, not by a number of tokens
	Prompt  int  // tokens
	Shared  int  // tokens of the prompt that had been computed before
	Tokens  int  // new ones
}

// errStopped ends a Run at a stop text.
var errStopped = errors.New("stop text")

// Continue continues a text and calls yield with what comes. An error of yield ends
// the text and is returned as it is.
func (m *Model) Continue(ctx context.Context, prompt []int32, opt Options, yield func(Piece) error) (Ending, error) {
	req := batch.Request{
		Prompt: prompt, Logprobs: opt.Logprobs, Top: opt.Top,
		Options: generate.Options{MaxTokens: opt.MaxTokens, Sampling: opt.Sampling},
	}
	if !opt.Endless {
		req.Options.Stop = m.Stop
	}
	end := Ending{Prompt: len(prompt)}
	text, until := generate.NewText(m.Tokenizer, prompt), generate.NewUntil(opt.Stop)
	result, err := m.Runner.Run(ctx, req, func(token batch.Token) error {
		end.Tokens++
		part, err := text.Add(token.ID)
		if err != nil {
			return err
		}
		sure, stopped := until.Add(part)
		if err := yield(Piece{sure, &token}); err != nil {
			return err
		}
		if stopped {
			return errStopped
		}
		return nil
	})
	end.Shared = result.Shared
	switch {
	case err == errStopped:
		end.Stopped = true
		return end, nil
	case err != nil:
		return end, err
	}
	end.Stopped = result.Reason == generate.AtStop
	part, err := text.Rest()
	if err != nil {
		return end, err
	}
	sure, stopped := until.Add(part)
	end.Stopped = end.Stopped || stopped
	if sure += until.Rest(); sure != "" {
		return end, yield(Piece{Text: sure})
	}
	return end, nil
}
