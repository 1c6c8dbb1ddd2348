package tokenizer

import (
	"cmp"
	"strings"
	"unicode"
)

// normalizer rewrites text before it is cut into words; first says whether the
// text begins where the input does. What it needs it takes from the budget.
type normalizer func(b *budget, text string, first bool) (string, error)

// eachTime is a normalizer that rewrites any text in the same way.
func eachTime(f func(string) string) normalizer {
	return func(b *budget, s string, _ bool) (string, error) {
		out := f(s)
		return out, b.grow(len(out) - len(s))
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

// replaceAll puts content in place of every match.
func replaceAll(b *budget, s string, m matcher, content string) (string, error) {
	var out strings.Builder
	var tooLong error
	done := 0
	err := m.each(s, b, func(lo, hi int) {
		if tooLong == nil {
			tooLong = b.grow(len(content) - (hi - lo))
		}
		if tooLong != nil {
			return
		}
		out.WriteString(s[done:lo])
		out.WriteString(content)
		done = hi
	})
	if err = cmp.Or(err, tooLong); err != nil || done == 0 && out.Len() == 0 {
		return s, err
	}
	out.WriteString(s[done:])
	return out.String(), nil
}
