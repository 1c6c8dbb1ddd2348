package onig

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of a pattern.
const (
	maxPattern = 64 << 10 // bytes; published ones have at most a few thousand
	maxDepth   = 250      // of groups and brackets in one another
	maxRepeat  = 100000   // in an interval; Oniguruma's own
)

// options are those that (?imx…) sets.
type options struct {
	ignoreCase, dotAll, extended                  bool
	asciiWord, asciiDigit, asciiSpace, asciiPOSIX bool
}

// parser reads a pattern as regparse.c does: one token ahead, with the options
// that hold where the token stands. After the first error it sees the end of
// the pattern only.
type parser struct {
	pattern string
	pos     int
	tok     token
	opt     options
	depth   int
	err     error

	groups   int              // capturing groups so far
	open     []int            // those that are not closed
	names    map[string][]int // groups of a name
	numbered bool             // a back-reference is by number
	top      int              // the highest number referred to
}

// tokenKind is what a token is; names are those of regparse.c but for TK_.
type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokChar
	tokByte // \xHH, \ooo
	tokCode // \x{…}, \uHHHH, \n, …
	tokAny
	tokSet
	tokAnchor
	tokOpen
	tokClose
	tokAlt
	tokBracket
	tokRepeat
	tokInterval
	tokBackref
	tokKeep
	tokNewline
)

type token struct {
	kind       tokenKind
	at         int // offset in the pattern
	r          rune
	set        set
	anchor     anchor
	min, max   int
	lazy, poss bool
	groups     []int
}

// parse returns the pattern's tree.
func parse(pattern string) (node, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(pattern), maxPattern)
	}
	if !utf8.ValidString(pattern) {
		return nil, fmt.Errorf("not UTF-8")
	}
	p := &parser{pattern: pattern, names: map[string][]int{}}
	p.next()
	n := p.alternatives(false)
	switch {
	case p.err != nil:
		return nil, p.err
	case p.top > p.groups:
		return nil, fmt.Errorf("back-reference to group %d, but there are %d groups", p.top, p.groups)
	case p.numbered && len(p.names) > 0:
		return nil, fmt.Errorf("back-reference by number beside named groups")
	}
	return n, nil
}

// fail notes the first error, at the current token.
func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("at offset %d: "+format, append([]any{p.tok.at}, args...)...)
	}
	p.pos = len(p.pattern)
	p.tok.kind = tokEnd
}

func (p *parser) unsupported(what string) { p.fail("%s is not supported", what) }

// rest returns what is not read yet.
func (p *parser) rest() string { return p.pattern[p.pos:] }

// peek reports whether s comes next.
func (p *parser) peek(s string) bool { return strings.HasPrefix(p.rest(), s) }

// skip takes s if it comes next.
func (p *parser) skip(s string) bool {
	if !p.peek(s) {
		return false
	}
	p.pos += len(s)
	return true
}

// take returns the next character, or fails at the end.
func (p *parser) take() rune {
	if p.pos == len(p.pattern) {
		p.fail("the pattern ends too early")
		return 0
	}
	r, n := utf8.DecodeRuneInString(p.rest())
	p.pos += n
	return r
}

// enter counts a level of nesting and returns what leaves it.
func (p *parser) enter() func() {
	p.depth++
	if p.depth > maxDepth {
		p.unsupported(fmt.Sprintf("nesting deeper than %d", maxDepth))
	}
	return func() { p.depth-- }
}

// alternatives reads a|b|… up to the end or, with closing, a parenthesis.
func (p *parser) alternatives(closing bool) node {
	defer p.enter()()
	saved := p.opt
	branches := alt{p.branch(closing)}
	for p.tok.kind == tokAlt {
		p.next()
		branches = append(branches, p.branch(closing))
	}
	switch {
	case closing && p.tok.kind == tokEnd:
		p.fail("a group without its closing parenthesis")
	case !closing && p.tok.kind == tokClose:
		p.fail("a closing parenthesis without a group")
	}
	p.opt = saved
	if len(branches) == 1 {
		return branches[0]
	}
	return branches
}

func (p *parser) branch(closing bool) node {
	var parts cat
	for {
		n := p.expression(closing)
		switch n := n.(type) {
		case empty:
		case cat:
			parts = append(parts, n...)
		default:
			parts = append(parts, n)
		}
		if k := p.tok.kind; k == tokEnd || k == tokAlt || k == tokClose {
			break
		}
	}
	switch len(parts) {
	case 0:
		return empty{}
	case 1:
		return parts[0]
	}
	return parts
}

// expression reads one part with its repeats; nothing where a branch ends.
func (p *parser) expression(closing bool) node {
	var n node
	whole := false // a group: a repeat takes all of it, not its last character
	t := p.tok
	switch t.kind {
	case tokEnd, tokAlt, tokClose:
		return empty{}
	case tokOpen:
		var isOption bool
		if n, whole, isOption = p.group(closing); isOption {
			return n
		}
		p.next()
	case tokChar:
		n = p.text()
	case tokByte:
		n = &text{[]rune{p.bytes(p.next)}, p.opt.ignoreCase}
	case tokCode:
		n = &text{[]rune{t.r}, p.opt.ignoreCase}
		p.next()
	case tokRepeat, tokInterval:
		p.fail("a repeat of nothing")
		return empty{}
	default:
		n = p.simple(t)
		p.next()
	}
	return p.repeats(n, whole)
}

