package hf

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/internal/pyjson"
	"github.com/crepe-llm/crepe/tokenizer"
)

const maxTokenizer = 128 << 20 // bytes, as package tokenizer has it

// tokenizerFile is what is read of a tokenizer.json.
type tokenizerFile struct {
	Added []struct {
		ID      int    `json:"id"`
		Content string `json:"content"`
		Special bool   `json:"special"`
	} `json:"added_tokens"`
	Normalizer   *component `json:"normalizer"`
	PreTokenizer *component `json:"pre_tokenizer"`
	Model        struct {
		Type         string          `json:"type"`
		Unknown      string          `json:"unk_token"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
		Vocab        map[string]int  `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
	} `json:"model"`
}

// component is a normalizer or pre-tokenizer.
type component struct {
	Type          string      `json:"type"`
	Normalizers   []component `json:"normalizers"`
	PreTokenizers []component `json:"pretokenizers"`
	Pattern       struct {
		Regex, String *string
	} `json:"pattern"`
	Behavior   string `json:"behavior"`
	Invert     bool   `json:"invert"`
	Individual bool   `json:"individual_digits"`
	UseRegex   *bool  `json:"use_regex"`
	Prefix     bool   `json:"add_prefix_space"`
	Content    string `json:"content"`
	Prepend    string `json:"prepend"`
	Scheme     string `json:"prepend_scheme"`
}

// steps returns the parts of a Sequence, or c alone; none for nil.
func (c *component) steps() []component {
	switch {
	case c == nil:
		return nil
	case c.Type == "Sequence":
		var all []component
		for _, part := range slices.Concat(c.Normalizers, c.PreTokenizers) {
			all = append(all, part.steps()...)
		}
		return all
	}
	return []component{*c}
}

// key names what a step of a byte-level pre-tokenizer does; "" for what no
// pre-tokenizer of llama.cpp has.
func (c component) key() string {
	switch {
	case c.Type == "ByteLevel" && !c.Prefix:
		return fmt.Sprintf("bytes %t", c.UseRegex == nil || *c.UseRegex)
	case c.Type == "Digits" && c.Individual:
		return "digits"
	case c.Type == "Split" && c.Behavior == "Isolated" && !c.Invert && c.Pattern.Regex != nil:
		return "split " + *c.Pattern.Regex
	}
	return ""
}

// tokenizer writes the vocabulary, the merges or scores, the special tokens and
// the chat template.
func (w *writer) tokenizer(inv *checkpoint.Inventory, c *settings) error {
	data, err := inv.ReadFile("tokenizer.json", maxTokenizer)
	if err != nil {
		return fmt.Errorf("a GGUF file holds a tokenizer: %w", err)
	}
	var f tokenizerFile
	if err := pyjson.Unmarshal(data, &f); err != nil {
		return fmt.Errorf("tokenizer.json: %w", err)
	}
	if f.Model.Type != "BPE" && f.Model.Type != "" {
		return fmt.Errorf("tokenizer.json: model %q, want BPE", f.Model.Type)
	}
	t, err := w.tokens(&f, c)
	if err != nil {
		return fmt.Errorf("tokenizer.json: %w", err)
	}
	merges, err := readMergeList(f.Model.Merges)
	if err != nil {
		return fmt.Errorf("tokenizer.json: merges: %w", err)
	}
	if f.Model.ByteFallback {
		err = w.pieces(&f, t, merges)
	} else {
		err = w.bytePairs(&f, merges)
	}
	if err != nil {
		return fmt.Errorf("tokenizer.json: %w", err)
	}
	return w.special(inv, c, t)
}

// exported are the tokens of a file.
type exported struct {
	texts []string
	types []int32
	ids   map[string]int
}

