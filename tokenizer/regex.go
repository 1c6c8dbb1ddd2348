package tokenizer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

// regex is the fallback for patterns without a scanner: a backtracking engine
// with look-ahead. Possessive quantifiers (a++) are an error. As with every such
// engine a pattern can be written that takes exponential time.
type regex struct{ re *regexp2.Regexp }

// newRegex compiles a pattern in the dialect of Hugging Face's engine
// (Oniguruma), where ^ and $ match at line ends.
func newRegex(pattern string) (*regex, error) {
	re, err := regexp2.Compile(pattern, regexp2.Multiline)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return &regex{re}, nil
}

func (x *regex) each(s string, f func(lo, hi int)) {
	runes := make([]rune, 0, len(s))
	for _, r := range s {
		runes = append(runes, known(r))
	}
	pos, off := 0, 0 // rune and byte offset of the same place
	byteOf := func(i int) int {
		for ; pos < i; pos++ {
			_, n := utf8.DecodeRuneInString(s[off:])
			off += n
		}
		return off
	}
	last := -1 // where the last match ended, in runes
	for from := 0; from <= len(runes); {
		// The error is that of a timeout, and none is set.
		m, err := x.re.FindRunesMatchStartingAt(runes, from)
		if err != nil || m == nil {
			return
		}
		lo, hi := m.Index, m.Index+m.Length
		if lo == hi && lo == last {
			from++ // no empty match right after a match
			continue
		}
		l := byteOf(lo)
		f(l, byteOf(hi))
		last, from = hi, hi
	}
}

// known returns r or, if Go's Unicode tables, which the engine uses, are too old
// to know it, a rune of an out-of-the-way script with the same category.
func known(r rune) rune {
	c := classes()[r] & (letter | number | mark | punct | symbol | upper | lower)
	if r < utf8.RuneSelf || c == 0 || unicode.In(r, unicode.L, unicode.N, unicode.M, unicode.P, unicode.S) {
		return r
	}
	switch {
	case c&number != 0:
		return '𞥐'
	case c&mark != 0:
		return 0x1E944
	case c&punct != 0:
		return '𞥞'
	case c&symbol != 0:
		return '𞲬'
	case c&lower == 0:
		return '𞤀'
	case c&upper == 0:
		return '𞤢'
	}
	return '𖩀'
}

// runPattern is a pattern of the shape \s?[class]+, where the first part may
// be absent and + may be {1,n} or absent: those of DeepSeek, and others.
type runPattern struct {
	space  bool // \s? first
	set    runeSet
	repeat int // at most so many, at least one
}

func (p *runPattern) find(s string, from int) (lo, hi int) {
	for lo = from; lo < len(s); {
		if hi = p.scan(s, lo); hi > lo {
			return lo, hi
		}
		_, n := utf8.DecodeRuneInString(s[lo:])
		lo += n
	}
	return -1, -1
}

func (p *runPattern) scan(s string, i int) int {
	if p.space {
		if k, n := at(classes(), s, i); k&space != 0 {
			if e := p.run(s, i+n); e > i+n {
				return e
			}
		}
	}
	return p.run(s, i)
}

func (p *runPattern) run(s string, i int) int {
	for c := 0; c < p.repeat && i < len(s); c++ {
		r, n := utf8.DecodeRuneInString(s[i:])
		if !p.set.has(r) {
			break
		}
		i += n
	}
	return i
}

// runeSet is a bracket expression: classes and ranges.
type runeSet struct {
	ascii  [utf8.RuneSelf]bool
	class  class
	ranges [][2]rune // inclusive, ascending, disjoint
	not    bool
}

func (s *runeSet) has(r rune) bool {
	if r < utf8.RuneSelf {
		return s.ascii[r]
	}
	return s.holds(r)
}

func (s *runeSet) holds(r rune) bool {
	if classes()[r]&s.class != 0 {
		return !s.not
	}
	_, found := slices.BinarySearchFunc(s.ranges, r, func(p [2]rune, r rune) int {
		switch {
		case p[1] < r:
			return -1
		case p[0] > r:
			return 1
		}
		return 0
	})
	return found != s.not
}

