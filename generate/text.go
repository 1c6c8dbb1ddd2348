package generate

import (
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/tokenizer"
)

// Text turns tokens into text as they come. What it gives out is joined the
// text of all new tokens; a character whose bytes are spread over several
// tokens comes with the last of them.
//
// A token's text may depend on those before it (a space at the beginning), so
// it is decoded with those since the last place but one where text ended, and
// the first with the prompt.
type Text struct {
	t    *tokenizer.Tokenizer
	ids  []int32
	done int // of ids, the tokens whose text has been given out
}

// NewText begins after prompt.
func NewText(t *tokenizer.Tokenizer, prompt []int32) *Text {
	return &Text{t: t, ids: slices.Clone(prompt), done: len(prompt)}
}

// Add returns the text that id completes.
func (x *Text) Add(id int32) (string, error) {
	x.ids = append(x.ids, id)
	before, err := x.t.Decode(x.ids[:x.done], true)
	if err != nil {
		return "", err
	}
	now, err := x.t.Decode(x.ids, true)
	if err != nil || strings.HasSuffix(now, "\uFFFD") {
		return "", err // perhaps a part of a character
	}
	text := strings.TrimPrefix(now, before)
	if text != "" {
		x.ids = x.ids[x.done:]
	}
	x.done = len(x.ids)
	return text, nil
}

// Rest returns what is left of a character that was never completed.
func (x *Text) Rest() (string, error) {
	rest := x.ids[x.done:]
	x.done = len(x.ids)
	return x.t.Decode(rest, true)
}
