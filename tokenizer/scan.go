package tokenizer

import (
	"strings"
	"unicode/utf8"
)

// The split patterns of the common tokenizers, written out as scanners: a
// backtracking engine is some fifty times slower. A scanner takes a text and an
// offset i < len(s) and returns where a match that begins at i ends, i if none
// does.
//
// The alternatives of a pattern are tried in order, as the engine does; the
// comments name them.

type scanner func(s string, i int) int

// trailingPattern is not a scanner's, since one that fails at the beginning of
// a run fails at all its places.
const trailingPattern = `\s+$`

// patterns are the pattern strings that have a scanner.
var patterns = map[string]scanner{
	gpt2Pattern: scanGPT2,
	cl100k("'(?i:[sdmt]|ll|ve|re)", `?+\p{L}+`, `\p{N}{1,3}`, `++[\r\n]*|\s*[\r\n]`): cl100kRule{digits: 3}.scan,
	cl100k(contractions, `?\p{L}+`, `\p{N}{1,3}`, `+[\r\n]*|\s*[\r\n]+`):             cl100kRule{digits: 3}.scan,
	cl100k(contractions, `?\p{L}+`, `\p{N}`, `+[\r\n]*|\s*[\r\n]+`):                  cl100kRule{digits: 1}.scan,
	cl100k(contractions, `?\p{L}+`, `\p{N}+`, `+[\r\n]*|\s*[\r\n]+`):                 cl100kRule{digits: 1 << 30}.scan,
	qwen35Pattern:                         cl100kRule{digits: 1, marks: mark}.scan,
	o200k(contractions+`?`, `\p{N}{1,3}`): o200kRule{digits: 3, contractions: true}.scan,
	o200k(contractions+`?`, `\p{N}`):      o200kRule{digits: 1, contractions: true}.scan,
	o200k(``, `\p{N}`):                    o200kRule{digits: 1}.scan,
	deepSeekV3Pattern:                     scanDeepSeekV3,
}

const contractions = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`

// gpt2Pattern is also that of ByteLevel with use_regex.
const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

const qwen35Pattern = contractions + `|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

const deepSeekV3Pattern = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+" +
	`|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`

// cl100k returns a pattern of the family of GPT-4, Llama 3 and Qwen 2.
func cl100k(contractions, letters, digits, newlines string) string {
	return contractions + `|[^\r\n\p{L}\p{N}]` + letters + `|` + digits + `| ?[^\s\p{L}\p{N}]` + newlines + `|\s+(?!\S)|\s+`
}