// simple returns what a token means by itself.
func (p *parser) simple(t token) node {
	switch t.kind {
	case tokAny:
		if p.opt.dotAll {
			return class{all}
		}
		return class{newline.not()}
	case tokSet:
		return class{t.set}
	case tokAnchor:
		return t.anchor
	case tokBracket:
		s, not := p.bracket()
		switch {
		case p.opt.ignoreCase:
			return foldClass(s, not)
		case not:
			return class{s.not()}
		}
		return class{s}
	case tokBackref:
		if p.opt.ignoreCase {
			p.unsupported("a back-reference that ignores case")
		}
		return &backref{t.groups}
	case tokKeep:
		return keep{}
	case tokNewline: // \R
		return atomic{alt{&text{[]rune("\r\n"), false}, class{set{{'\n', '\r'}, {0x85, 0x85}, {0x2028, 0x2029}}}}}
	}
	panic(fmt.Sprintf("onig: token kind %d", t.kind))
}

// text reads characters that stand for themselves.
func (p *parser) text() node {
	t := &text{fold: p.opt.ignoreCase}
	for p.tok.kind == tokChar {
		t.runes = append(t.runes, p.tok.r)
		p.next()
	}
	return t
}

// bytes reads the character that the token, a byte, and those after it spell
// in UTF-8; next reads a token.
func (p *parser) bytes(next func()) rune {
	at := p.tok.at
	var b []byte
	for p.tok.kind == tokByte && !utf8.FullRune(b) {
		b = append(b, byte(p.tok.r))
		next()
	}
	r, n := utf8.DecodeRune(b)
	if r == utf8.RuneError && string(b) != "\uFFFD" || n < len(b) {
		p.tok.at = at
		p.unsupported(fmt.Sprintf("the byte sequence %x, which is not UTF-8,", b))
	}
	return r
}

// repeats reads the repeats after n.
func (p *parser) repeats(n node, whole bool) node {
	var before cat
	defer func(depth int) { p.depth = depth }(p.depth)
	for p.tok.kind == tokRepeat || p.tok.kind == tokInterval {
		p.enter()
		t := p.tok
		if !repeatable(n) {
			p.fail("a repeat of an anchor or a look-around")
			return n
		}
		if s, ok := n.(*text); ok && !whole && len(s.runes) > 1 {
			last := len(s.runes) - 1
			before = append(before, &text{s.runes[:last], s.fold})
			n = &text{s.runes[last:], s.fold}
		}
		if t.min != 1 || t.max != 1 {
			n = repeat(&quant{n, t.min, t.max, t.lazy})
			if t.poss {
				n = atomic{n}
			}
		}
		whole = false
		p.next()
	}
	if before == nil {
		return n
	}
	return append(before, n)
}

// group reads what follows an opening parenthesis up to the closing one.
// whole: it is (?:…); isOption: it is (?i), which holds to the end of the
// alternatives around it, which are read; closing is theirs.
func (p *parser) group(closing bool) (n node, whole, isOption bool) {
	if p.peek("*") {
		p.unsupported("a callout")
		return empty{}, false, false
	}
	if !p.skip("?") {
		return p.capture(""), false, false
	}
	body := func() node {
		p.next()
		return p.alternatives(true)
	}
	switch c := p.take(); c {
	case ':':
		return body(), true, false
	case '=', '!':
		return &look{body(), false, c == '!'}, false, false
	case '>':
		return atomic{body()}, false, false
	case '\'':
		return p.capture(p.name('\'')), false, false
	case '<':
		switch {
		case p.skip("="):
			return &look{body(), true, false}, false, false
		case p.skip("!"):
			return &look{body(), true, true}, false, false
		}
		return p.capture(p.name('>')), false, false
	case '~':
		p.unsupported("an absent operator")
	case '{':
		p.unsupported("a callout")
	case '(':
		p.unsupported("a conditional")
	case 'C', 'I', 'L':
		p.unsupported(fmt.Sprintf("the option %c", c))
	default:
		return p.options(c, closing)
	}
	return empty{}, false, false
}

// capture reads a capturing group, after its name if it has one.
func (p *parser) capture(name string) node {
	p.groups++
	g := &group{number: p.groups}
	if name != "" {
		p.names[name] = append(p.names[name], g.number)
	}
	p.open = append(p.open, g.number)
	p.next()
	g.body = p.alternatives(true)
	p.open = p.open[:len(p.open)-1]
	return g
}

// name reads a group's name up to end.
func (p *parser) name(end rune) string {
	i := strings.IndexRune(p.rest(), end)
	if i < 0 {
		p.fail("a group name that does not end")
		return ""
	}
	name := p.rest()[:i]
	p.pos += i + utf8.RuneLen(end)
	for i, r := range name {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			p.fail("group name %q, want letters and digits", name)
		}
	}
	if name == "" {
		p.fail("an empty group name")
	}
	return name
}

// options reads (?imx-imx) or (?imx-imx:…), of which c is the first character.
func (p *parser) options(c rune, closing bool) (n node, whole, isOption bool) {
	opt, on := p.opt, true
	for ; c != ':' && c != ')' && p.err == nil; c = p.take() {
		switch c {
		case '-':
			on = false
		case 'i':
			opt.ignoreCase = on
		case 'm':
			opt.dotAll = on
		case 'x':
			opt.extended = on
		case 'W':
			opt.asciiWord = on
		case 'D':
			opt.asciiDigit = on
		case 'S':
			opt.asciiSpace = on
		case 'P':
			opt.asciiPOSIX = on
		default:
			p.unsupported(fmt.Sprintf("the option %c", c))
		}
	}
	saved := p.opt
	p.opt = opt
	p.next()
	n = scoped{p.alternatives(c == ':' || closing)}
	p.opt = saved
	return n, false, c == ')'
}
