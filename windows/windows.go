// Package windows turns the text sources of a recipe into the token windows
// that a model is calibrated and measured on.
package windows

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/crepe-llm/crepe/calibration"
	"github.com/crepe-llm/crepe/corpus"
	"github.com/crepe-llm/crepe/hub"
	"github.com/crepe-llm/crepe/progress"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tokenizer"
)

// Set is token windows of one length and where they come from.
type Set struct {
	Source string
	Tokens [][]int32 // windows × SeqLen
	SeqLen int
	BOS    bool // the text's, or each document's, first token is one that the tokenizer adds
}

// SHA256 identifies the windows: the hash of their ids as little-endian int32.
func (s *Set) SHA256() string {
	sum := sha256.Sum256(s.Bytes())
	return hex.EncodeToString(sum[:])
}

// Bytes are the windows' ids as little-endian int32, one window after the other.
func (s *Set) Bytes() []byte {
	var b []byte
	for _, w := range s.Tokens {
		for _, id := range w {
			b = binary.LittleEndian.AppendUint32(b, uint32(id))
		}
	}
	return b
}

// Ref is a Set without its tokens, which are found by their hash.
type Ref struct {
	Source string `json:"source"`
	SeqLen int    `json:"seqlen"`
	BOS    bool   `json:"bos,omitempty"`
	SHA256 string `json:"sha256"`
}

// Ref returns s without its tokens.
func (s *Set) Ref() Ref { return Ref{s.Source, s.SeqLen, s.BOS, s.SHA256()} }

// Set returns the Set of which bytes are the tokens. They must be those of the hash, and
// of a vocabulary of so many tokens.
func (r Ref) Set(bytes []byte, vocab int) (*Set, error) {
	s := &Set{Source: r.Source, SeqLen: r.SeqLen, BOS: r.BOS}
	if r.SeqLen < 1 || len(bytes) == 0 || len(bytes)%(4*r.SeqLen) != 0 {
		return nil, fmt.Errorf("%s: %d bytes, want windows of %d tokens of 4 bytes", r.Source, len(bytes), r.SeqLen)
	}
	for at := 0; at < len(bytes); at += 4 * r.SeqLen {
		w := make([]int32, r.SeqLen)
		for t := range w {
			w[t] = int32(binary.LittleEndian.Uint32(bytes[at+4*t:]))
			if w[t] < 0 || int(w[t]) >= vocab {
				return nil, fmt.Errorf("%s: token %d, want one below %d", r.Source, w[t], vocab)
			}
		}
		s.Tokens = append(s.Tokens, w)
	}
	if have := s.SHA256(); have != r.SHA256 {
		return nil, fmt.Errorf("%s: the windows have hash %s, want %s", r.Source, have, r.SHA256)
	}
	return s, nil
}

// Loader makes Sets for one model.
type Loader struct {
	Hub       *hub.Client
	ModelDir  string             // the model's folder, for errors
	ReadFile  tokenizer.ReadFile // of its files: the tokenizer is read when a text first needs it
	Vocab     int                // ids must be below
	MaxSeqLen int                // the longest window the model takes
	Warn      func(format string, args ...any)
	Progress  progress.Func // may be nil

	tokenizer *tokenizer.Tokenizer
}

// Calibration draws the windows of c. Sequences longer than the model takes
// are cut to its maximum, with a warning.
func (l *Loader) Calibration(ctx context.Context, c recipe.Calibration) (*Set, error) {
	src, err := l.parse(c.Source)
	if err != nil {
		return nil, err
	}
	if src.Tokens() {
		return l.given(src, "calibration", c.SeqLen, c.Samples)
	}
	seqLen := l.clip("calibration", c.SeqLen)
	if err := fits(src.String(), c.Samples, seqLen); err != nil {
		return nil, err
	}
	t, err := l.load()
	if err != nil {
		return nil, err
	}
	docs, err := src.Documents(ctx, l.Hub)
	if err != nil {
		return nil, err
	}
	defer docs.Close()
	encode := func(text string) ([]int32, error) { return t.Encode(text, true) }
	tokens, err := calibration.Sample(ctx, docs, encode, calibration.Options{
		Samples: c.Samples, SeqLen: seqLen, Seed: uint64(c.Seed),
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src, err)
	}
	return l.check(&Set{Source: c.Source, Tokens: tokens, SeqLen: seqLen, BOS: addsBOS(t)}, t)
}