// tokens returns all tokens by id, as many as the embedding has rows.
func (w *writer) tokens(f *tokenizerFile, c *settings) (*exported, error) {
	n := c.size("vocab_size")
	t := &exported{texts: make([]string, n), types: make([]int32, n), ids: map[string]int{}}
	put := func(text string, id int, kind int32) error {
		if id < 0 || id >= n {
			return fmt.Errorf("token %q: id %d, want one below vocab_size %d", text, id, n)
		}
		if was := t.texts[id]; was != "" && was != text {
			return fmt.Errorf("tokens %q and %q have the same id %d", was, text, id)
		}
		t.texts[id], t.types[id], t.ids[text] = text, kind, id
		return nil
	}
	for text, id := range f.Model.Vocab {
		kind := int32(normalToken)
		switch {
		case f.Model.ByteFallback && text == f.Model.Unknown:
			kind = unknownToken
		case f.Model.ByteFallback && len(text) == 6 && strings.HasPrefix(text, "<0x"):
			kind = byteToken
		}
		if err := put(text, id, kind); err != nil {
			return nil, err
		}
	}
	for _, a := range f.Added {
		kind := int32(userToken)
		switch {
		case f.Model.ByteFallback && a.Content == f.Model.Unknown:
			kind = unknownToken
		case a.Special:
			kind = controlToken
		}
		if err := put(a.Content, a.ID, kind); err != nil {
			return nil, err
		}
	}
	texts := slices.Clone(t.texts)
	for id, text := range texts {
		switch {
		case text == "":
			texts[id], t.types[id] = fmt.Sprintf("[PAD%d]", id), unusedToken
		case f.Model.ByteFallback && t.types[id] == userToken && strings.Trim(text, space) == "":
			texts[id] = strings.ReplaceAll(text, space, " ") // llama.cpp looks for it in the text as it is
		}
	}
	w.m.Set(ggml+"tokens", texts)
	w.m.Set(ggml+"token_type", t.types)
	return t, nil
}

// readMergeList reads merges in either form, ["a b", …] or [["a", "b"], …].
func readMergeList(raw json.RawMessage) ([][2]string, error) {
	var pairs [][2]string
	if json.Unmarshal(raw, &pairs) == nil {
		return pairs, nil
	}
	var lines []string
	if err := json.Unmarshal(raw, &lines); err != nil {
		return nil, err
	}
	for i, line := range lines {
		left, right, ok := strings.Cut(line, " ")
		if !ok {
			return nil, fmt.Errorf("entry %d: %q, want two tokens with one space between", i, line)
		}
		pairs = append(pairs, [2]string{left, right})
	}
	return pairs, nil
}

// canonical are the names of pre-tokenizers that are written: of those that cut
// alike, the one of the best-known model.
var canonical = []string{"llama-bpe", "dbrx", "qwen2", "qwen35", "tekken", "gpt-4o", "gpt-2", "smollm", "deepseek-llm", "deepseek-coder", "deepseek-v3"}

// bytePairs writes a byte-level tokenizer.
func (w *writer) bytePairs(f *tokenizerFile, merges [][2]string) error {
	for _, n := range f.Normalizer.steps() {
		if n.Type != "NFC" { // which llama.cpp leaves out for all models that have it
			return fmt.Errorf("normalizer %q: llama.cpp has none", n.Type)
		}
	}
	var keys []string
	for _, s := range f.PreTokenizer.steps() {
		keys = append(keys, s.key())
	}
	i := slices.IndexFunc(canonical, func(name string) bool {
		p := preTokenizers[name]
		return p.ignoreMerges == f.Model.IgnoreMerges && slices.Equal(p.keys(), keys)
	})
	if i < 0 {
		return fmt.Errorf("pre_tokenizer: llama.cpp's that are known here cut otherwise (%s)", strings.Join(canonical, ", "))
	}
	w.m.Set(ggml+"model", "gpt2")
	w.m.Set(ggml+"pre", canonical[i])
	lines := make([]string, len(merges))
	for i, m := range merges {
		lines[i] = m[0] + " " + m[1]
	}
	w.m.Set(ggml+"merges", lines)
	return nil
}

// keys returns the keys of p's steps.
func (p preTokenizer) keys() []string {
	text, err := json.Marshal(p.steps)
	if err != nil {
		panic("hf: " + err.Error())
	}
	var steps []component
	if err := json.Unmarshal(text, &steps); err != nil {
		panic("hf: " + err.Error())
	}
	var keys []string
	for _, s := range steps {
		keys = append(keys, s.key())
	}
	return keys
}

