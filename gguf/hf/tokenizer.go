package hf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// The types of tokens, as llama.cpp numbers them.
const (
	normalToken  = 1
	unknownToken = 2
	controlToken = 3
	userToken    = 4
	unusedToken  = 5
	byteToken    = 6
)

// vocabulary is what a file says of its tokenizer.
type vocabulary struct {
	model  string // gpt2, byte pairs; llama, SentencePiece's
	tokens []string
	types  []int     // by token
	scores []float64 // of SentencePiece
	merges []merge
	ids    map[string]int // by token
	pre    preTokenizer   // of gpt2

	special        map[string]int // bos, eos, … by role, as they are in tokenizer_config.json
	stop           []int          // the ends of a text
	addBOS, addEOS bool
	prefixSpace    bool // a text begins with a space
	templates      []chatTemplate
}

type merge struct{ left, right string }

// chatTemplate is one of several, or the only one without a name.
type chatTemplate struct {
	Name     string `json:"name"`
	Template string `json:"template"`
}

// roles are the special tokens that have a key in tokenizer_config.json, by
// their keys in the file.
var roles = []struct{ key, role string }{
	{"bos_token_id", "bos_token"}, {"eos_token_id", "eos_token"}, {"unknown_token_id", "unk_token"},
	{"padding_token_id", "pad_token"}, {"seperator_token_id", "sep_token"}, {"mask_token_id", "mask_token"},
}

// described are keys that say nothing that a folder has a place for: roles of
// tokens in the middle of code, and the rules of a normalisation that neither
// kind of tokenizer here has.
var described = []string{
	"prefix_token_id", "suffix_token_id", "middle_token_id", "eot_token_id", "eom_token_id",
	"fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id", "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id",
	"token_type_count", "suppress_tokens",
}

const ggml = "tokenizer.ggml."

// maxToken is above any real token: that merges are found by cutting a token
// everywhere takes the square of its length.
const maxToken = 1 << 12 // bytes

// readTokenizer reads the tokenizer's keys.
func readTokenizer(k *keys, a *architecture) *vocabulary {
	v := &vocabulary{model: k.text(ggml + "model"), special: map[string]int{}}
	for _, key := range described {
		k.has(ggml + key)
	}
	switch v.model {
	case "gpt2":
		var err error
		if v.pre, err = findPre(k.text(ggml + "pre")); err != nil {
			k.fail(err)
		}
		v.addBOS = v.pre.bos
	case "llama":
		if pre := k.textOr(ggml+"pre", "default"); pre != "default" {
			k.fail(fmt.Errorf("key %spre: %q, want default for SentencePiece", ggml, pre))
		}
		v.addBOS, v.prefixSpace = true, true
	default:
		k.fail(fmt.Errorf("key %smodel: %q, want gpt2 or llama", ggml, v.model))
	}
	v.addBOS = k.boolOr(ggml+"add_bos_token", v.addBOS)
	v.addEOS = k.boolOr(ggml+"add_eos_token", false)
	v.prefixSpace = k.boolOr(ggml+"add_space_prefix", v.prefixSpace) && v.model == "llama"
	k.boolOr(ggml+"add_sep_token", false) // between two texts
	if k.boolOr(ggml+"remove_extra_whitespaces", false) {
		k.fail(fmt.Errorf("key %sremove_extra_whitespaces: true, want false", ggml))
	}
	v.readTokens(k)
	v.readMerges(k, a)
	v.readSpecial(k)
	v.readTemplates(k)
	return v
}

// readTokens reads the tokens, their types and scores.
func (v *vocabulary) readTokens(k *keys) {
	tokens, err := k.m.Texts(k.full(ggml + "tokens"))
	if err != nil {
		k.fail(err)
		return
	}
	rows := 0
	if t, ok := k.file.Tensor("token_embd.weight"); ok {
		rows = t.Rows()
	}
	if len(tokens) == 0 || len(tokens) > rows {
		k.fail(fmt.Errorf("key %stokens: %d tokens, want 1 to %d, the rows of token_embd.weight", ggml, len(tokens), rows))
	}
	v.tokens, v.ids = tokens, make(map[string]int, len(tokens))
	v.types = make([]int, len(tokens))
	for i, n := range k.list("token_type", len(tokens)) {
		v.types[i] = int(n)
	}
	v.scores = k.list("scores", len(tokens))
	for i, t := range tokens {
		if v.model == "llama" && v.types[i] == userToken && strings.Trim(t, " ") == "" {
			t = strings.ReplaceAll(t, " ", space) // llama.cpp's converter has undone this for runs of them
		}
		if t == "" {
			t = fmt.Sprintf("[EMPTY_%d]", i) // as llama.cpp calls it
		}
		if len(t) > maxToken {
			k.fail(fmt.Errorf("key %stokens: token %d has %d bytes, want at most %d", ggml, i, len(t), maxToken))
			return
		}
		if !utf8.ValidString(t) {
			k.fail(fmt.Errorf("key %stokens: token %d, %q, is not UTF-8", ggml, i, t))
		}
		if other, twice := v.ids[t]; twice {
			k.fail(fmt.Errorf("key %stokens: token %d, %q, is there twice, first as %d", ggml, i, t, other))
		}
		v.tokens[i], v.ids[t] = t, i
	}
}