// o200k returns a pattern of the family of GPT-4o, Llama 4 and Mistral's Tekken.
func o200k(contractions, digits string) string {
	const up, low = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
	return `[^\r\n\p{L}\p{N}]?` + up + `*` + low + `+` + contractions +
		`|[^\r\n\p{L}\p{N}]?` + up + `+` + low + `*` + contractions +
		`|` + digits + `| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
}

// at returns the class of the rune at s[i:] and its length; 0, 0 at the end.
func at(t *table, s string, i int) (class, int) {
	if i >= len(s) {
		return 0, 0
	}
	if b := s[i]; b < utf8.RuneSelf {
		return t[b], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return t[r], n
}

// run returns the end of the runes at s[i:] that are in a class of c.
func run(t *table, s string, i int, c class) int {
	for i < len(s) {
		k, n := at(t, s, i)
		if k&c == 0 {
			break
		}
		i += n
	}
	return i
}

// runNot returns the end of the runes at s[i:] that are in no class of c.
func runNot(t *table, s string, i int, c class) int {
	for i < len(s) {
		k, n := at(t, s, i)
		if k&c != 0 {
			break
		}
		i += n
	}
	return i
}

func isNewline(b byte) bool { return b == '\r' || b == '\n' }

// scanGPT2 is gpt2Pattern.
func scanGPT2(s string, i int) int {
	t := classes()
	if n := contraction(s, i, false); n > 0 {
		return i + n
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	k, _ := at(t, s, j)
	switch {
	case j == len(s): // a space at the end
		return j
	case k&letter != 0: //  ?\p{L}+
		return run(t, s, j, letter)
	case k&number != 0: //  ?\p{N}+
		return run(t, s, j, number)
	case k&space == 0: //  ?[^\s\p{L}\p{N}]+
		return runNot(t, s, j, space|letter|number)
	}
	return scanSpace(t, s, i)
}

// scanSpace is \s+(?!\S)|\s+: white space up to the last one before something
// else, which stays with what follows; that one alone if there is no other.
func scanSpace(t *table, s string, i int) int {
	last := i
	j := i
	for j < len(s) {
		k, n := at(t, s, j)
		if k&space == 0 {
			break
		}
		last = j
		j += n
	}
	if j == len(s) || last == i {
		return j
	}
	return last
}

// contraction returns the length of 's 't 're 've 'm 'll 'd at s[i:], or 0.
// With fold, case does not matter, and ſ (U+017F) is an s.
func contraction(s string, i int, fold bool) int {
	if i+1 >= len(s) || s[i] != '\'' {
		return 0
	}
	a, b := s[i+1], byte(0)
	if i+2 < len(s) {
		b = s[i+2]
	}
	if fold {
		if a == "ſ"[0] && b == "ſ"[1] {
			return 3
		}
		a, b = a|0x20, b|0x20 // only letters become these letters
	}
	switch a {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if b == 'e' {
			return 3
		}
	case 'l':
		if b == 'l' {
			return 3
		}
	}
	return 0
}

// cl100kRule is the family cl100k: digits is the most that go together; marks
// is mark where \p{M} counts as a letter in words.
type cl100kRule struct {
	digits int
	marks  class
}

func (p cl100kRule) scan(s string, i int) int {
	t := classes()
	if n := contraction(s, i, true); n > 0 {
		return i + n
	}
	k, n := at(t, s, i)
	if k&letter != 0 { // [^\r\n\p{L}\p{N}]?\p{L}+ without its first part
		return run(t, s, i+n, letter|p.marks)
	}
	if k&number == 0 && !isNewline(s[i]) { // with it
		if next, m := at(t, s, i+n); next&(letter|p.marks) != 0 {
			return run(t, s, i+n+m, letter|p.marks)
		}
	}
	if k&p.marks != 0 {
		return run(t, s, i+n, letter|p.marks)
	}
	if k&number != 0 { // \p{N}{1,3}
		return digits(t, s, i+n, p.digits-1)
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if e := runNot(t, s, j, space|letter|number|p.marks); e > j { //  ?[^\s\p{L}\p{N}]+[\r\n]*
		for e < len(s) && isNewline(s[e]) {
			e++
		}
		return e
	}
	return scanLines(t, s, i)
}

// digits returns the end of at most n digits at s[i:].
func digits(t *table, s string, i, n int) int {
	for ; n > 0; n-- {
		k, m := at(t, s, i)
		if k&number == 0 {
			break
		}
		i += m
	}
	return i
}

// scanLines is \s*[\r\n]+|\s+(?!\S)|\s+: white space up to its last line end;
// if there is none, as scanSpace.
func scanLines(t *table, s string, i int) int {
	end := run(t, s, i, space)
	for e := end; e > i; e-- {
		if isNewline(s[e-1]) {
			return e
		}
	}
	return scanSpace(t, s, i)
}

// o200kRule is the family o200k.
type o200kRule struct {
	digits       int
	contractions bool
}

func (p o200kRule) scan(s string, i int) int {
	t := classes()
	k, n := at(t, s, i)
	if e := p.word(t, s, i, k, n); e > 0 {
		if p.contractions {
			e += contraction(s, e, true)
		}
		return e
	}
	if k&number != 0 {
		return digits(t, s, i+n, p.digits-1)
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if e := runNot(t, s, j, space|letter|number); e > j { //  ?[^\s\p{L}\p{N}]+[\r\n/]*
		for e < len(s) && (isNewline(s[e]) || s[e] == '/') {
			e++
		}
		return e
	}
	return scanLines(t, s, i)
}

// word is the first two alternatives, each with [^\r\n\p{L}\p{N}] before it or
// without, less the contraction: the end, 0 if there is no word. k and n are
// the class and length of the rune at i.
func (o200kRule) word(t *table, s string, i int, k class, n int) int {
	if k&(letter|number) != 0 || isNewline(s[i]) {
		n = 0
	}
	for _, alternative := range [...]func(*table, string, int) int{endsLower, beginsUpper} {
		if n > 0 {
			if e := alternative(t, s, i+n); e > 0 {
				return e
			}
		}
		if k&(upper|lower) != 0 {
			if e := alternative(t, s, i); e > 0 {
				return e
			}
		}
	}
	return 0
}

// endsLower is upper*lower+, 0 where there is none. Letters without case and
// marks are in both classes: upper* gives back until one of them can be lower+.
func endsLower(t *table, s string, i int) int {
	up := run(t, s, i, upper)
	if e := run(t, s, up, lower); e > up {
		return e
	}
	for up > i {
		r, n := utf8.DecodeLastRuneInString(s[i:up])
		if t[r]&lower != 0 {
			return up
		}
		up -= n
	}
	return 0
}

// beginsUpper is upper+lower*, 0 where there is none.
func beginsUpper(t *table, s string, i int) int {
	up := run(t, s, i, upper)
	if up == i {
		return 0
	}
	return run(t, s, up, lower)
}

// scanDeepSeekV3 is deepSeekV3Pattern. It matches neither digits alone nor
// control characters: it returns i there.
func scanDeepSeekV3(s string, i int) int {
	t := classes()
	k, n := at(t, s, i)
	if s[i] < utf8.RuneSelf && k&(punct|symbol) != 0 {
		j := i + 1
		for j < len(s) && 'a' <= s[j]|0x20 && s[j]|0x20 <= 'z' {
			j++
		}
		if j > i+1 { // [!"#$…][A-Za-z]+
			return j
		}
	}
	if k&(letter|punct|symbol) == 0 && !isNewline(s[i]) {
		if next, m := at(t, s, i+n); next&(letter|mark) != 0 { // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
			return run(t, s, i+n+m, letter|mark)
		}
	}
	if k&(letter|mark) != 0 { // the same without its first part
		return run(t, s, i+n, letter|mark)
	}
	j := i
	if s[i] == ' ' {
		j++
	}
	if e := run(t, s, j, punct|symbol); e > j { //  ?[\p{P}\p{S}]+[\r\n]*
		for e < len(s) && isNewline(s[e]) {
			e++
		}
		return e
	}
	if k&space == 0 {
		return i
	}
	return scanLines(t, s, i)
}

// trailingSpaces is \s+$, which the engine tries at each place of a run: white space up to the end of the text or, since $ matches
// before a line feed too, up to the last one that is not the first of its run.
type trailingSpaces struct{}

func (trailingSpaces) find(s string, from int) (lo, hi int) {
	t := classes()
	for lo = from; lo < len(s); {
		lo = runNot(t, s, lo, space)
		end := run(t, s, lo, space)
		if end == len(s) && lo < end {
			return lo, end
		}
		if i := strings.LastIndexByte(s[lo:end], '\n'); i > 0 {
			return lo, lo + i
		}
		lo = end
	}
	return -1, -1
}

// scanWords is \w+|[^\w\s]+.
func scanWords(s string, i int) int {
	t := classes()
	switch k, _ := at(t, s, i); {
	case k&word != 0:
		return run(t, s, i, word)
	case k&space != 0:
		return i
	}
	return runNot(t, s, i, word|space)
}
