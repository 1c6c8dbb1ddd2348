package task

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
)

// isSpace is Python's str.isspace: Unicode's white space and the four
// separators of ASCII.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

// strip is Python's str.strip.
func strip(s string) string { return strings.TrimFunc(s, isSpace) }

// characters counts code points.
func characters(s string) int { return utf8.RuneCountInString(s) }

// capitalize is Python's str.capitalize: the first character in title case,
// all others in lower case, by Unicode's full mappings.
func capitalize(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	var b strings.Builder
	b.WriteString(cases.Title(language.Und, cases.NoLower).String(s[:n]))
	for i, r := range s[n:] {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && endsWord(s[:n+i], s[n+i+len("Σ"):]):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// endsWord is Unicode's condition Final_Sigma (section 3.13): a cased letter
// before, none after, whatever is ignorable in between.
func endsWord(before, after string) bool {
	before, after = strings.TrimRightFunc(before, caseIgnorable), strings.TrimLeftFunc(after, caseIgnorable)
	last, _ := utf8.DecodeLastRuneInString(before)
	next, _ := utf8.DecodeRuneInString(after)
	return cased(last) && !cased(next) // the error rune is neither
}

func cased(r rune) bool {
	return unicode.In(r, unicode.Lu, unicode.Ll, unicode.Lt, unicode.Other_Lowercase, unicode.Other_Uppercase)
}

// midWord are the characters of word break classes MidLetter, MidNumLet and
// Single_Quote.
const midWord = "'.:\u00b7\u0387\u055f\u05f4\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a"

func caseIgnorable(r rune) bool {
	return strings.ContainsRune(midWord, r) || unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk)
}
