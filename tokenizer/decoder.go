package tokenizer

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder turns tokens into pieces of text; joined they are the text. What it
// needs it takes from the budget.
type decoder func(b *budget, tokens []string) ([]string, error)

// always is a decoder that cannot fail, since it makes nothing much longer.
func always(f func([]string) []string) decoder {
	return func(_ *budget, tokens []string) ([]string, error) { return f(tokens), nil }
}

func eachToken(f func(*budget, string) (string, error)) decoder {
	return func(b *budget, tokens []string) ([]string, error) {
		var err error
		for i, t := range tokens {
			if tokens[i], err = f(b, t); err != nil {
				return tokens, err
			}
		}
		return tokens, nil
	}
}

func fuse(tokens []string) []string { return []string{strings.Join(tokens, "")} }

// decodeBytes is ByteLevel: stand-ins back to bytes, joined; a token with a rune
// that stands for no byte is taken as it is.
func decodeBytes(tokens []string) []string {
	var b strings.Builder
	for _, t := range tokens {
		if s, ok := fromStandIns(t); ok {
			t = s
		}
		b.WriteString(t)
	}
	return []string{lossy(b.String())}
}

// lossy replaces what is not UTF-8 as Rust's from_utf8_lossy does: one U+FFFD
// for each longest beginning of a rune that goes wrong, not for each byte.
func lossy(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			n = brokenRune(s)
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// brokenRune returns how many bytes of s, which does not begin with a rune,
// could still have been the beginning of one: at least 1.
func brokenRune(s string) int {
	// A beginning is one that some continuation completes; the bytes 80 and BF
	// are the extremes of what may continue.
	for n := min(3, len(s)); n > 1; n-- {
		for _, c := range []string{"\x80\x80\x80", "\xBF\xBF\xBF"} {
			if r, m := utf8.DecodeRuneInString(s[:n] + c); r != utf8.RuneError && m > n {
				return n
			}
		}
	}
	return 1
}

// decodeByteFallback turns runs of tokens <0x00>…<0xFF> into the text that their
// bytes are, or into one U+FFFD each if that is not UTF-8.
func decodeByteFallback(tokens []string) []string {
	var out []string
	var run []byte
	flush := func() {
		if utf8.Valid(run) {
			if len(run) > 0 {
				out = append(out, string(run))
			}
		} else {
			for range run {
				out = append(out, "\uFFFD")
			}
		}
		run = run[:0]
	}
	for _, t := range tokens {
		if b, ok := byteToken(t); ok {
			run = append(run, b)
			continue
		}
		flush()
		out = append(out, t)
	}
	flush()
	return out
}

func byteToken(t string) (byte, bool) {
	if len(t) != 6 || !strings.HasPrefix(t, "<0x") || t[5] != '>' {
		return 0, false
	}
	b, err := strconv.ParseUint(t[3:5], 16, 8)
	return byte(b), err == nil
}

// stripToken removes up to start runes content from the front of a token and up
// to stop from its end.
func stripToken(content string, start, stop int) func(*budget, string) (string, error) {
	return func(_ *budget, t string) (string, error) {
		for n := 0; n < start && strings.HasPrefix(t, content); n++ {
			t = t[len(content):]
		}
		for n := 0; n < stop && strings.HasSuffix(t, content); n++ {
			t = t[:len(t)-len(content)]
		}
		return t, nil
	}
}

// decodeMetaspace writes replacement as a space; with strip the first token's
// are dropped, since the pre-tokenizer put one there.
func decodeMetaspace(replacement string, strip bool) decoder {
	return always(func(tokens []string) []string {
		for i, t := range tokens {
			space := " "
			if i == 0 && strip {
				space = ""
			}
			tokens[i] = strings.ReplaceAll(t, replacement, space)
		}
		return tokens
	})
}
