package tokenizer

import (
	"cmp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// normalizer rewrites text before it is cut into words; first says whether the
// text begins where the input does, and begins whether out does: not where what the
// input began with is gone. What it needs it takes from the budget.
type normalizer func(b *budget, text string, first bool) (out string, begins bool, err error)

// eachTime is a normalizer that rewrites any text in the same way.
func eachTime(f func(string) string) normalizer {
	return func(b *budget, s string, first bool) (string, bool, error) {
		out := f(s)
		return out, first, b.grow(len(out) - len(s))
	}
}

// lowercase is Rust's char::to_lowercase, rune by rune: Go's, but for the one
// letter that becomes two, and letters that Unicode 15.0 does not have.
func lowercase(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x1C89 {
			if r == 'İ' {
				return r
			}
			return unicode.ToLower(r)
		}
		return lowerSince16.ToLower(unicode.ToLower(r))
	}, s)
	return strings.ReplaceAll(s, "İ", "i̇")
}

// lowerSince16 is what Unicode 16.0 and 17.0 added.
var lowerSince16 = unicode.SpecialCase{
	{Lo: 0x1C89, Hi: 0x1C89, Delta: [unicode.MaxCase]rune{0, 1, 0}},
	{Lo: 0xA7CB, Hi: 0xA7CB, Delta: [unicode.MaxCase]rune{0, 0x264 - 0xA7CB, 0}},
	{Lo: 0xA7CC, Hi: 0xA7CC, Delta: [unicode.MaxCase]rune{0, 1, 0}},
	{Lo: 0xA7CE, Hi: 0xA7CE, Delta: [unicode.MaxCase]rune{0, 1, 0}},
	{Lo: 0xA7D2, Hi: 0xA7D2, Delta: [unicode.MaxCase]rune{0, 1, 0}},
	{Lo: 0xA7D4, Hi: 0xA7D4, Delta: [unicode.MaxCase]rune{0, 1, 0}},
	{Lo: 0xA7DA, Hi: 0xA7DA, Delta: [unicode.MaxCase]rune{0, 1, 0}},
	{Lo: 0xA7DC, Hi: 0xA7DC, Delta: [unicode.MaxCase]rune{0, 0x19B - 0xA7DC, 0}},
	{Lo: 0x10D50, Hi: 0x10D65, Delta: [unicode.MaxCase]rune{0, 0x20, 0}},
	{Lo: 0x16EA0, Hi: 0x16EB8, Delta: [unicode.MaxCase]rune{0, 0x1B, 0}},
}

// replaceAll puts content in place of every match. begins is false if nothing is in the
// place of what s began with: content has the place of the last character that it replaces.
func replaceAll(b *budget, s string, m matcher, content string) (out string, begins bool, err error) {
	var text strings.Builder
	var tooLong error
	done, gone := 0, 0 // gone: bytes at the beginning with nothing in their place
	err = m.each(s, b, func(lo, hi int) {
		if tooLong == nil {
			tooLong = b.grow(len(content) - (hi - lo))
		}
		if tooLong != nil {
			return
		}
		if content == "" && lo == gone {
			gone = hi
		} else if lo == 0 {
			_, last := utf8.DecodeLastRuneInString(s[:hi])
			gone = hi - last
		}
		text.WriteString(s[done:lo])
		text.WriteString(content)
		done = hi
	})
	if err = cmp.Or(err, tooLong); err != nil || done == 0 && text.Len() == 0 {
		return s, true, err
	}
	text.WriteString(s[done:])
	return text.String(), gone == 0, nil
}