// Evaluation cuts the text of e into windows; the tail that does not fill one
// is dropped.
func (l *Loader) Evaluation(ctx context.Context, e recipe.Eval) (*Set, error) {
	src, err := l.parse(e.Source)
	if err != nil {
		return nil, err
	}
	limit := e.Windows
	if m := src.MaxWindows(); m > 0 && (limit == 0 || limit > m) {
		limit = m
	}
	if src.Tokens() {
		return l.given(src, "evaluation", e.SeqLen, limit)
	}
	seqLen := l.clip("evaluation", e.SeqLen)
	t, err := l.load()
	if err != nil {
		return nil, err
	}
	text, err := src.Text(ctx, l.Hub)
	if err != nil {
		return nil, err
	}
	ids, err := t.Encode(text, true)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", src, err)
	}
	tokens := calibration.Windows(ids, seqLen, limit)
	if len(tokens) == 0 {
		return nil, fmt.Errorf("%s: %d tokens, want at least one window of %d: give a longer text or a smaller --seqlen", src, len(ids), seqLen)
	}
	return l.check(&Set{Source: e.Source, Tokens: tokens, SeqLen: seqLen, BOS: addsBOS(t)}, t)
}

func (l *Loader) parse(source string) (corpus.Source, error) {
	src, err := corpus.Parse(source)
	src.Progress = l.Progress.Bytes("read " + source)
	return src, err
}

// given takes windows that are already tokens: the first limit rows (0: all), in
// their own length if it is not above seqLen, else their first seqLen ids. No
// others are read.
func (l *Loader) given(src corpus.Source, what string, seqLen, limit int) (*Set, error) {
	rows, own, err := src.Shape()
	if err != nil {
		return nil, err
	}
	if own < 2 {
		return nil, fmt.Errorf("%s: no window of two tokens or more", src)
	}
	if rows < limit {
		l.warn("%s has %d windows, fewer than the %d requested", src, rows, limit)
	} else if limit > 0 {
		rows = limit
	}
	if own < seqLen {
		l.warn("%s has windows of %d tokens, shorter than the %d requested", src, own, seqLen)
	}
	if seqLen = l.clip(what, min(own, seqLen)); seqLen < own {
		l.warn("%s: windows of %d tokens are truncated to %d", src, own, seqLen)
	}
	tokens, err := src.Windows(rows, seqLen)
	if err != nil {
		return nil, err
	}
	return l.check(&Set{Source: src.String(), Tokens: tokens, SeqLen: seqLen}, nil)
}

// maxTokens bounds the tokens of a set, which are in memory: 1 GiB.
const maxTokens = 1 << 28

// fits refuses more windows than fit in memory.
func fits(source string, windows, seqLen int) error {
	if int64(windows)*int64(seqLen) > maxTokens {
		return fmt.Errorf("%s: %d windows of %d tokens, want at most %d tokens in all: ask for fewer or shorter ones", source, windows, seqLen, maxTokens)
	}
	return nil
}

// check refuses ids that the model has no embedding for, by the name of the token
// if t made them; t is nil where they were given.
func (l *Loader) check(s *Set, t *tokenizer.Tokenizer) (*Set, error) {
	err := calibration.CheckIDs(s.Tokens, l.Vocab)
	if err == nil {
		return s, nil
	}
	for w := 0; t != nil && w < len(s.Tokens); w++ {
		if named := t.CheckIDs(s.Tokens[w], l.Vocab); named != nil {
			err = named
			break
		}
	}
	return nil, fmt.Errorf("%s: %w", s.Source, err)
}

// clip returns the window's length, cut to the model's maximum.
func (l *Loader) clip(what string, seqLen int) int {
	if l.MaxSeqLen > 0 && seqLen > l.MaxSeqLen {
		l.warn("%s windows have %d tokens instead of %d: the model takes no more", what, l.MaxSeqLen, seqLen)
		return l.MaxSeqLen
	}
	return seqLen
}

func (l *Loader) warn(format string, args ...any) {
	if l.Warn != nil {
		l.Warn(format, args...)
	}
}

// load reads the tokenizer once.
func (l *Loader) load() (*tokenizer.Tokenizer, error) {
	if l.tokenizer == nil {
		t, err := tokenizer.LoadWith(l.ReadFile, l.ModelDir)
		if err != nil {
			return nil, err
		}
		l.tokenizer = t
	}
	return l.tokenizer, nil
}

// addsBOS reports whether t puts tokens of its own before a text.
func addsBOS(t *tokenizer.Tokenizer) bool {
	plain, err1 := t.Encode("a", false)
	special, err2 := t.Encode("a", true)
	return err1 == nil && err2 == nil && len(special) > len(plain) && (len(plain) == 0 || special[0] != plain[0])
}
