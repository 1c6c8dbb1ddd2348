package tokenizer

import (
	"slices"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalForm returns the normalizer of a Unicode normal form (UAX #15).
//
// golang.org/x/text has the data and the quick check, but its strings are
// stream-safe: in more than 30 marks in a row it puts U+034F, which Hugging
// Face's normalizers do not. So the algorithm is here.
func normalForm(form norm.Form) normalizer {
	decomposed, compose := norm.NFD, form == norm.NFC || form == norm.NFKC
	if form == norm.NFKC || form == norm.NFKD {
		decomposed = norm.NFKD
	}
	return eachTime(func(s string) string {
		if form.QuickSpanString(s) == len(s) {
			return s
		}
		runes := decompose(s, decomposed)
		if compose {
			runes = recompose(runes)
		}
		return string(runes)
	})
}

// Hangul syllables are composed by rule of a leading consonant, a vowel and
// perhaps a trailing consonant: 19 · 21 · 28, the first of the last for none.
const (
	hangul, hanguls = 0xAC00, 19 * 21 * 28
	leading         = 0x1100
	vowel           = 0x1161
	trailing        = 0x11A7
)

// markedRune is a rune and its canonical combining class.
type markedRune struct {
	r     rune
	class uint8
}

// decompose replaces each rune of s by its full decomposition and puts runs of
// marks in canonical order.
func decompose(s string, form norm.Form) []rune {
	out := make([]rune, 0, len(s))
	var marks []markedRune // since the last starter
	flush := func() {
		slices.SortStableFunc(marks, func(a, b markedRune) int { return int(a.class) - int(b.class) })
		for _, m := range marks {
			out = append(out, m.r)
		}
		marks = marks[:0]
	}
	add := func(r rune) {
		if r < utf8.RuneSelf {
			flush()
			out = append(out, r)
			return
		}
		c := combiningClass(r)
		if c == 0 {
			flush()
			out = append(out, r)
			return
		}
		marks = append(marks, markedRune{r, c})
	}
	for i, r := range s {
		if r < utf8.RuneSelf {
			add(r)
			continue
		}
		if hangul <= r && r < hangul+hanguls {
			n := r - hangul
			add(leading + n/588)
			add(vowel + n%588/28)
			if n%28 != 0 {
				add(trailing + n%28)
			}
			continue
		}
		d := form.PropertiesString(s[i:]).Decomposition()
		if len(d) == 0 || unicode.Is(since9, r) {
			add(r)
			continue
		}
		for _, r := range string(d) {
			add(r)
		}
	}
	flush()
	return out
}

func combiningClass(r rune) uint8 {
	if unicode.Is(since9, r) {
		return 0
	}
	var b [utf8.UTFMax]byte
	return norm.NFD.Properties(b[:utf8.EncodeRune(b[:], r)]).CCC()
}

// recompose joins, in place, each rune to the last starter before it where
// there is a composite and no rune between them blocks.
func recompose(runes []rune) []rune {
	pairs := composites()
	n, starter, last := 0, -1, uint8(0) // last: class of the rune before, since the starter
	for _, r := range runes {
		var c uint8
		if r >= utf8.RuneSelf {
			c = combiningClass(r)
		}
		if starter >= 0 && (starter == n-1 || last != 0 && last < c) {
			if joined, ok := composite(pairs, runes[starter], r); ok {
				runes[starter] = joined
				continue
			}
		}
		if c == 0 {
			starter = n
		}
		last = c
		runes[n] = r
		n++
	}
	return runes[:n]
}

// composite returns the rune that a and b make.
func composite(pairs map[[2]rune]rune, a, b rune) (rune, bool) {
	switch {
	case leading <= a && a < leading+19 && vowel <= b && b < vowel+21:
		return hangul + ((a-leading)*21+b-vowel)*28, true
	case hangul <= a && a < hangul+hanguls && (a-hangul)%28 == 0 && trailing < b && b < trailing+28:
		return a + b - trailing, true
	}
	r, ok := pairs[[2]rune{a, b}]
	return r, ok
}

// composites returns the primary composites but Hangul: from the two runes that
// make one to that.
var composites = sync.OnceValue(func() map[[2]rune]rune {
	pairs := make(map[[2]rune]rune)
	for r := rune(0xC0); r < 0x20000; r++ { // above are only singletons
		d := norm.NFD.PropertiesString(string(r)).Decomposition()
		if len(d) == 0 || unicode.Is(since9, r) || norm.NFC.String(string(d)) != string(r) {
			continue // no decomposition, or excluded from composition
		}
		b, n := utf8.DecodeLastRune(d)
		a, m := utf8.DecodeRuneInString(norm.NFC.String(string(d[:len(d)-n])))
		if m > 0 && b != utf8.RuneError {
			pairs[[2]rune{a, b}] = r
		}
	}
	return pairs
})

var normalForms = map[string]norm.Form{"NFC": norm.NFC, "NFD": norm.NFD, "NFKC": norm.NFKC, "NFKD": norm.NFKD}

// since9 are the runes with a decomposition or a combining class that came
// after Unicode 9.0, which is what Hugging Face's normalizers have: to them,
// these runes are nothing special. Found by comparing every code point with
// tokenizers 0.23.3.
var since9 = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x07FD, 0x07FD, 1}, {0x0898, 0x089F, 1}, {0x08CA, 0x08D3, 1}, {0x09FE, 0x09FE, 1}, {0x0C3C, 0x0C3C, 1},
		{0x0D3B, 0x0D3C, 1}, {0x0EBA, 0x0EBA, 1}, {0x1715, 0x1715, 1}, {0x1ABF, 0x1ACE, 1}, {0x1DF6, 0x1DFA, 1},
		{0x32FF, 0x32FF, 1}, {0xA7F2, 0xA7F4, 1}, {0xA82C, 0xA82C, 1}, {0xAB69, 0xAB69, 1},
	},
	R32: []unicode.Range32{
		{0x10781, 0x10785, 1}, {0x10787, 0x107B0, 1}, {0x107B2, 0x107BA, 1}, {0x10D24, 0x10D27, 1}, {0x10EAB, 0x10EAC, 1},
		{0x10EFD, 0x10EFF, 1}, {0x10F46, 0x10F50, 1}, {0x10F82, 0x10F85, 1}, {0x11070, 0x11070, 1}, {0x1133B, 0x1133B, 1},
		{0x1145E, 0x1145E, 1}, {0x11839, 0x1183A, 1}, {0x11938, 0x11938, 1}, {0x1193D, 0x1193E, 1}, {0x11943, 0x11943, 1},
		{0x119E0, 0x119E0, 1}, {0x11A34, 0x11A34, 1}, {0x11A47, 0x11A47, 1}, {0x11A99, 0x11A99, 1}, {0x11D42, 0x11D42, 1},
		{0x11D44, 0x11D45, 1}, {0x11D97, 0x11D97, 1}, {0x11F41, 0x11F42, 1}, {0x16FF0, 0x16FF1, 1}, {0x1E030, 0x1E06D, 1},
		{0x1E08F, 0x1E08F, 1}, {0x1E130, 0x1E136, 1}, {0x1E2AE, 0x1E2AE, 1}, {0x1E2EC, 0x1E2EF, 1}, {0x1E4EC, 0x1E4EF, 1},
		{0x1F16C, 0x1F16C, 1}, {0x1FBF0, 0x1FBF9, 1},
	},
}
