package jinja

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd       tokenKind = iota
	tokenText                // outside of tags
	tokenBlock               // {%
	tokenBlockEnd            // %}
	tokenOutput              // {{
	tokenOutputEnd           // }}
	tokenName
	tokenString
	tokenInt
	tokenFloat
	tokenOp
)

type token struct {
	kind tokenKind
	text string // of a string: its value
	line int
}

func (t token) String() string {
	switch t.kind {
	case tokenEnd:
		return "end of template"
	case tokenText:
		return "text"
	case tokenBlockEnd:
		return "end of block"
	case tokenOutputEnd:
		return "end of expression"
	}
	return strconv.Quote(t.text)
}

// isOp reports whether t is that operator.
func (t token) isOp(op string) bool { return t.kind == tokenOp && t.text == op }

// isName reports whether t is that word.
func (t token) isName(name string) bool { return t.kind == tokenName && t.text == name }

// space is what Python's \s and str.strip take as such, in ASCII.
const space = " \t\n\r\v\f"

var (
	rawEnd   = regexp.MustCompile(`\{%([-+]?)\s*endraw\s*([-+]?)%\}`)
	rawBegin = regexp.MustCompile(`^\{%([-+]?)\s*raw\s*(-?)%\}`)
	nameRE   = regexp.MustCompile(`^[\p{L}\p{Nl}_][\p{L}\p{Nl}\p{Mn}\p{Mc}\p{Nd}\p{Pc}]*`)
	floatRE  = regexp.MustCompile(`^[0-9](?:_?[0-9])*(?:\.[0-9](?:_?[0-9])*(?:[eE][+-]?[0-9](?:_?[0-9])*)?|[eE][+-]?[0-9](?:_?[0-9])*)`)
	intRE    = regexp.MustCompile(`^[0-9](?:_?[0-9])*`)
)

// lexer cuts a template into tokens.
type lexer struct {
	src    string
	pos    int
	line   int
	tokens []token

	// lineStart: what was read last ended a line, so that blanks before a block
	// begin one.
	lineStart bool
}

// lex returns the tokens of a template, the last of which is tokenEnd.
func lex(src string) ([]token, error) {
	src = strings.ReplaceAll(src, "\r\n", "\n")
	src = strings.ReplaceAll(src, "\r", "\n")
	src = strings.TrimSuffix(src, "\n")
	l := &lexer{src: src, line: 1, lineStart: true}
	for l.pos < len(l.src) {
		if err := l.next(); err != nil {
			return nil, fmt.Errorf("line %d: %w", l.line, err)
		}
	}
	l.add(tokenEnd, "")
	return l.tokens, nil
}

func (l *lexer) add(kind tokenKind, text string) {
	l.tokens = append(l.tokens, token{kind, text, l.line})
}

