package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// document is tokenizer.json. truncation and padding are settings of calls,
// which transformers resets; they are not read.
type document struct {
	Version       *string         `json:"version"`
	AddedTokens   []addedToken    `json:"added_tokens"`
	Normalizer    *component      `json:"normalizer"`
	PreTokenizer  *component      `json:"pre_tokenizer"`
	PostProcessor *component      `json:"post_processor"`
	Decoder       *component      `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// component is a normalizer, pre-tokenizer, post-processor or decoder: Type
// and the fields of all of them.
type component struct {
	Type string `json:"type"`

	Normalizers   []component `json:"normalizers"` // Sequence, by kind
	Pretokenizers []component `json:"pretokenizers"`
	Processors    []component `json:"processors"`
	Decoders      []component `json:"decoders"`

	Pattern          *pattern `json:"pattern"` // Split, Replace
	Behavior         string   `json:"behavior"`
	Invert           bool     `json:"invert"`
	Content          string   `json:"content"` // Replace, Strip (decoder)
	Prepend          string   `json:"prepend"`
	StripLeft        bool     `json:"strip_left"`
	StripRight       bool     `json:"strip_right"`
	Start            int      `json:"start"` // Strip (decoder)
	Stop             int      `json:"stop"`
	AddPrefixSpace   *bool    `json:"add_prefix_space"`
	UseRegex         *bool    `json:"use_regex"`
	Replacement      string   `json:"replacement"` // Metaspace
	PrependScheme    string   `json:"prepend_scheme"`
	Split            *bool    `json:"split"`
	IndividualDigits bool     `json:"individual_digits"`

	Single        []templatePiece `json:"single"` // TemplateProcessing
	SpecialTokens map[string]struct {
		IDs []int64 `json:"ids"`
	} `json:"special_tokens"`
}

type pattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

type templatePiece struct {
	SpecialToken *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID string `json:"id"`
	} `json:"Sequence"`
}

// Parse reads a tokenizer.json.
func Parse(data []byte) (*Tokenizer, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(data), maxFile)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("not a tokenizer.json: %w", err)
	}
	if doc.Version != nil && *doc.Version != "1.0" {
		return nil, fmt.Errorf("version %q, want \"1.0\"", *doc.Version)
	}
	t := &Tokenizer{}
	var err error
	if t.norm, err = doc.Normalizer.normalizer(); err != nil {
		return nil, err
	}
	if t.stages, err = doc.PreTokenizer.stages(nil); err != nil {
		return nil, err
	}
	if t.post, err = doc.PostProcessor.template(); err != nil {
		return nil, err
	}
	if doc.Decoder != nil {
		if t.dec, err = doc.Decoder.decoder(); err != nil {
			return nil, err
		}
	}
	if err := t.readModel(doc.Model); err != nil {
		return nil, err
	}
	if err := t.add(doc.AddedTokens); err != nil {
		return nil, err
	}
	return t, nil
}

// add enters the added tokens. One that the vocabulary has keeps that id; the
// others are numbered on from the vocabulary's size, whatever id they state.
func (t *Tokenizer) add(tokens []addedToken) error {
	a := &t.added
	a.byID = make(map[int32]int, len(tokens))
	a.special = make(map[string]bool)
	next := int64(len(t.ids))
	for _, tok := range tokens {
		if tok.Content == "" {
			continue
		}
		id, ok := t.ids[tok.Content]
		if !ok {
			if next > math.MaxInt32 {
				return fmt.Errorf("added token %q: id %d, want at most %d", tok.Content, next, math.MaxInt32)
			}
			id = int32(next)
			next++
			t.ids[tok.Content] = id
		}
		if tok.Special {
			a.special[tok.Content] = true
		}
		tok.ID = int64(id)
		if i, ok := a.byID[id]; ok {
			a.tokens[i] = tok
			continue
		}
		a.byID[id] = len(a.tokens)
		a.tokens = append(a.tokens, tok)
	}
	for _, tok := range a.tokens {
		id := int32(tok.ID)
		t.tokens[id] = tok.Content
		if !tok.Normalized {
			a.raw.insert(tok.Content, id)
			continue
		}
		if t.norm != nil {
			b := newBudget(len(tok.Content))
			content, err := t.norm(&b, tok.Content, true)
			if err != nil {
				return fmt.Errorf("added token %q: %w", tok.Content, err)
			}
			t.tokens[id] = content
		}
		a.normalized.insert(t.tokens[id], id)
	}
	return nil
}

// modelJSON is the member model; vocab and merges, nearly all of the file, are
// read by vocabulary and mergeList.
type modelJSON struct {
	Type                    *string         `json:"type"`
	Dropout                 *float64        `json:"dropout"`
	UnkToken                *string         `json:"unk_token"`
	ContinuingSubwordPrefix *string         `json:"continuing_subword_prefix"`
	EndOfWordSuffix         *string         `json:"end_of_word_suffix"`
	FuseUnk                 bool            `json:"fuse_unk"`
	ByteFallback            bool            `json:"byte_fallback"`
	IgnoreMerges            bool            `json:"ignore_merges"`
	Vocab                   json.RawMessage `json:"vocab"`
	Merges                  json.RawMessage `json:"merges"`
}

// check refuses what the model does not support. Files from before the type
// was written have a BPE model if they have merges.
func (j *modelJSON) check() error {
	switch {
	case j.Type == nil && j.Merges == nil:
		return fmt.Errorf("model without a type; supported: BPE")
	case j.Type != nil && *j.Type != "BPE":
		return fmt.Errorf("model type %q is not supported; supported: BPE", *j.Type)
	case j.Dropout != nil && *j.Dropout != 0:
		return fmt.Errorf("model: dropout %g is not supported; want null or 0", *j.Dropout)
	case j.ContinuingSubwordPrefix != nil && *j.ContinuingSubwordPrefix != "":
		return fmt.Errorf("model: continuing_subword_prefix %q is not supported", *j.ContinuingSubwordPrefix)
	case j.EndOfWordSuffix != nil && *j.EndOfWordSuffix != "":
		return fmt.Errorf("model: end_of_word_suffix %q is not supported", *j.EndOfWordSuffix)
	case j.Vocab == nil || j.Merges == nil:
		return fmt.Errorf("model: no vocab or no merges")
	}
	return nil
}

func (t *Tokenizer) readModel(raw json.RawMessage) error {
	if len(raw) == 0 || bytes.Equal(raw, []byte("null")) {
		return fmt.Errorf("no model")
	}
	var j modelJSON
	// The type comes first: of other types the vocab has another shape.
	if err := json.Unmarshal(raw, &j); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if err := j.check(); err != nil {
		return err
	}
	vocab, err := vocabulary(j.Vocab)
	if err != nil {
		return fmt.Errorf("model: vocab: %w", err)
	}
	// The model knows its own vocabulary only; t.ids takes the added tokens too.
	t.ids = maps.Clone(vocab)
	t.tokens = make(map[int32]string, len(vocab))
	for tok, id := range vocab {
		if other, ok := t.tokens[id]; !ok || tok < other {
			t.tokens[id] = tok
		}
	}
	m := &bpe{words: vocab, unk: -1, fuseUnk: j.FuseUnk, ignoreMerges: j.IgnoreMerges}
	t.model = m
	merges, err := mergeList(j.Merges)
	if err != nil {
		return fmt.Errorf("model: merges: %w", err)
	}
	if err := m.setMerges(merges, vocab); err != nil {
		return fmt.Errorf("model: %w", err)
	}
	if j.ByteFallback {
		m.fallback = byteFallback(vocab)
	}
	if n := len(t.stages); n > 0 {
		if b, ok := t.stages[n-1].(byteLevel); ok {
			b.stand = false
			t.stages[n-1] = b
			m.byteLevel = true
		}
	}
	m.setSymbols(vocab)
	if j.UnkToken != nil {
		id, ok := vocab[*j.UnkToken]
		if !ok && !m.knowsAll() {
			return fmt.Errorf("model: unk_token %q is not in the vocabulary", *j.UnkToken)
		}
		if ok {
			m.unk = id
		}
	}
	if m.safeBreak(merges, vocab) {
		t.stages = append(slices.Clip(t.stages), breaks(metaMark))
	}
	return nil
}

// setMerges builds the merge table. The rank of a merge is its place.
func (m *bpe) setMerges(merges [][2]string, vocab map[string]int32) error {
	m.merges = newMergeTable(len(merges))
	var buf []byte
	for i, p := range merges {
		left, ok := vocab[p[0]]
		if !ok {
			return fmt.Errorf("merge %d (%q %q): %q is not in the vocabulary", i, p[0], p[1], p[0])
		}
		right, ok := vocab[p[1]]
		if !ok {
			return fmt.Errorf("merge %d (%q %q): %q is not in the vocabulary", i, p[0], p[1], p[1])
		}
		buf = append(append(buf[:0], p[0]...), p[1]...)
		id, ok := vocab[string(buf)]
		if !ok {
			return fmt.Errorf("merge %d (%q %q): %q is not in the vocabulary", i, p[0], p[1], buf)
		}
		m.merges.set(left, right, uint32(i), id)
	}
	return nil
}

// setSymbols fills in what words begin as, and with byteLevel turns the keys of
// words from stand-ins into bytes.
func (m *bpe) setSymbols(vocab map[string]int32) {
	for b := range m.symbols {
		switch {
		case m.byteLevel:
			m.symbols[b] = m.initialOf(string(byteRunes[b]), vocab)
		case b < 0x80:
			m.symbols[b] = m.initialOf(string(rune(b)), vocab)
		}
	}
	if !m.byteLevel || !m.ignoreMerges {
		return
	}
	m.words = make(map[string]int32, len(vocab))
	for tok, id := range vocab {
		if s, ok := fromStandIns(tok); ok {
			m.words[s] = id
		}
	}
}

// knowsAll reports whether no text needs the unknown token.
func (m *bpe) knowsAll() bool {
	if m.fallback != nil && !slices.Contains(m.fallback[:], -1) {
		return true
	}
	return m.byteLevel && !slices.ContainsFunc(m.symbols[:], func(in initial) bool { return in.kind == isUnknown })
}

// metaMark stands for a space in SentencePiece vocabularies.
const metaMark = "▁"

// safeBreak reports whether a word can be cut before each metaMark that does
// not follow another, and its parts merged apart: no merge may join something
// that does not end in the mark with something that begins with it, and the
// mark, being known, ends runs of unknown characters anyway.
func (m *bpe) safeBreak(merges [][2]string, vocab map[string]int32) bool {
	if _, ok := vocab[metaMark]; !ok || m.byteLevel || m.ignoreMerges {
		return false
	}
	return !slices.ContainsFunc(merges, func(p [2]string) bool {
		return strings.HasPrefix(p[1], metaMark) && !strings.HasSuffix(p[0], metaMark)
	})
}
