// Package tokenizer turns text into token ids and back, exactly as the Hugging
// Face library tokenizers does with the same tokenizer.json, and as
// SentencePiece does with a tokenizer.model where no tokenizer.json exists.
//
// A text takes five steps:
//
//	added tokens    "<|endoftext|>" and the like are cut out first
//	normalizer      NFC, prepend ▁, …: what is left, rewritten
//	pre-tokenizer   cut into words; no merge crosses a word's border
//	model           byte pair encoding, one word at a time
//	post-processor  beginning-of-sequence token and its kin
//
// Terms: a token is an entry of the vocabulary, an id its number, a symbol one
// of the tokens a word consists of while it is merged, a rank the place of a
// merge in the list (lower ranks merge first).
//
// What tokenizer.json asks for and this package does not know is an error that
// names it, never a guess. Patterns are Oniguruma's, as package onig reads them.
//
// A tokenizer.json is a stranger's file, so all that it can make much of is
// bounded: the file (128 MiB), its tokens (2²²), added tokens (2²⁰), the steps of
// a Sequence (256), the bytes of a component (1 MiB) and of its patterns (64 KiB),
// what a template adds (1024 ids); and for each text the steps of the pattern
// engine (2²⁶ and 256 a byte) and the bytes that it may gain (1 MiB and 8 times
// its length). What is above a bound is an error. A text of one word takes about
// 13 times its size in memory.
//
// Text that is not UTF-8 is read as Go's range reads it: each byte that is not
// part of a rune becomes U+FFFD. Python strings cannot hold such text, so there
// is nothing to compare with.
package tokenizer