// skip moves on by n bytes.
func (l *lexer) skip(n int) {
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

// sign returns the - or + at byte i, or 0.
func (l *lexer) sign(i int) byte {
	if i < len(l.src) && (l.src[i] == '-' || l.src[i] == '+') {
		return l.src[i]
	}
	return 0
}

// next reads text and the tag after it.
func (l *lexer) next() error {
	rest := l.src[l.pos:]
	at := 0
	for {
		i := strings.IndexByte(rest[at:], '{')
		if i < 0 {
			l.text(rest, 0, false)
			l.skip(len(rest))
			return nil
		}
		at += i
		if at+1 < len(rest) && strings.IndexByte("{%#", rest[at+1]) >= 0 {
			break
		}
		at++
	}
	tag := rest[at+1]
	sign := l.sign(l.pos + at + 2)
	l.text(rest[:at], sign, tag != '{')
	l.skip(at)
	switch {
	case tag == '#':
		end := strings.Index(l.src[l.pos+2:], "#}")
		if end < 0 {
			return fmt.Errorf("comment without #}")
		}
		end += l.pos + 2
		l.skip(end + 2 - l.pos)
		l.afterTag(l.src[end-1], true)
		return nil
	case rawBegin.MatchString(l.src[l.pos:]):
		return l.raw()
	}
	width := 2
	if sign != 0 {
		width = 3
	}
	if tag == '{' && sign == '+' {
		width = 2 // {{+ is a sum
	}
	begin, end, close := tokenBlock, tokenBlockEnd, "%}"
	if tag == '{' {
		begin, end, close = tokenOutput, tokenOutputEnd, "}}"
	}
	l.skip(width)
	l.add(begin, "")
	return l.inside(end, close)
}

// text adds a piece of text that a tag with that sign follows, a block or a comment
// if block.
func (l *lexer) text(s string, sign byte, block bool) {
	switch {
	case sign == '-':
		s = strings.TrimRight(s, space)
	case sign != '+' && block:
		from := strings.LastIndexByte(s, '\n') + 1
		if (from > 0 || l.lineStart) && strings.Trim(s[from:], space) == "" {
			s = s[:from]
		}
	}
	if s != "" {
		l.add(tokenText, s)
	}
}

// afterTag skips what the end of a tag takes away behind it.
func (l *lexer) afterTag(sign byte, block bool) {
	from := l.pos
	rest := l.src[l.pos:]
	switch {
	case sign == '-':
		l.skip(len(rest) - len(strings.TrimLeft(rest, space)))
	case sign != '+' && block && strings.HasPrefix(rest, "\n"):
		l.skip(1)
	}
	l.lineStart = l.pos > from && l.src[l.pos-1] == '\n'
}

// raw reads a raw block.
func (l *lexer) raw() error {
	m := rawBegin.FindStringSubmatch(l.src[l.pos:])
	l.skip(len(m[0]))
	l.afterTag(lastByte(m[2]), true)
	at := rawEnd.FindStringSubmatchIndex(l.src[l.pos:])
	if at == nil {
		return fmt.Errorf("raw without endraw")
	}
	rest := l.src[l.pos:]
	l.text(rest[:at[0]], lastByte(rest[at[2]:at[3]]), true)
	l.skip(at[1])
	l.afterTag(lastByte(rest[at[4]:at[5]]), true)
	return nil
}

func lastByte(s string) byte {
	if s == "" {
		return 0
	}
	return s[len(s)-1]
}

// operators, longest first.
var operators = []string{
	"**", "//", "==", "!=", "<=", ">=",
	"+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ".", ":", ",", "|", ";",
}

// inside reads the tokens of a tag up to close.
func (l *lexer) inside(end tokenKind, close string) error {
	open := "" // brackets
	for {
		rest := l.src[l.pos:]
		l.skip(len(rest) - len(strings.TrimLeft(rest, space)))
		rest = l.src[l.pos:]
		if rest == "" {
			return fmt.Errorf("tag without %s", close)
		}
		if open == "" {
			sign := byte(0)
			if s := l.sign(l.pos); s != 0 && strings.HasPrefix(rest[1:], close) && (s == '-' || end == tokenBlockEnd) {
				sign = s
			}
			if sign != 0 || strings.HasPrefix(rest, close) {
				l.add(end, "")
				n := len(close)
				if sign != 0 {
					n++
				}
				l.skip(n)
				l.afterTag(sign, end == tokenBlockEnd)
				return nil
			}
		}
		switch m := nameRE.FindString(rest); {
		case m != "":
			l.add(tokenName, m)
			l.skip(len(m))
			continue
		case rest[0] == '"' || rest[0] == '\'':
			s, n, err := stringLiteral(rest)
			if err != nil {
				return err
			}
			l.add(tokenString, s)
			l.skip(n)
			continue
		}
		if m := floatRE.FindString(rest); m != "" {
			l.add(tokenFloat, strings.ReplaceAll(m, "_", ""))
			l.skip(len(m))
			continue
		}
		if m := intRE.FindString(rest); m != "" {
			l.add(tokenInt, strings.ReplaceAll(m, "_", ""))
			l.skip(len(m))
			continue
		}
		op := ""
		for _, o := range operators {
			if strings.HasPrefix(rest, o) {
				op = o
				break
			}
		}
		switch op {
		case "":
			r, _ := utf8.DecodeRuneInString(rest)
			return fmt.Errorf("unexpected character %q", r)
		case "(", "[", "{":
			if len(open) >= maxNest {
				return fmt.Errorf("more than %d brackets within each other", maxNest)
			}
			open += op
		case ")", "]", "}":
			want := map[string]byte{")": '(', "]": '[', "}": '{'}[op]
			if lastByte(open) != want {
				return fmt.Errorf("unexpected %q", op)
			}
			open = open[:len(open)-1]
		}
		l.add(tokenOp, op)
		l.skip(len(op))
	}
}

// stringLiteral returns the value of the string that s begins with, and its
// length in s.
func stringLiteral(s string) (value string, n int, err error) {
	quote := s[0]
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == quote:
			return b.String(), i + 1, nil
		case c != '\\':
			b.WriteByte(c)
		default:
			i++
			if i == len(s) {
				return "", 0, fmt.Errorf("string without an end")
			}
			skip, err := escape(&b, s[i:])
			if err != nil {
				return "", 0, err
			}
			i += skip
		}
	}
	return "", 0, fmt.Errorf("string without an end")
}

// escape writes what a backslash and s stand for, and returns how many bytes
// after the first of s it has read.
func escape(b *strings.Builder, s string) (int, error) {
	simple := map[byte]string{
		'n': "\n", 't': "\t", 'r': "\r", '\\': "\\", '\'': "'", '"': `"`,
		'a': "\a", 'b': "\b", 'f': "\f", 'v': "\v", '\n': "",
	}
	if v, ok := simple[s[0]]; ok {
		b.WriteString(v)
		return 0, nil
	}
	if digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[s[0]]; digits > 0 {
		if len(s) > digits {
			if v, err := strconv.ParseUint(s[1:1+digits], 16, 32); err == nil && v <= utf8.MaxRune {
				b.WriteRune(rune(v))
				return digits, nil
			}
		}
		return 0, fmt.Errorf("escape \\%c without %d hexadecimal digits", s[0], digits)
	}
	if s[0] >= '0' && s[0] <= '7' {
		n := 1
		for n < 3 && n < len(s) && s[n] >= '0' && s[n] <= '7' {
			n++
		}
		v, _ := strconv.ParseUint(s[:n], 8, 32)
		b.WriteRune(rune(v))
		return n - 1, nil
	}
	b.WriteByte('\\')
	_, size := utf8.DecodeRuneInString(s)
	b.WriteString(s[:size])
	return size - 1, nil
}