// parseRunPattern recognises runPatterns, and \s+$.
func parseRunPattern(re string) (finder, bool) {
	if re == `\s+$` {
		return trailingSpaces{}, true
	}
	p := &runPattern{repeat: 1}
	re, p.space = strings.CutPrefix(re, `\s?`)
	set, rest, ok := parseSet(re)
	if !ok {
		return nil, false
	}
	switch {
	case rest == "+":
		p.repeat = 1 << 62
	case strings.HasPrefix(rest, "{1,") && strings.HasSuffix(rest, "}"):
		n, err := strconv.ParseUint(rest[3:len(rest)-1], 10, 16)
		if err != nil || n == 0 {
			return nil, false
		}
		p.repeat = int(n)
	case rest != "":
		return nil, false
	}
	p.set = set
	return p, true
}

// parseSet reads one class or bracket expression from the front of re. What is
// not plain (nested brackets, intersections) is left to the engine.
func parseSet(re string) (set runeSet, rest string, ok bool) {
	if c, rest, ok := parseClass(re); ok {
		set.class = c
		set.finish()
		return set, rest, true
	}
	re, ok = strings.CutPrefix(re, "[")
	if !ok {
		return set, "", false
	}
	re, set.not = strings.CutPrefix(re, "^")
	for first := true; ; first = false {
		if rest, ok := strings.CutPrefix(re, "]"); ok {
			if first {
				return set, "", false
			}
			set.finish()
			return set, rest, true
		}
		if c, rest, ok := parseClass(re); ok {
			set.class |= c
			re = rest
			continue
		}
		lo, rest, ok := parseRune(re)
		if !ok {
			return set, "", false
		}
		hi := lo
		if after, ok := strings.CutPrefix(rest, "-"); ok {
			if hi, rest, ok = parseRune(after); !ok || hi < lo {
				return set, "", false
			}
		}
		set.ranges = append(set.ranges, [2]rune{lo, hi})
		re = rest
	}
}

var classNames = map[string]class{
	`\s`: space, `\p{L}`: letter, `\p{N}`: number, `\p{P}`: punct, `\p{S}`: symbol, `\p{M}`: mark,
}

func parseClass(re string) (class, string, bool) {
	for name, c := range classNames {
		if rest, ok := strings.CutPrefix(re, name); ok {
			return c, rest, true
		}
	}
	return 0, "", false
}

// parseRune reads a literal or escaped rune of a bracket expression.
func parseRune(re string) (r rune, rest string, ok bool) {
	r, n := utf8.DecodeRuneInString(re)
	if n == 0 || r == '[' || r == ']' || r == '-' || strings.HasPrefix(re, "&&") {
		return 0, "", false
	}
	if r != '\\' {
		return r, re[n:], true
	}
	if len(re) < 2 {
		return 0, "", false
	}
	switch c := re[1]; {
	case c == 'r':
		r = '\r'
	case c == 'n':
		r = '\n'
	case c == 't':
		r = '\t'
	case c > ' ' && c < utf8.RuneSelf && classes()[c]&(punct|symbol) != 0:
		r = rune(c)
	default:
		return 0, "", false
	}
	return r, re[2:], true
}

// finish sorts and joins the ranges and fills in ascii.
func (s *runeSet) finish() {
	slices.SortFunc(s.ranges, func(a, b [2]rune) int { return int(a[0] - b[0]) })
	joined := s.ranges[:0]
	for _, r := range s.ranges {
		if n := len(joined); n > 0 && r[0] <= joined[n-1][1] {
			joined[n-1][1] = max(joined[n-1][1], r[1])
			continue
		}
		joined = append(joined, r)
	}
	s.ranges = joined
	for r := range rune(utf8.RuneSelf) {
		s.ascii[r] = s.holds(r)
	}
}

// trailingSpaces is \s+$: white space up to the end of the text or, since $ matches
// before a line feed too, up to the last one that is not the first of its run.
type trailingSpaces struct{}

func (trailingSpaces) find(s string, from int) (lo, hi int) {
	t := classes()
	for lo = from; lo < len(s); {
		lo = runNot(t, s, lo, space)
		end := run(t, s, lo, space)
		if end == len(s) && lo < end {
			return lo, end
		}
		if i := strings.LastIndexByte(s[lo:end], '\n'); i > 0 {
			return lo, lo + i
		}
		lo = end
	}
	return -1, -1
}

// scanWords is \w+|[^\w\s]+.
func scanWords(s string, i int) int {
	t := classes()
	switch k, _ := at(t, s, i); {
	case k&word != 0:
		return run(t, s, i, word)
	case k&space != 0:
		return i
	}
	return runNot(t, s, i, word|space)
}
