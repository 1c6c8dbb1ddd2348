package onig

import (
	"slices"
	"strings"
	"unicode"
)

// Tokens in brackets; others are as outside.
const (
	tokHyphen tokenKind = iota + 100
	tokAnd
	tokPOSIX
)

// nextInBrackets reads a token inside brackets: regparse.c, fetch_token_cc.
func (p *parser) nextInBrackets() {
	if p.err != nil {
		p.tok.kind = tokEnd
		return
	}
	p.tok = token{at: p.pos}
	t := &p.tok
	if p.pos == len(p.pattern) {
		return
	}
	r := p.take()
	t.kind, t.r = tokChar, r
	switch {
	case r == ']':
		t.kind = tokClose
	case r == '-':
		t.kind = tokHyphen
	case r == '&' && p.skip("&"):
		t.kind = tokAnd
	case r == '[':
		t.kind = tokBracket
		if p.posixBegins() {
			t.kind = tokPOSIX
		}
	case r == '\\':
		p.escapeInBrackets()
	}
}

func (p *parser) escapeInBrackets() {
	t := &p.tok
	switch r := p.take(); r {
	case 'w', 'W', 'd', 'D', 's', 'S', 'h', 'H':
		t.kind, t.set = tokSet, p.shorthand(r, true)
	case 'p', 'P':
		if t.kind, t.r = tokChar, r; p.skip("{") {
			t.kind, t.set = tokSet, p.property(r == 'P', true)
		}
	default:
		p.character(r)
	}
	if p.err != nil {
		t.kind = tokEnd
	}
}

// posixBegins reports whether [: begins a POSIX bracket: letters and :] follow.
func (p *parser) posixBegins() bool {
	s, ok := strings.CutPrefix(p.rest(), ":")
	name, _, end := strings.Cut(s, ":]")
	return ok && end && name != "" && strings.TrimLeftFunc(strings.TrimPrefix(name, "^"), unicode.IsLetter) == ""
}

// posixBracket returns the set of a POSIX bracket, of which [ is read.
func (p *parser) posixBracket() set {
	p.skip(":")
	not := p.skip("^")
	name, _, _ := strings.Cut(p.rest(), ":]")
	p.pos += len(name) + 2
	key := name
	if name == "punct" {
		key = "posixpunct"
	}
	if !slices.Contains(ctypes, key) || name == "posixpunct" {
		p.fail("[:%s:]: no such POSIX bracket", name)
		return nil
	}
	if not {
		return p.posix(key).not()
	}
	return p.posix(key)
}

// classState is where in a bracket expression the parser is.
type classState uint8

const (
	atStart    classState = iota
	atValue               // after a value, which may begin a range
	atRange               // after a value and a hyphen
	atComplete            // after a range or an inner bracket
)

// brackets is a bracket expression in the making.
type brackets struct {
	p      *parser
	set    set // since the last &&, in no order
	limit  int // spans in set at which they are put in order
	and    set // before it
	hasAnd bool
	state  classState
	value  rune // in state atValue and atRange
	isSet  bool // the value is a set, already in set
}

// bracket reads a bracket expression, of which [ is read, and returns its set
// before negation.
//
// regparse.c, prs_cc with cc_char_next and cc_cprop_next: the same states, so
// that a hyphen means here what it means there.
func (p *parser) bracket() (s set, not bool) {
	defer p.enter()()
	b := brackets{p: p}
	p.nextInBrackets()
	if p.tok.kind == tokChar && p.tok.r == '^' && p.pattern[p.tok.at] == '^' {
		not = true
		p.nextInBrackets()
	}
	if p.tok.kind == tokClose {
		if !strings.Contains(p.rest(), "]") {
			p.fail("an empty bracket expression")
		} else {
			p.tok.kind = tokChar // []…] is allowed
		}
	}
	for p.tok.kind != tokClose && p.err == nil {
		b.token()
	}
	b.flush()
	return b.total(), not
}

// token takes the current token in and reads the next.
func (b *brackets) token() {
	p := b.p
	switch t := p.tok; t.kind {
	case tokEnd:
		p.fail("a bracket expression without its closing bracket")
	case tokChar, tokCode:
		b.char(t.r)
		p.nextInBrackets()
	case tokByte:
		b.char(p.bytes(p.nextInBrackets))
	case tokSet:
		b.include(t.set)
		p.nextInBrackets()
	case tokPOSIX:
		b.include(p.posixBracket())
		p.nextInBrackets()
	case tokHyphen:
		b.hyphen()
	case tokBracket:
		b.flush()
		b.state = atComplete
		inner, not := p.bracket()
		if not {
			inner = inner.not()
		}
		b.add(inner...)
		p.nextInBrackets()
	case tokAnd:
		b.flush()
		b.state = atStart
		b.and, b.set, b.hasAnd = b.total(), nil, true
		p.nextInBrackets()
	}
}

// add enters spans.
func (b *brackets) add(spans ...span) {
	b.set = append(b.set, spans...)
	if len(b.set) > b.limit { // properties repeated are one
		b.set = b.set.normal()
		b.limit = 2*len(b.set) + 1<<12
	}
}

// total returns what the brackets hold so far.
func (b *brackets) total() set {
	s := b.set.normal()
	if b.hasAnd {
		return b.and.and(s)
	}
	return s
}

// flush enters a value that began no range.
func (b *brackets) flush() {
	if b.state == atValue && !b.isSet {
		b.add(span{b.value, b.value})
	}
}

// char takes in a character.
func (b *brackets) char(r rune) {
	if r > unicode.MaxRune && b.state != atRange {
		b.p.fail("code point %x, want at most %x", r, unicode.MaxRune)
		return
	}
	switch b.state {
	case atRange:
		if b.value > r {
			b.p.fail("the range from %q to %q is empty", b.value, r)
			return
		}
		b.add(span{b.value, min(r, unicode.MaxRune)})
		b.state = atComplete
	default:
		b.flush()
		b.state = atValue
	}
	b.value, b.isSet = r, false
}

// include takes in a set.
func (b *brackets) include(s set) {
	if b.state == atRange {
		b.p.fail("a range ends in a set")
		return
	}
	b.flush()
	b.add(s...)
	b.state, b.isSet = atValue, true
}

// hyphen takes in a hyphen: the middle of a range, or itself.
func (b *brackets) hyphen() {
	p := b.p
	switch b.state {
	case atStart, atRange:
		b.char('-')
		p.nextInBrackets()
	case atValue:
		at := p.tok.at
		p.nextInBrackets()
		switch {
		case p.tok.kind == tokClose || p.tok.kind == tokAnd:
			b.char('-')
		case b.isSet:
			p.tok.at = at
			p.fail("a range begins with a set")
		default:
			b.state = atRange
		}
	default: // [a-c-e], [[a]-e]
		p.nextInBrackets()
		b.char('-')
	}
}
