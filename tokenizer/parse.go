package tokenizer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/pyjson"
)

// document is tokenizer.json. truncation and padding are settings of calls,
// which transformers resets; they are not read.
type document struct {
	Version       *string         `json:"version"`
	AddedTokens   addedTokenList  `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"`
	Model         json.RawMessage `json:"model"`
}

// Limits of what a tokenizer.json holds, checked before the memory is taken:
// "{}," would become a component of 400 bytes.
const (
	maxVocab     = 1 << 22 // tokens; published ones have up to 2¹⁸
	maxAdded     = 1 << 20 // added tokens
	maxAddedText = 1 << 22 // bytes of their contents
	maxMember    = 1 << 20 // bytes of a normalizer, pre_tokenizer, post_processor or decoder
	maxPatterns  = 1 << 16 // bytes of the patterns of one of them; published ones have a few thousand
	maxSteps     = 256     // in the Sequences of one of them
	maxNest      = 64      // brackets of one of them within each other
	maxPieces    = 1024    // in a template, and ids in it
	maxSequences = 16      // "Sequence A" in a template: the text's ids so many times
)

// Lists that are counted while they are read.
type (
	addedTokenList []addedToken
	componentList  []component
	pieceList      []templatePiece
)

func (l *addedTokenList) UnmarshalJSON(data []byte) (err error) {
	*l, err = readList[addedToken](data, maxAdded)
	return err
}

func (l *componentList) UnmarshalJSON(data []byte) (err error) {
	*l, err = readList[component](data, maxSteps)
	return err
}

func (l *pieceList) UnmarshalJSON(data []byte) (err error) {
	*l, err = readList[templatePiece](data, maxPieces)
	return err
}