// list returns an array with a number for each of n tokens, nil without the key.
func (k *keys) list(name string, n int) []float64 {
	if !k.has(ggml + name) {
		return nil
	}
	all, err := k.m.Floats(k.full(ggml + name))
	if err == nil && len(all) != n {
		err = fmt.Errorf("key %s%s: %d numbers for %d tokens", ggml, name, len(all), n)
	}
	if err != nil {
		k.fail(err)
		return nil
	}
	return all
}

// space stands for one in SentencePiece's tokens.
const space = "▁"

// readMerges reads the merges, which SentencePiece's files do not have: there
// any two tokens merge whose texts together are a token, the one of the highest
// score first.
func (v *vocabulary) readMerges(k *keys, a *architecture) {
	if v.model == "llama" && !k.has(ggml+"merges") {
		if v.scores == nil {
			k.fail(fmt.Errorf("key %sscores: missing, want a number for each token", ggml))
			return
		}
		rank := func(id int) float64 { return v.scores[id] }
		if a.shifted {
			// Gemma's scores do not follow the order of its merges; that of its tokens does.
			rank = func(id int) float64 { return -float64(id) }
		}
		v.merges = v.derive(rank)
		return
	}
	lines, err := k.m.Texts(k.full(ggml + "merges"))
	if err != nil {
		k.fail(err)
		return
	}
	for i, line := range lines {
		left, right, ok := strings.Cut(line, " ")
		_, l := v.ids[left]
		_, r := v.ids[right]
		_, both := v.ids[left+right]
		if !ok || !l || !r || !both {
			k.fail(fmt.Errorf("key %smerges: merge %d, %q: want two tokens of the vocabulary that make a third", ggml, i, line))
			return
		}
		v.merges = append(v.merges, merge{left, right})
	}
}

// derive returns the merges that SentencePiece finds by rank, the highest
// first; of those of one token the longest left part first.
func (v *vocabulary) derive(rank func(id int) float64) []merge {
	type ranked struct {
		merge
		rank        float64
		left, right int // characters
		ids         [2]int
	}
	var all []ranked
	for id, t := range v.tokens {
		for i := range t {
			left, ok1 := v.ids[t[:i]]
			right, ok2 := v.ids[t[i:]]
			if i > 0 && ok1 && ok2 {
				all = append(all, ranked{
					merge{t[:i], t[i:]}, rank(id), utf8.RuneCountInString(t[:i]), utf8.RuneCountInString(t[i:]), [2]int{left, right},
				})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(b.left, a.left), cmp.Compare(b.right, a.right))
	})
	merges := make([]merge, len(all))
	for i, m := range all {
		merges[i] = m.merge
	}
	return merges
}

// readSpecial reads which tokens begin and end a text, and so on.
func (v *vocabulary) readSpecial(k *keys) {
	for _, r := range roles {
		if key := ggml + r.key; k.has(key) {
			v.special[r.role] = k.whole(key, 0, max(0, len(v.tokens)-1))
		}
	}
	for _, key := range []string{"eos_token_id", "eot_token_id", "eom_token_id"} {
		if k.has(ggml + key) {
			if id := k.whole(ggml+key, 0, max(0, len(v.tokens)-1)); !slices.Contains(v.stop, id) {
				v.stop = append(v.stop, id)
			}
		}
	}
	if _, ok := v.special["bos_token"]; v.addBOS && !ok {
		k.fail(fmt.Errorf("key %sbos_token_id: missing, though a text begins with that token", ggml))
	}
	if _, ok := v.special["eos_token"]; v.addEOS && !ok {
		k.fail(fmt.Errorf("key %seos_token_id: missing, though a text ends with that token", ggml))
	}
}

func (v *vocabulary) readTemplates(k *keys) {
	const key = "tokenizer.chat_template"
	if k.has(key) {
		v.templates = append(v.templates, chatTemplate{"default", k.text(key)})
	}
	if k.has(key + "s") { // the names of more
		names, err := k.m.Texts(key + "s")
		if err != nil {
			k.fail(err)
		}
		for _, name := range names {
			v.templates = append(v.templates, chatTemplate{name, k.text(key + "." + name)})
		}
	}
}

// specialIDs sets the ids of the tokens that config.json names, null for those
// that there are not, where a class may have an id as its default.
func (k *keys) specialIDs(c config) {
	for _, r := range roles {
		switch r.role {
		case "bos_token", "eos_token", "pad_token":
			c[r.role+"_id"] = nil
			if key := ggml + r.key; k.has(key) {
				c[r.role+"_id"] = k.whole(key, 0, maxVocab)
			}
		}
	}
}

