package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds the nesting of values that are skipped; safetensors headers
// need 3, an index 2.
const maxDepth = 32

// A scanner reads one JSON text from memory, piece by piece, in the order it
// is written. encoding/json would do, but for two things that a hostile header
// can use: it keeps the last of two equal keys, and it replaces broken strings
// by others. A scanner leaves both to be seen, and takes no memory that the
// text does not pay for.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) errorf(format string, args ...any) error {
	return fmt.Errorf("byte %d: %s", s.pos, fmt.Sprintf(format, args...))
}

// space skips white space.
func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos == len(s.data) {
		return 0
	}
	return s.data[s.pos]
}

// found says what lies at the current position, for errors.
func (s *scanner) found() string {
	if s.pos >= len(s.data) {
		return "the end"
	}
	return strconv.QuoteRune(rune(s.data[s.pos]))
}

// expect consumes c.
func (s *scanner) expect(c byte, where string) error {
	if s.peek() != c {
		return s.errorf("%s, want %q %s", s.found(), c, where)
	}
	s.pos++
	return nil
}

// end checks that only white space is left.
func (s *scanner) end() error {
	if s.space(); s.pos != len(s.data) {
		return s.errorf("%s after the end of the object", s.found())
	}
	return nil
}

// list calls item for each element between open and close.
func (s *scanner) list(open, close byte, where string, item func() error) error {
	if err := s.expect(open, where); err != nil {
		return err
	}
	if s.peek() == close {
		s.pos++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		if s.peek() == ',' {
			s.pos++
			continue
		}
		return s.expect(close, "or ',' in "+where)
	}
}

// object calls member for each member of an object; member consumes the value.
// Equal keys are the caller's to find.
func (s *scanner) object(where string, member func(key string) error) error {
	return s.list('{', '}', where, func() error {
		key, err := s.str(where)
		if err != nil {
			return err
		}
		if err := s.expect(':', "after a key"); err != nil {
			return err
		}
		return member(key)
	})
}

// array calls element for each element of an array; element consumes it.
func (s *scanner) array(where string, element func() error) error {
	return s.list('[', ']', where, element)
}

// uint reads an integer of 0 to 2⁶³−1 written without sign, point or exponent.
func (s *scanner) uint(where string) (int64, error) {
	s.space()
	start := s.pos
	var v int64
	for ; s.pos < len(s.data); s.pos++ {
		c := s.data[s.pos]
		if c < '0' || c > '9' {
			break
		}
		d := int64(c - '0')
		if v > (math.MaxInt64-d)/10 {
			return 0, s.errorf("%s: a number beyond 2⁶³−1", where)
		}
		v = v*10 + d
	}
	switch n := s.pos - start; {
	case n == 0:
		return 0, s.errorf("%s, want a whole number ≥ 0 as %s", s.found(), where)
	case n > 1 && s.data[start] == '0':
		return 0, s.errorf("%s: a number with a leading zero", where)
	}
	if s.pos < len(s.data) {
		switch s.data[s.pos] {
		case '.', 'e', 'E':
			return 0, s.errorf("%s: not a whole number", where)
		}
	}
	return v, nil
}

// null consumes the word null.
func (s *scanner) null(where string) error {
	const word = "null"
	if !bytes.HasPrefix(s.data[s.pos:], []byte(word)) {
		return s.errorf("%s, want an object or null as %s", s.found(), where)
	}
	s.pos += len(word)
	return nil
}

// str reads a string.
func (s *scanner) str(where string) (string, error) {
	if err := s.expect('"', "to begin a string of "+where); err != nil {
		return "", err
	}
	start := s.pos
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			out := string(s.data[start:s.pos])
			s.pos++
			if !utf8.ValidString(out) {
				return "", s.errorf("%s: a string that is not UTF-8", where)
			}
			return out, nil
		case c == '\\':
			return s.escaped(start, where)
		case c < ' ':
			return "", s.errorf("%s: control character %#02x in a string", where, c)
		}
		s.pos++
	}
	return "", s.errorf("%s: a string without end", where)
}

// escaped goes on reading a string, begun at start, from its first backslash.
func (s *scanner) escaped(start int, where string) (string, error) {
	out := append([]byte(nil), s.data[start:s.pos]...)
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		s.pos++
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return "", s.errorf("%s: a string that is not UTF-8", where)
			}
			return string(out), nil
		case c == '\\':
			r, err := s.escape()
			if err != nil {
				return "", s.errorf("%s: %v", where, err)
			}
			out = utf8.AppendRune(out, r)
		case c < ' ':
			return "", s.errorf("%s: control character %#02x in a string", where, c)
		default:
			out = append(out, c)
		}
	}
	return "", s.errorf("%s: a string without end", where)
}

var shortEscapes = map[byte]rune{
	'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t',
}

// escape reads what follows a backslash. A surrogate must come as a pair.
func (s *scanner) escape() (rune, error) {
	if s.pos == len(s.data) {
		return 0, errors.New("a string without end")
	}
	c := s.data[s.pos]
	s.pos++
	if r, ok := shortEscapes[c]; ok {
		return r, nil
	}
	if c != 'u' {
		return 0, fmt.Errorf("unknown escape %q", c)
	}
	r, err := s.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if s.pos+1 < len(s.data) && s.data[s.pos] == '\\' && s.data[s.pos+1] == 'u' {
		s.pos += 2
		low, err := s.hex4()
		if err != nil {
			return 0, err
		}
		if both := utf16.DecodeRune(r, low); both != utf8.RuneError {
			return both, nil
		}
	}
	return 0, fmt.Errorf("half a surrogate pair \\u%04x", r)
}

func (s *scanner) hex4() (rune, error) {
	if len(s.data)-s.pos < 4 {
		return 0, errors.New("a \\u escape without four digits")
	}
	v, err := strconv.ParseUint(string(s.data[s.pos:s.pos+4]), 16, 16)
	if err != nil {
		return 0, fmt.Errorf("a \\u escape with digits %q", s.data[s.pos:s.pos+4])
	}
	s.pos += 4
	return rune(v), nil
}

// raw consumes any value and returns its text.
func (s *scanner) raw(where string) ([]byte, error) {
	s.space()
	start := s.pos
	if err := s.skip(where, 0); err != nil {
		return nil, err
	}
	return s.data[start:s.pos], nil
}

func (s *scanner) skip(where string, depth int) error {
	if depth > maxDepth {
		return s.errorf("%s: nested deeper than %d", where, maxDepth)
	}
	switch c := s.peek(); c {
	case '{':
		return s.object(where, func(string) error { return s.skip(where, depth+1) })
	case '[':
		return s.array(where, func() error { return s.skip(where, depth+1) })
	case '"':
		_, err := s.str(where)
		return err
	}
	// A number or a name: its grammar does not matter to what is skipped.
	start := s.pos
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '+', c == '-', c == '.':
			s.pos++
			continue
		}
		break
	}
	if s.pos == start {
		return s.errorf("%s, want a value in %s", s.found(), where)
	}
	return nil
}

// appendString appends v as serde_json writes a string, which is how
// safetensors files are written: everything but quote, backslash and control
// characters as it is.
func appendString(dst []byte, v string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(v) {
		switch c := v[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			if c < ' ' {
				dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			} else {
				dst = append(dst, c)
			}
		}
	}
	return append(dst, '"')
}
