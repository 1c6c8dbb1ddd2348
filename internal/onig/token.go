package onig

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// next reads a token outside brackets: regparse.c, fetch_token.
func (p *parser) next() {
	for p.err == nil {
		p.tok = token{at: p.pos}
		if p.pos == len(p.pattern) {
			return
		}
		switch r := p.take(); {
		case r == '\\':
			p.escape()
		case r == '(' && p.skip("?#"):
			p.comment()
			continue
		case p.opt.extended && r == '#':
			_, after, _ := strings.Cut(p.rest(), "\n")
			p.pos = len(p.pattern) - len(after)
			continue
		case p.opt.extended && strings.ContainsRune(" \t\n\r\f", r):
			continue
		default:
			p.plain(r)
		}
		return
	}
	p.tok.kind = tokEnd
}

func (p *parser) comment() {
	for p.err == nil {
		switch p.take() {
		case '\\':
			p.take()
		case ')':
			return
		}
	}
}

// plain sets the token for r without a backslash.
func (p *parser) plain(r rune) {
	t := &p.tok
	t.kind, t.r = tokChar, r
	switch r {
	case '.':
		t.kind = tokAny
	case '*':
		p.repeatToken(0, unlimited)
	case '+':
		p.repeatToken(1, unlimited)
	case '?':
		p.repeatToken(0, 1)
	case '{':
		p.interval()
	case '|':
		t.kind = tokAlt
	case '(':
		t.kind = tokOpen
	case ')':
		t.kind = tokClose
	case '[':
		t.kind = tokBracket
	case '^':
		t.kind, t.anchor = tokAnchor, lineBegin
	case '$':
		t.kind, t.anchor = tokAnchor, lineEnd
	}
}

// repeatToken sets the token to a repeat, with ? lazy and with + possessive.
func (p *parser) repeatToken(low, high int) {
	p.tok.kind, p.tok.min, p.tok.max = tokRepeat, low, high
	if p.tok.lazy = p.skip("?"); !p.tok.lazy {
		p.tok.poss = p.skip("+")
	}
}

// interval sets the token to {n,m}, {n,}, {,m} or {n}; what is none of them is
// a brace. {m,n} with n < m is possessive, and {n}? a repeat of a repeat.
func (p *parser) interval() {
	body, _, ok := strings.Cut(p.rest(), "}")
	if !ok {
		return
	}
	a, b, comma := strings.Cut(body, ",")
	if strings.Trim(a+b, "0123456789") != "" || a == "" && b == "" {
		return
	}
	limit := func(s string, none int) int {
		if s == "" {
			return none
		}
		n, err := strconv.Atoi(s)
		if err != nil || n > maxRepeat {
			p.fail("repeat of %s, want at most %d", s, maxRepeat)
		}
		return n
	}
	p.pos += len(body) + 1
	t := &p.tok
	t.kind, t.min, t.max = tokInterval, limit(a, 0), limit(b, unlimited)
	switch {
	case p.err != nil:
		p.tok.kind = tokEnd
	case !comma:
		t.max = t.min
	case t.max >= 0 && t.max < t.min:
		t.min, t.max, t.poss = t.max, t.min, true
	default:
		t.lazy = p.skip("?")
	}
}

// escape sets the token for what follows a backslash outside brackets.
func (p *parser) escape() {
	t := &p.tok
	switch r := p.take(); r {
	case 'w', 'W', 'd', 'D', 's', 'S', 'h', 'H':
		t.kind, t.set = tokSet, p.shorthand(r, false)
	case 'b', 'B':
		t.kind, t.anchor = tokAnchor, wordBorder
		if p.opt.asciiWord || p.opt.asciiPOSIX {
			t.anchor = asciiWordBorder
		}
		if r == 'B' {
			t.anchor++
		}
	case 'A', 'z', 'Z', 'G':
		t.kind = tokAnchor
		t.anchor = map[rune]anchor{'A': textBegin, 'z': textEnd, 'Z': lastLineEnd, 'G': searchBegin}[r]
	case 'K':
		t.kind = tokKeep
	case 'R':
		t.kind = tokNewline
	case 'N':
		t.kind, t.set = tokSet, newline.not()
	case 'O':
		t.kind, t.set = tokSet, all
	case 'X', 'y', 'Y':
		p.unsupported(fmt.Sprintf(`a text segment (\%c)`, r))
	case '1', '2', '3', '4', '5', '6', '7', '8', '9':
		p.number(r)
	case 'k':
		if t.kind, t.r = tokChar, r; p.skip("<") {
			p.reference(p.upTo('>'))
		} else if p.skip("'") {
			p.reference(p.upTo('\''))
		}
	case 'g':
		if t.kind, t.r = tokChar, r; p.peek("<") || p.peek("'") {
			p.unsupported("a call of a group")
		}
	case 'p', 'P':
		if t.kind, t.r = tokChar, r; p.skip("{") {
			t.kind, t.set = tokSet, p.property(r == 'P', false)
		}
	default:
		p.character(r)
	}
	if p.err != nil {
		t.kind = tokEnd
	}
}

// upTo returns what comes before end, and takes both.
func (p *parser) upTo(end byte) string {
	s, _, ok := strings.Cut(p.rest(), string(end))
	if !ok {
		p.fail("want %c", end)
		return ""
	}
	p.pos += len(s) + 1
	return s
}

// number sets the token for \1 and up: a back-reference, or, if there are not
// so many groups yet, a character in octal. first is its first digit.
func (p *parser) number(first rune) {
	n := 0
	digits := p.digits("0123456789", 5)
	n, _ = strconv.Atoi(string(first) + digits)
	if n <= 9 || n <= p.groups {
		p.numbered = true
		p.refer(n)
		return
	}
	p.pos -= len(digits)
	if p.tok.kind, p.tok.r = tokChar, first; first < '8' {
		p.octal(first)
	}
}