// files returns tokenizer.json, tokenizer_config.json and, where more than one
// token ends a text, generation_config.json.
func (v *vocabulary) files() map[string][]byte {
	settings := map[string]any{
		"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
		"add_bos_token": v.addBOS, "add_eos_token": v.addEOS,
	}
	for role, id := range v.special {
		settings[role] = v.tokens[id]
	}
	switch len(v.templates) {
	case 0:
	case 1:
		settings["chat_template"] = v.templates[0].Template
	default:
		settings["chat_template"] = v.templates
	}
	files := map[string][]byte{"tokenizer.json": v.tokenizerJSON(), "tokenizer_config.json": encodeJSON(settings)}
	if len(v.stop) > 1 {
		generation := map[string]any{"eos_token_id": v.stop}
		if id, ok := v.special["bos_token"]; ok {
			generation["bos_token_id"] = id
		}
		files["generation_config.json"] = encodeJSON(generation)
	}
	return files
}

// tokenizerJSON writes the file of the library tokenizers.
func (v *vocabulary) tokenizerJSON() []byte {
	doc := map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil,
		"added_tokens": v.addedTokens(), "post_processor": v.postProcessor(),
		"normalizer": nil, "pre_tokenizer": nil, "decoder": byteLevel(true),
	}
	model := map[string]any{
		"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
		"fuse_unk": false, "byte_fallback": false, "ignore_merges": v.pre.ignoreMerges,
		"vocab": orderedVocab(v.tokens), "merges": v.mergePairs(),
	}
	if v.model == "gpt2" {
		doc["pre_tokenizer"] = sequence("pretokenizers", v.pre.steps...)
	} else {
		v.pieces(doc, model)
	}
	doc["model"] = model
	return encodeJSON(doc)
}

// sequence is a component of several, or the only one.
func sequence(kind string, steps ...any) any {
	if len(steps) == 1 {
		return steps[0]
	}
	return map[string]any{"type": "Sequence", kind: steps}
}

// pieces sets what SentencePiece does: each space becomes a mark, one is put
// first, and what is no token is spelled in bytes.
func (v *vocabulary) pieces(doc, model map[string]any) {
	replace := func(from, to string) any {
		return map[string]any{"type": "Replace", "pattern": map[string]any{"String": from}, "content": to}
	}
	steps := []any{replace(" ", space)}
	decode := []any{replace(space, " "), map[string]any{"type": "ByteFallback"}, map[string]any{"type": "Fuse"}}
	if v.prefixSpace {
		steps = slices.Insert(steps, 0, any(map[string]any{"type": "Prepend", "prepend": space}))
		decode = append(decode, map[string]any{"type": "Strip", "content": " ", "start": 1, "stop": 0})
	}
	doc["normalizer"] = sequence("normalizers", steps...)
	doc["decoder"] = sequence("decoders", decode...)
	model["fuse_unk"], model["byte_fallback"] = true, true
	if id := slices.Index(v.types, unknownToken); id >= 0 {
		model["unk_token"] = v.tokens[id]
	}
}

// addedTokens are those that are cut out of a text before it is merged.
func (v *vocabulary) addedTokens() []any {
	added := []any{}
	for id, t := range v.tokens {
		if kind := v.types[id]; kind == controlToken || kind == userToken || kind == unknownToken && v.model == "llama" {
			added = append(added, map[string]any{
				"id": id, "content": t, "special": kind != userToken,
				"single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
			})
		}
	}
	return added
}

// postProcessor adds the tokens that begin and end a text.
func (v *vocabulary) postProcessor() any {
	if !v.addBOS && !v.addEOS {
		return byteLevelOrNone(v.model)
	}
	special := map[string]any{}
	piece := func(role string, kind int) any {
		t := v.tokens[v.special[role]]
		special[t] = map[string]any{"id": t, "ids": []int{v.special[role]}, "tokens": []string{t}}
		return map[string]any{"SpecialToken": map[string]any{"id": t, "type_id": kind}}
	}
	text := func(name string, kind int) []any {
		parts := []any{map[string]any{"Sequence": map[string]any{"id": name, "type_id": kind}}}
		if v.addBOS {
			parts = slices.Insert(parts, 0, piece("bos_token", kind))
		}
		if v.addEOS {
			parts = append(parts, piece("eos_token", kind))
		}
		return parts
	}
	return map[string]any{
		"type": "TemplateProcessing", "single": text("A", 0), "pair": append(text("A", 0), text("B", 1)...),
		"special_tokens": special,
	}
}

func byteLevelOrNone(model string) any {
	if model == "gpt2" {
		return byteLevel(true)
	}
	return nil
}

// orderedVocab writes the tokens in the order of their ids.
type orderedVocab []string

func (o orderedVocab) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for id, t := range o {
		if id > 0 {
			b.WriteByte(',')
		}
		text, err := json.Marshal(t)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s:%d", text, id)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func (v *vocabulary) mergePairs() [][2]string {
	pairs := make([][2]string, len(v.merges))
	for i, m := range v.merges {
		pairs[i] = [2]string{m.left, m.right}
	}
	return pairs
}
