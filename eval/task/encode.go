package task

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/tokenizer"
)

// BOS says whether texts get a beginning-of-sequence token.
type BOS uint8

const (
	Auto BOS = iota // what the tokenizer adds by itself: the harness's default
	On              // the BOS token, also where the tokenizer adds none
	Off             // nothing is added
)

// ParseBOS reads "auto", "on" or "off".
func ParseBOS(s string) (BOS, error) {
	for b := Auto; b <= Off; b++ {
		if b.String() == s {
			return b, nil
		}
	}
	return Auto, fmt.Errorf("%q, want auto, on or off", s)
}

func (b BOS) String() string { return [...]string{"auto", "on", "off"}[b] }

// Encoder turns requests into tokens, for one model.
type Encoder struct {
	t         *tokenizer.Tokenizer
	bos       BOS
	bosID     int32  // −1: the tokenizer has none
	prefixID  int32  // stands for an empty context: BOS, else EOS; −1: neither
	prefix    string // the text of prefixID: what begins with it gets no other
	maxLength int    // tokens that the model takes
	vocab     int
}

// NewEncoder reads the tokenizer of dir, the folder of m, whose files readFile
// reads and whose config.json is config.
func NewEncoder(m *model.Model, config []byte, readFile tokenizer.ReadFile, dir string, bos BOS) (*Encoder, error) {
	t, err := tokenizer.LoadWith(readFile, dir)
	if err != nil {
		return nil, err
	}
	names, err := readNames(readFile, dir)
	if err != nil {
		return nil, err
	}
	e := &Encoder{t: t, bos: bos, vocab: m.Config.Vocab, maxLength: maxLength(m, config)}
	find := func(name string) int32 {
		if id, ok := t.ID(name); ok && name != "" {
			return id
		}
		return -1
	}
	e.bosID = find(names.bos)
	e.prefixID = e.bosID
	if e.prefixID < 0 {
		e.prefixID = find(names.eos)
	}
	if e.prefixID >= 0 {
		if e.prefix, err = t.Decode([]int32{e.prefixID}, false); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// BOS says whether texts get a token in front.
func (e *Encoder) BOS() bool {
	ids, err := e.text("")
	return err == nil && len(ids) > 0
}

// maxLength is the longest input, as the harness finds it: n_positions of the
// text model's config wins over max_position_embeddings, which all known
// classes have or default.
func maxLength(m *model.Model, config []byte) int {
	type lengths struct {
		Positions int `json:"n_positions"`
	}
	var c struct {
		lengths
		Text *lengths `json:"text_config"`
	}
	// What is no number is not this function's to complain of; model.Open has
	// read the config.
	_ = pyjson.Unmarshal(config, &c)
	if c.Text != nil {
		c.lengths = *c.Text
	}
	if c.Positions > 0 {
		return c.Positions
	}
	return m.Config.MaxPositions
}

// names are the texts of special tokens, empty where there is none.
type names struct{ bos, eos string }

// maxConfig is what a tokenizer_config.json may have; real ones, with a template
// and all added tokens, are below 1 MB.
const maxConfig = 16 << 20 // bytes

// readNames reads them where transformers does: tokenizer_config.json, and
// special_tokens_map.json for what that leaves open.
func readNames(readFile tokenizer.ReadFile, dir string) (names, error) {
	var n names
	for _, file := range []string{"tokenizer_config.json", "special_tokens_map.json"} {
		path := filepath.Join(dir, file)
		data, err := readFile(file, maxConfig)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return n, err
		}
		var c struct {
			BOS name `json:"bos_token"`
			EOS name `json:"eos_token"`
		}
		if err := pyjson.Unmarshal(data, &c); err != nil {
			return n, fmt.Errorf("%s: %w", path, err)
		}
		if n.bos == "" {
			n.bos = string(c.BOS)
		}
		if n.eos == "" {
			n.eos = string(c.EOS)
		}
	}
	return n, nil
}

// name is a token's text: a string, or an object with it as content.
type name string

func (n *name) UnmarshalJSON(data []byte) error {
	var object struct{ Content string }
	if data[0] != '{' {
		return json.Unmarshal(data, (*string)(n))
	}
	err := json.Unmarshal(data, &object)
	*n = name(object.Content)
	return err
}

// text returns the tokens of s with what is added in front.
func (e *Encoder) text(s string) ([]int32, error) {
	begun := e.prefix != "" && strings.HasPrefix(s, e.prefix)
	if e.bos == Auto {
		return e.t.Encode(s, !begun)
	}
	ids, err := e.t.Encode(s, false)
	if err == nil && e.bos == On && !begun && e.bosID >= 0 {
		ids = append([]int32{e.bosID}, ids...)
	}
	return ids, err
}

// encode returns the tokens that r's continuation follows and its own: those
// of both texts together, from where the context's alone end. White space at
// the context's end is the continuation's.
func (e *Encoder) encode(r Request) (context, continuation []int32, err error) {
	if r.Context == "" {
		context, continuation, err = e.withoutContext(r.Continuation)
	} else {
		text := strings.TrimRightFunc(r.Context, isSpace)
		var whole []int32
		if context, err = e.text(text); err == nil {
			whole, err = e.text(r.Context + r.Continuation)
		}
		continuation = whole[min(len(context), len(whole)):]
	}
	switch {
	case err != nil:
	case len(context) == 0:
		err = fmt.Errorf("context %q has no tokens, want at least one", shorten(r.Context))
	case len(continuation) == 0:
		err = fmt.Errorf("continuation %q has no tokens after its context, want at least one", shorten(r.Continuation))
	case len(continuation) > e.maxLength:
		err = fmt.Errorf("continuation %q has %d tokens, want at most the model's %d", shorten(r.Continuation), len(continuation), e.maxLength)
	}
	for _, ids := range [][]int32{context, continuation} {
		if err == nil {
			err = e.t.CheckIDs(ids, e.vocab)
		}
	}
	return context, continuation, err
}

// withoutContext lets a continuation follow the token that begins a text.
func (e *Encoder) withoutContext(s string) (context, continuation []int32, err error) {
	if e.prefixID < 0 {
		return nil, nil, errors.New("empty context, and the tokenizer has no BOS or EOS token to stand for it")
	}
	ids, err := e.t.Encode(s, false)
	if err != nil {
		return nil, nil, err
	}
	if len(ids) > 0 && ids[0] == e.prefixID {
		return ids[:1], ids[1:], nil
	}
	return []int32{e.prefixID}, ids, nil
}

// shorten returns the beginning of s, for messages.
func shorten(s string) string { return excerpt([]byte(s)) }
