package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/internal/pyjson"
)

// llamaConfig is what tokenizer_config.json says about a tokenizer.model. A nil
// field is not there.
type llamaConfig struct {
	AddBOS *bool `json:"add_bos_token"` // default true
	AddEOS *bool `json:"add_eos_token"` // default false
	Legacy *bool `json:"legacy"`        // default true
}

// maxConfig is the most bytes of a tokenizer_config.json: with chat templates
// and added tokens published ones have up to 1 MB.
const maxConfig = 16 << 20

func readLlamaConfig(readFile ReadFile, dir string) (llamaConfig, error) {
	var conf llamaConfig
	const name = "tokenizer_config.json"
	data, err := readFile(name, maxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return conf, nil
	}
	if err != nil {
		return conf, err
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return conf, fmt.Errorf("%s: %w", filepath.Join(dir, name), pyjson.Plain(err))
	}
	return conf, nil
}

// parseSentencePiece reads a tokenizer.model as transformers' LlamaTokenizer
// uses it: control pieces and the unknown piece written in a text are cut out,
// each part between them is encoded by SentencePiece, and the beginning of
// sequence is put first.
//
// With legacy, the default, SentencePiece puts its dummy prefix "▁" before each
// of those parts; without, only before one that begins the text.
func parseSentencePiece(data []byte, conf llamaConfig) (*Tokenizer, error) {
	m, err := readPieceModel(data)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	t := &Tokenizer{ids: make(map[string]int32, len(m.pieces)), tokens: make(map[int32]string, len(m.pieces))}
	for i, p := range m.pieces {
		t.ids[p.text] = int32(i)
		t.tokens[int32(i)] = p.text
	}
	if t.model, err = m.bpe(); err != nil {
		return nil, err
	}
	t.addPieces(m)
	legacy := conf.Legacy == nil || *conf.Legacy
	t.norm = m.normalizer(legacy)
	if m.breakable(t.model) {
		t.stages = []stage{breaks(metaMark)}
	}
	if (conf.AddBOS == nil || *conf.AddBOS) && m.bosID >= 0 {
		t.post = append(t.post, templatePart{ids: []int32{m.bosID}})
	}
	t.post = append(t.post, templatePart{sequence: true})
	if conf.AddEOS != nil && *conf.AddEOS && m.eosID >= 0 {
		t.post = append(t.post, templatePart{ids: []int32{m.eosID}})
	}
	t.dec = always(func(tokens []string) []string {
		for i, tok := range tokens {
			tokens[i] = strings.ReplaceAll(tok, metaMark, " ")
		}
		text := fuse(decodeByteFallback(tokens))
		if m.dummyPrefix {
			text[0] = strings.TrimPrefix(text[0], " ")
		}
		return text
	})
	return t, nil
}

// addPieces enters the pieces that are cut out of a text before it is merged:
// control and unknown pieces before it is normalized, user-defined ones after.
func (t *Tokenizer) addPieces(m *pieceModel) {
	a := &t.added
	a.byID = make(map[int32]int)
	a.special = make(map[string]bool)
	for i, p := range m.pieces {
		switch p.kind {
		case controlPiece, unknownPiece:
			a.raw.insert(p.text, int32(i))
			a.special[p.text] = true
		case userPiece:
			a.normalized.insert(p.text, int32(i))
		default:
			continue
		}
		a.byID[int32(i)] = len(a.tokens)
		a.tokens = append(a.tokens, addedToken{ID: int64(i), Content: p.text})
	}
}

// normalizer is SentencePiece's with the identity rule: spaces become "▁", one
// is put first, and, if so trained, runs of them become one and those at the
// ends go.
func (m *pieceModel) normalizer(legacy bool) normalizer {
	rewrite := func(s string, first bool) string {
		if m.removeSpaces {
			words := slices.DeleteFunc(strings.Split(s, " "), func(w string) bool { return w == "" })
			s = strings.Join(words, " ")
		}
		if s == "" {
			return ""
		}
		if m.dummyPrefix && (legacy || first) {
			s = " " + s
		}
		s = strings.ReplaceAll(s, " ", metaMark)
		if m.removeSpaces { // the mark written in the text goes at its end, not elsewhere
			for strings.HasSuffix(s, metaMark) {
				s = s[:len(s)-len(metaMark)]
			}
		}
		return s
	}
	return func(b *budget, s string, first bool) (string, bool, error) {
		out := rewrite(s, first)
		return out, first, b.grow(len(out) - len(s))
	}
}
