package onig

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/crepe-llm/crepe/internal/golden"
)

// matches returns what the pattern matches in s, joined by |.
func matches(t *testing.T, pattern, s string) string {
	t.Helper()
	re, err := Compile(pattern)
	if err != nil {
		t.Fatalf("%s: %v", pattern, err)
	}
	var out []string
	steps := 1 << 20
	if err := re.Each(s, &steps, func(lo, hi int) { out = append(out, s[lo:hi]) }); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "|")
}

// By hand, what other engines read in another way. Python's library is the
// judge of all the rest, in package tokenizer.
func TestMatches(t *testing.T) {
	for _, c := range []struct{ pattern, s, want string }{
		{`[a-w&&[^c-g]z]+`, "abcdefghz", "ab|h"},
		{`[a-z-[aeiou]]+`, "a-z", "a-z"},
		{`[a-[bc]]+`, "a-bc", "bc"},
		{`[^\P{L}\P{Lu}]`, "aB1", "B"},
		{`[\w]+`, "a²", "a"},
		{`\w+`, "a²", "a²"},
		{`\pL`, "apL", "pL"},
		{`a{,2}`, "aaa", "aa|a"},
		{`a{2}+`, "aaaaa", "aaaa"},
		{`a{3,1}a`, "aaa", ""},
		{`(?m:.)`, "\n", "\n"},
		{`^b`, "a\nb", "b"},
		{`(?i:ss)`, "ßẞſS", "ß|ẞ|ſS"},
		{`(?i:[^k])`, "kK\u212a", ""},
		{`(?<=a|bc)x`, "axbcxx", "x|x"},
		{`\R`, "\r\n\n", "\r\n|\n"},
		{`a\Kb`, "ab", "b"},
	} {
		if got := matches(t, c.pattern, c.s); got != c.want {
			t.Errorf("%s on %q: %q, want %q", c.pattern, c.s, got, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	for pattern, want := range map[string]string{
		`(?~a)`:                          "at offset 0: an absent operator is not supported",
		`a(?(1)b)`:                       "at offset 1: a conditional is not supported",
		`(?{x})`:                         "a callout is not supported",
		`(*FAIL)`:                        "a callout is not supported",
		`(a)\g<1>`:                       "at offset 3: a call of a group is not supported",
		`\X`:                             `a text segment (\X) is not supported`,
		`(?L)a`:                          "the option L is not supported",
		`(a)(?i)\1`:                      "a back-reference that ignores case is not supported",
		`(?:(a?)\1)*`:                    "an unlimited repeat of what may be empty, with a back-reference",
		`(?<=a(?=b))`:                    "a look-ahead in a look-behind is not supported",
		`\M-a`:                           `\M is not supported`,
		`a**b(`:                          "a group without its closing parenthesis",
		`a)`:                             "at offset 1: a closing parenthesis without a group",
		`*a`:                             "at offset 0: a repeat of nothing",
		`(?=a)*`:                         "a repeat of an anchor or a look-around",
		`[z-a]`:                          "at offset 3: the range from 'z' to 'a' is empty",
		`[a-\d]`:                         "a range ends in a set",
		`[\d-a]`:                         "a range begins with a set",
		`[a`:                             "a bracket expression without its closing bracket",
		`[[:foo:]]`:                      "[:foo:]: no such POSIX bracket",
		`\p{IsHan}`:                      `\p{IsHan}: no such property`,
		`\2(a)`:                          "back-reference to group 2, but there are 1 groups",
		`\`:                              "the pattern ends too early",
		`a{100001}`:                      "repeat of 100001, want at most 100000",
		strings.Repeat("(", 300):         "nesting deeper than 250 is not supported",
		strings.Repeat("a", 1<<16) + "b": "65537 bytes, want at most 65536",
		"\xff":                           "not UTF-8",
	} {
		_, err := Compile(pattern)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100q: error %v, want one with %q", pattern, err, want)
		}
	}
}

// A pattern that takes exponential time is given up, and named.
func TestLimit(t *testing.T) {
	re, err := Compile(`(([a-z ]+)+)+#`)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{strings.Repeat("a", 40), strings.Repeat("a", 1<<20)} {
		steps := 1 << 20
		err = re.Each(s, &steps, func(lo, hi int) { t.Errorf("match at %d", lo) })
		var limit *LimitError
		if !errors.As(err, &limit) || limit.Pattern != re.String() || !strings.Contains(err.Error(), `pattern "(([a-z ]+)+)+#"`) {
			t.Errorf("error %v, want a *LimitError with the pattern", err)
		}
	}
	// After that it matches as ever.
	steps := 1 << 10
	if err := re.Each("ab#", &steps, func(lo, hi int) {}); err != nil {
		t.Error(err)
	}
}

// Sets are what their operations make them, and so are their tables.
func TestSets(t *testing.T) {
	u := unicodeTables().properties
	for _, name := range []string{"l", "n", "han", "lower", "any", "ascii", "cn"} {
		s := u[name].set
		table, inverse := newTable(s), newTable(s.not())
		for r := range rune(unicode.MaxRune + 1) {
			if table.has(r) != s.has(r) || inverse.has(r) == s.has(r) {
				t.Fatalf("%s: table has %x: %v, its inverse %v, the set %v", name, r, table.has(r), inverse.has(r), s.has(r))
			}
		}
	}
	l, han := u["l"].set, u["han"].set
	both := l.and(han)
	for _, r := range "aé中〇1" {
		if both.has(r) != (l.has(r) && han.has(r)) || l.or(han).has(r) != (l.has(r) || han.has(r)) {
			t.Errorf("%q: and %v, or %v", r, both.has(r), l.or(han).has(r))
		}
	}
	if got := fmt.Sprint(set{{5, 9}, {1, 3}, {4, 6}}.normal()); got != "[{1 9}]" {
		t.Errorf("normal: %s", got)
	}
}

// No pattern makes Compile or a match panic, or take more than its limits.
func FuzzCompile(f *testing.F) {
	unicodeTables() // made once, whatever the pattern
	for _, p := range []string{`[a-w&&[^c-g]z]+|(?i:ss|[ß])`, `(?<x>a|b)\k<x>*?(?<=a|bc)(?>x{2,1})+\R`, `(([a-z ]+)+)+#`, `(?x: a # b` + "\n)", `\p{^L}[[:^alpha:]\x{e9}-]{,2}`} {
		f.Add(p, "abc ßSS\r\n中")
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		var re *Regexp
		var err error
		golden.Ceiling(t, uint64(1<<20+6000*len(pattern)), func() { re, err = Compile(pattern) })
		if err != nil {
			return
		}
		steps, last := 1<<16, 0
		err = re.Each(s, &steps, func(lo, hi int) {
			if lo < last || hi < lo || hi > len(s) {
				t.Fatalf("%q on %q: match %d to %d after %d", pattern, s, lo, hi, last)
			}
			last = hi
		})
		if steps < -len(s)-1000 {
			t.Errorf("%q on %q: %d steps more than allowed, %v", pattern, s, -steps, err)
		}
	})
}