// reference sets the token for \k<name>, \k<n>, \k<-n> or \k<+n>.
func (p *parser) reference(name string) {
	n, err := strconv.Atoi(name)
	if err != nil {
		groups, ok := p.names[name]
		switch {
		case strings.ContainsAny(name, "+-"):
			p.unsupported("a back-reference with a level")
		case !ok:
			p.fail("back-reference to %q, which no group before it is named", name)
		default:
			p.refer(groups...)
		}
		return
	}
	switch {
	case name[0] == '+':
		n += p.groups
	case n < 0:
		n += p.groups + 1
	}
	if n <= 0 || n > maxPattern {
		p.fail("back-reference to group %s", name)
		return
	}
	p.numbered = true
	p.refer(n)
}

func (p *parser) refer(groups ...int) {
	p.tok.kind, p.tok.groups = tokBackref, groups
	for _, g := range groups {
		p.top = max(p.top, g)
		for _, o := range p.open {
			if o == g {
				p.unsupported("a back-reference inside its own group")
			}
		}
	}
}

// digits takes up to most characters of the set.
func (p *parser) digits(set string, most int) string {
	s := p.rest()
	n := 0
	for n < most && n < len(s) && strings.IndexByte(set, s[n]) >= 0 {
		n++
	}
	p.pos += n
	return s[:n]
}

const (
	octalDigits = "01234567"
	hexDigits   = "0123456789abcdefABCDEF"
)

// character sets the token for \r as a single character, in brackets and
// outside.
func (p *parser) character(r rune) {
	t := &p.tok
	t.kind, t.r = tokChar, r
	switch r {
	case 'x':
		switch {
		case p.skip("{"):
			p.codePoint(p.upTo('}'), 16)
		default:
			digits := p.digits(hexDigits, 2)
			if digits == "" {
				p.unsupported(`\x without digits`)
			}
			n, _ := strconv.ParseUint(digits, 16, 8)
			t.kind, t.r = tokByte, rune(n)
		}
	case 'o':
		if p.skip("{") {
			p.codePoint(p.upTo('}'), 8)
		}
	case 'u':
		digits := p.digits(hexDigits, 4)
		if len(digits) < 4 {
			p.fail(`\u with %d digits, want 4`, len(digits))
			return
		}
		p.codePoint(digits, 16)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		p.octal(r)
	case 'c':
		if t.kind, t.r = tokCode, p.take(); t.r == '?' {
			t.r = 0x7f
		} else if t.r == '\\' || t.r >= utf8.RuneSelf {
			p.unsupported(`\c of an escape`)
		} else {
			t.r &= 0x9f
		}
	case 'M', 'C':
		p.unsupported(fmt.Sprintf(`\%c`, r))
	default:
		if i := strings.IndexRune("ntrfabev", r); i >= 0 {
			t.kind, t.r = tokCode, rune("\n\t\r\f\a\b\x1b\v"[i])
		}
	}
}

// octal sets the token for \o, \oo or \ooo, of which first is the first digit.
func (p *parser) octal(first rune) {
	digits := string(first) + p.digits(octalDigits, 2)
	n, err := strconv.ParseUint(digits, 8, 8)
	if err != nil {
		p.fail(`\%s, want at most \377`, digits)
		return
	}
	p.tok.kind, p.tok.r = tokByte, rune(n)
}

func (p *parser) codePoint(digits string, base int) {
	n, err := strconv.ParseUint(digits, base, 31)
	if err != nil {
		p.unsupported(fmt.Sprintf("code point %q", digits))
		return
	}
	p.tok.kind, p.tok.r = tokCode, rune(n)
}

// shorthand returns the set of \w \W \d \D \s \S \h \H. In brackets \w is
// [[:word:]], which lacks ¹ ² ³ ¼ ½ ¾.
func (p *parser) shorthand(r rune, inBrackets bool) set {
	name := map[rune]string{'w': "word", 'd': "digit", 's': "space", 'h': "xdigit"}[r|0x20]
	s := p.posix(name)
	if name == "word" && !inBrackets && !p.opt.asciiWord && !p.opt.asciiPOSIX {
		s = bareWord()
	}
	if r < 'a' {
		return s.not()
	}
	return s
}

func bareWord() set {
	return unicodeTables().properties["word"].set.or(setOf('²', '³', '¹', '¼', '½', '¾'))
}

// posix returns the set of a ctype, ASCII only if the options say so.
func (p *parser) posix(name string) set {
	o := p.opt
	s := unicodeTables().properties[name].set
	if o.asciiPOSIX || o.asciiWord && name == "word" || o.asciiDigit && name == "digit" || o.asciiSpace && name == "space" {
		return s.and(ascii)
	}
	return s
}

// property returns the set of \p{…}, of which the opening brace is read.
func (p *parser) property(not, inBrackets bool) set {
	if p.skip("^") {
		not = !not
	}
	name := p.upTo('}')
	plain := strings.ToLower(strings.NewReplacer(" ", "", "-", "", "_", "").Replace(name))
	found, ok := unicodeTables().properties[plain]
	if !ok {
		p.fail(`\p{%s}: no such property`, name)
		return nil
	}
	s := found.set
	switch {
	case found.posix == "word" && !inBrackets:
		s = p.shorthand('w', false)
	case found.posix != "":
		s = p.posix(found.posix)
	}
	if not {
		return s.not()
	}
	return s
}
