package hf

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The split patterns of tokenizer.json, by the models they were made for.
const (
	llama3Split = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Split  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen35Split = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	tekkenSplit = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	gpt4oSplit  = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`

	deepSeekLetters = `\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⲲⲳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+`
	deepSeekMarks   = `\s?[!-/:-~！-／：-～‘-‟　-。]+`
	deepSeekHan     = `[一-龥ࠀ-一가-퟿]+`
	deepSeek3Han    = `[一-龥぀-ゟ゠-ヿ]+`
	deepSeek3Words  = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)

// preTokenizer is what a value of tokenizer.ggml.pre stands for.
type preTokenizer struct {
	steps        []any // of a Sequence
	ignoreMerges bool  // a word that is a token is that token
	bos          bool  // add_bos_token where no key says
}

// preTokenizers are the types that are known, by llama.cpp's names: what is not
// listed is refused.
var preTokenizers = knownPreTokenizers()

func knownPreTokenizers() map[string]preTokenizer {
	known := map[string]preTokenizer{}
	all := func(p preTokenizer, names ...string) {
		for _, name := range names {
			known[name] = p
		}
	}
	digits := map[string]any{"type": "Digits", "individual_digits": true}
	bytes, gpt2 := byteLevel(false), byteLevel(true)
	all(preTokenizer{steps: []any{gpt2}},
		"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "mellum", "modern-bert", "exaone4")
	all(preTokenizer{steps: []any{digits, gpt2}},
		"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
	all(preTokenizer{steps: []any{split(llama3Split), bytes}, ignoreMerges: true, bos: true},
		"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano")
	all(preTokenizer{steps: []any{split(llama3Split), bytes}}, "dbrx", "smaug-bpe", "chatglm-bpe", "glm4")
	all(preTokenizer{steps: []any{split(qwen2Split), bytes}},
		"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open")
	all(preTokenizer{steps: []any{split(qwen35Split), bytes}}, "qwen35")
	all(preTokenizer{steps: []any{split(tekkenSplit), bytes}, ignoreMerges: true, bos: true}, "tekken")
	all(preTokenizer{steps: []any{split(gpt4oSplit), bytes}}, "gpt-4o", "llama4", "kanana2")
	all(preTokenizer{steps: []any{
		split(`[\r\n]`), split(deepSeekLetters), split(deepSeekMarks), split(`\s+$`), split(deepSeekHan), digits, bytes,
	}}, "deepseek-llm")
	all(preTokenizer{steps: []any{
		split(`[\r\n]`), split(`\s?\p{L}+`), split(`\s?\p{P}+`), split(deepSeekHan), digits, bytes,
	}}, "deepseek-coder")
	all(preTokenizer{steps: []any{split(`\p{N}{1,3}`), split(deepSeek3Han), split(deepSeek3Words), bytes}},
		"deepseek-v3", "hunyuan-dense")
	return known
}

// byteLevel is the step that turns bytes into their printable stand-ins; with
// cut it cuts words by GPT-2's pattern first.
func byteLevel(cut bool) any {
	return map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": cut}
}

// split is a step that makes of each match of a pattern a part of its own.
func split(pattern string) any {
	return map[string]any{"type": "Split", "pattern": map[string]any{"Regex": pattern}, "behavior": "Isolated", "invert": false}
}

func findPre(name string) (preTokenizer, error) {
	p, ok := preTokenizers[name]
	if !ok {
		return p, fmt.Errorf("key tokenizer.ggml.pre: %q is not known; known: %s", name, strings.Join(slices.Sorted(maps.Keys(preTokenizers)), ", "))
	}
	return p, nil
}
