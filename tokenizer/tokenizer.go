package tokenizer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/crepe-llm/crepe/internal/regular"
)

// Tokenizer is immutable once loaded; its methods may be called from several
// goroutines at once.
type Tokenizer struct {
	ids    map[string]int32 // every token, added ones first
	tokens map[int32]string // id → token as the decoder reads it

	added  addedTokens
	norm   normalizer // nil: none
	stages []stage    // pre-tokenizer
	model  *bpe
	post   []templatePart // nil: the ids as they are
	dec    decoder        // nil: tokens joined by spaces

	unlisted []string // tokens that tokenizer_config.json names and tokenizer.json does not add

	mu   sync.Mutex
	idle []*encoder // encoders between two Encode calls, with their caches
}

// ReadFile returns the content, of at most limit bytes, of a file of a model's
// folder. That there is none is an fs.ErrNotExist.
type ReadFile = func(name string, limit int64) ([]byte, error)

// In reads the files of the folder dir.
func In(dir string) ReadFile {
	return func(name string, limit int64) ([]byte, error) { return regular.Read(filepath.Join(dir, name), limit) }
}

// Load reads the tokenizer of the Hugging Face folder dir: tokenizer.json, or,
// where there is none, the SentencePiece tokenizer.model.
//
// A text with a token that only tokenizer_config.json names is refused: transformers
// would find it. Beside a tokenizer.json, add_bos_token of tokenizer_config.json counts for
// nothing, as in transformers 5: the post-processor alone decides.
func Load(dir string) (*Tokenizer, error) { return LoadWith(In(dir), dir) }

// LoadWith is Load of a folder whose files readFile reads; errors call it dir.
func LoadWith(readFile ReadFile, dir string) (*Tokenizer, error) {
	data, err := readFile("tokenizer.json", maxFile)
	if err == nil {
		t, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "tokenizer.json"), err)
		}
		if err := t.readUnlisted(readFile, dir); err != nil {
			return nil, err
		}
		return t, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	data, err = readFile("tokenizer.model", maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: no tokenizer: want tokenizer.json or tokenizer.model", dir)
	}
	if err != nil {
		return nil, err
	}
	conf, err := readLlamaConfig(readFile, dir)
	if err != nil {
		return nil, err
	}
	t, err := parseSentencePiece(data, conf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "tokenizer.model"), err)
	}
	return t, nil
}

// maxFile is the largest tokenizer file that is read. The largest published
// ones (256k tokens, merges as pairs) are about 35 MB.
const maxFile = 128 << 20 // bytes

// VocabSize returns the number of tokens, added ones included. A model may have
// more embedding rows than that.
func (t *Tokenizer) VocabSize() int { return len(t.ids) }

// ID returns the id of a token as the vocabulary spells it ("Ġthe", "▁the").
func (t *Tokenizer) ID(token string) (int32, bool) {
	id, ok := t.ids[token]
	return id, ok
}

// Token returns the vocabulary's spelling of an id.
func (t *Tokenizer) Token(id int32) (string, bool) {
	if i, ok := t.added.byID[id]; ok {
		return t.added.tokens[i].Content, true
	}
	tok, ok := t.tokens[id]
	return tok, ok
}

// CheckIDs returns an error that names the first token of ids for which a model
// with vocab embeddings has none.
func (t *Tokenizer) CheckIDs(ids []int32, vocab int) error {
	for _, id := range ids {
		if int(id) < vocab {
			continue
		}
		token, _ := t.Token(id)
		return fmt.Errorf("token %.60q of the tokenizer has id %d, but the model's embedding has no row for it (it has %d rows): use a text without this token, or the tokenizer that the model was trained with", token, id, vocab)
	}
	return nil
}

// Encode returns the ids of text. With special, the post-processor adds its
// tokens (a beginning-of-sequence token, for most Llama-like models); special
// tokens written in the text are read as such either way.
//
// It returns an error if the tokenizer.json takes too many steps for the text,
// or makes it too long; see budget.
func (t *Tokenizer) Encode(text string, special bool) ([]int32, error) {
	if !utf8.ValidString(text) {
		text = string([]rune(text))
	}
	if err := t.checkUnlisted(text); err != nil {
		return nil, err
	}
	e := t.encoder()
	defer t.release(e)
	e.ids, e.err, e.budget = make([]int32, 0, len(text)/3+8), nil, newBudget(len(text))
	if t.post == nil {
		e.text(text)
	}
	var once []int32 // the text's ids, after the first Sequence
	for _, part := range t.post {
		switch start := len(e.ids); {
		case part.sequence && once == nil:
			e.text(text)
			once = e.ids[start:]
		case part.sequence:
			e.ids = append(e.ids, once...)
		case special:
			e.ids = append(e.ids, part.ids...)
		}
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.ids, nil
}

// Decode returns the text of ids; ids that are no token count for nothing, and
// with skipSpecial neither do special tokens. Bytes that do not make up UTF-8
// come out as U+FFFD. It returns an error where Encode does.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) (string, error) {
	tokens := make([]string, 0, len(ids))
	n := 0
	for _, id := range ids {
		tok, ok := t.tokens[id]
		if !ok || skipSpecial && t.added.special[tok] {
			continue
		}
		tokens = append(tokens, tok)
		n += len(tok)
	}
	if t.dec == nil {
		return strings.Join(tokens, " "), nil
	}
	b := newBudget(n)
	parts, err := t.dec(&b, tokens)
	if err != nil {
		return "", fmt.Errorf("decoder: %w", err)
	}
	return strings.Join(parts, ""), nil
}

// Encoders kept for later calls: so many, with merge memory for words of so
// many symbols at most.
const (
	maxIdle     = 64
	maxIdleHeap = 1 << 16
)

func (t *Tokenizer) encoder() *encoder {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.idle); n > 0 {
		e := t.idle[n-1]
		t.idle = t.idle[:n-1]
		return e
	}
	return &encoder{t: t}
}

func (t *Tokenizer) release(e *encoder) {
	e.ids = nil
	if cap(e.merge.heap) > maxIdleHeap {
		e.merge.heap = nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.idle) < maxIdle {
		t.idle = append(t.idle, e)
	}
}