// pieces writes a tokenizer of SentencePiece's kind. llama.cpp merges by the
// score of what comes out, so a token's score is the place of the first merge
// that makes it, negative; what no merge makes comes last.
func (w *writer) pieces(f *tokenizerFile, t *exported, merges [][2]string) error {
	prefix, spaces := false, false
	for _, s := range slices.Concat(f.Normalizer.steps(), f.PreTokenizer.steps()) {
		switch {
		case s.Type == "Prepend" && s.Prepend == space:
			prefix = true
		case s.Type == "Replace" && s.Pattern.String != nil && *s.Pattern.String == " " && s.Content == space:
			spaces = true
		case s.Type == "Metaspace":
			spaces, prefix = true, s.Scheme != "never"
		case s.Type == "Split" && s.Pattern.String != nil && *s.Pattern.String == " ":
			// Nothing is left to be cut once spaces are replaced.
		default:
			return fmt.Errorf("%s in the normalizer or pre_tokenizer: SentencePiece's in llama.cpp has no such", s.Type)
		}
	}
	if !spaces {
		return fmt.Errorf("normalizer: want spaces replaced by %q, as SentencePiece does", space)
	}
	scores := make([]float32, len(t.texts))
	for i := range scores {
		scores[i] = -float32(len(merges) + 1)
	}
	for i := len(merges) - 1; i >= 0; i-- {
		if id, ok := t.ids[merges[i][0]+merges[i][1]]; ok {
			scores[id] = -float32(i)
		}
	}
	w.m.Set(ggml+"model", "llama")
	w.m.Set(ggml+"pre", "default")
	w.m.Set(ggml+"scores", scores)
	w.m.Set(ggml+"add_space_prefix", prefix)
	return nil
}

// special writes the special tokens, whether texts begin and end with them, and
// the chat template.
func (w *writer) special(inv *checkpoint.Inventory, c *settings, t *exported) error {
	data, err := readOptional(inv, "tokenizer_config.json")
	if err != nil {
		return err
	}
	conf := &settings{}
	if data != nil {
		if conf, err = readSettings(data); err != nil {
			return fmt.Errorf("tokenizer_config.json: %w", err)
		}
	}
	ids := map[string]int{}
	for _, r := range roles {
		id, ok := c.special(r.role)
		if text := conf.token(r.role); !ok && text != "" {
			id, ok = t.ids[text]
		}
		if ok && id >= 0 && id < len(t.texts) {
			ids[r.role] = id
			w.m.Set(ggml+r.key, uint32(id))
		}
	}
	if err := w.ends(inv, ids); err != nil {
		return err
	}
	return w.templates(inv, conf)
}

// token returns the text of a special token, which may stand in an object.
func (c *settings) token(role string) string {
	var text string
	var object struct{ Content string }
	if raw := c.keys[role]; json.Unmarshal(raw, &text) != nil && json.Unmarshal(raw, &object) == nil {
		text = object.Content
	}
	return text
}

// ends writes what the post-processor adds to a text, by asking it.
func (w *writer) ends(inv *checkpoint.Inventory, ids map[string]int) error {
	tok, err := tokenizer.LoadWith(inv.ReadFile, inv.Dir())
	if err != nil {
		return err
	}
	added, err := tok.Encode("", true)
	if err != nil {
		return err
	}
	has := func(role string, i int) bool {
		id, ok := ids[role]
		return ok && i >= 0 && i < len(added) && added[i] == int32(id)
	}
	bos := has("bos_token", 0)
	rest := len(added)
	if bos {
		rest--
	}
	eos := rest > 0 && has("eos_token", len(added)-1)
	if eos {
		rest--
	}
	if rest > 0 {
		return fmt.Errorf("tokenizer.json: the post-processor adds the tokens %v, want at most bos_token in front and eos_token behind", added)
	}
	w.m.Set(ggml+"add_bos_token", bos)
	w.m.Set(ggml+"add_eos_token", eos)
	return nil
}

// templates writes the chat templates: those of tokenizer_config.json, or
// chat_template.jinja, which transformers 5 writes.
func (w *writer) templates(inv *checkpoint.Inventory, conf *settings) error {
	const key = "tokenizer.chat_template"
	var text string
	var named []chatTemplate
	raw := conf.keys["chat_template"]
	if json.Unmarshal(raw, &text) != nil {
		_ = json.Unmarshal(raw, &named) // neither: no template
	}
	data, err := readOptional(inv, "chat_template.jinja")
	if err != nil {
		return err
	}
	if data != nil {
		text = string(data)
	}
	var names []string
	for _, t := range named {
		if t.Name == "default" {
			text = t.Template
			continue
		}
		names = append(names, t.Name)
		w.m.Set(key+"."+t.Name, t.Template)
	}
	if len(names) > 0 {
		w.m.Set(key+"s", names)
	}
	if text != "" {
		w.m.Set(key, text)
	}
	return nil
}