// readList reads an array of at most limit elements; null is an empty one.
func readList[T any](data []byte, limit int) ([]T, error) {
	if string(data) == "null" {
		return nil, nil
	}
	if data[0] != '[' {
		return nil, fmt.Errorf("%s, want an array", clip(data))
	}
	var out []T
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	for dec.More() {
		if len(out) == limit {
			return nil, fmt.Errorf("an array of more than %d elements is not supported", limit)
		}
		var v T
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// readComponent reads a member of the document, nil if it is absent or null.
func readComponent(member string, data json.RawMessage) (*component, error) {
	if len(data) > maxMember {
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", member, len(data), maxMember)
	}
	if len(data) == 0 || string(data) == "null" {
		return nil, nil
	}
	// Each level of Sequences is read once for itself and once for each around it.
	if n := nesting(data); n > maxNest {
		return nil, fmt.Errorf("%s: %d brackets within each other, want at most %d", member, n, maxNest)
	}
	c := new(component)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s: %w", member, pyjson.Plain(err))
	}
	if n := c.steps(); n > maxSteps {
		return nil, fmt.Errorf("%s: %d steps in its Sequences, want at most %d", member, n, maxSteps)
	}
	if n := c.patternBytes(); n > maxPatterns {
		return nil, fmt.Errorf("%s: patterns of %d bytes, want at most %d", member, n, maxPatterns)
	}
	return c, nil
}

// nesting is how many brackets of valid JSON lie within each other.
func nesting(data []byte) int {
	deepest, depth, quoted := 0, 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// steps is the number of components that c has within it.
func (c *component) steps() int {
	n := 0
	for _, l := range []componentList{c.Normalizers, c.Pretokenizers, c.Processors, c.Decoders} {
		n += len(l)
		for i := range l {
			n += l[i].steps()
		}
	}
	return n
}

// patternBytes is the length of the patterns of c and its steps.
func (c *component) patternBytes() int {
	n := 0
	if c.Pattern != nil && c.Pattern.Regex != nil {
		n = len(*c.Pattern.Regex)
	}
	for _, l := range []componentList{c.Normalizers, c.Pretokenizers, c.Decoders} {
		for i := range l {
			n += l[i].patternBytes()
		}
	}
	return n
}

// component is a normalizer, pre-tokenizer, post-processor or decoder: Type
// and the fields of all of them.
type component struct {
	Type string `json:"type"`

	Normalizers   componentList `json:"normalizers"` // Sequence, by kind
	Pretokenizers componentList `json:"pretokenizers"`
	Processors    componentList `json:"processors"`
	Decoders      componentList `json:"decoders"`

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

	Single        pieceList `json:"single"` // TemplateProcessing
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
		return nil, fmt.Errorf("not a tokenizer.json: %w", pyjson.Plain(err))
	}
	if doc.Version != nil && *doc.Version != "1.0" {
		return nil, fmt.Errorf("version %.60q, want \"1.0\"", *doc.Version)
	}
	t := &Tokenizer{}
	if err := t.readComponents(&doc); err != nil {
		return nil, err
	}
	if err := t.readModel(doc.Model); err != nil {
		return nil, err
	}
	if err := t.add(doc.AddedTokens); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Tokenizer) readComponents(doc *document) error {
	c, err := readComponent("normalizer", doc.Normalizer)
	if err == nil {
		t.norm, err = c.normalizer()
	}
	if err != nil {
		return err
	}
	if c, err = readComponent("pre_tokenizer", doc.PreTokenizer); err == nil {
		t.stages, err = c.stages(nil)
	}
	if err != nil {
		return err
	}
	if c, err = readComponent("post_processor", doc.PostProcessor); err == nil {
		t.post, err = c.template()
	}
	if err != nil {
		return err
	}
	if c, err = readComponent("decoder", doc.Decoder); err == nil {
		t.dec, err = c.decoder()
	}
	return err
}

// add enters the added tokens. One that the vocabulary has keeps that id; the
// others are numbered on from the vocabulary's size, whatever id they state.
func (t *Tokenizer) add(tokens []addedToken) error {
	a := &t.added
	a.byID = make(map[int32]int, len(tokens))
	a.special = make(map[string]bool)
	next, bytes := int64(len(t.ids)), 0
	for _, tok := range tokens {
		if tok.Content == "" {
			continue
		}
		if bytes += len(tok.Content); bytes > maxAddedText {
			return fmt.Errorf("added tokens of more than %d bytes are not supported", maxAddedText)
		}
		id, ok := t.ids[tok.Content]
		if !ok {
			if next > math.MaxInt32 {
				return fmt.Errorf("added token %.60q: id %d, want at most %d", tok.Content, next, math.MaxInt32)
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
			content, _, err := t.norm(&b, tok.Content, true)
			if err != nil {
				return fmt.Errorf("added token %.60q: %w", tok.Content, err)
			}
			if content == "" { // tokenizers then finds it between any two characters
				return fmt.Errorf("added token %.60q: the normalizer leaves nothing of it, want a token with normalized false", tok.Content)
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
		return fmt.Errorf("model type %.60q is not supported; supported: BPE", *j.Type)
	case j.Dropout != nil && *j.Dropout != 0:
		return fmt.Errorf("model: dropout %g is not supported; want null or 0", *j.Dropout)
	case j.ContinuingSubwordPrefix != nil && *j.ContinuingSubwordPrefix != "":
		return fmt.Errorf("model: continuing_subword_prefix %.60q is not supported", *j.ContinuingSubwordPrefix)
	case j.EndOfWordSuffix != nil && *j.EndOfWordSuffix != "":
		return fmt.Errorf("model: end_of_word_suffix %.60q is not supported", *j.EndOfWordSuffix)
	case j.Vocab == nil || j.Merges == nil:
		return fmt.Errorf("model: want vocab and merges")
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
		return fmt.Errorf("model: %w", pyjson.Plain(err))
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
			return fmt.Errorf("model: unk_token %.60q is not in the vocabulary", *j.UnkToken)
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
			return fmt.Errorf("merge %d (%.60q %.60q): %.60q is not in the vocabulary", i, p[0], p[1], p[0])
		}
		right, ok := vocab[p[1]]
		if !ok {
			return fmt.Errorf("merge %d (%.60q %.60q): %.60q is not in the vocabulary", i, p[0], p[1], p[1])
		}
		buf = append(append(buf[:0], p[0]...), p[1]...)
		id, ok := vocab[string(buf)]
		if !ok {
			return fmt.Errorf("merge %d (%.60q %.60q): %.60q is not in the vocabulary", i, p[0], p[1], buf)
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
