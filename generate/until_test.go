package generate

import (
	"strings"
	"testing"
)

// However a text is cut into pieces, what comes out is the text before the first
// stop string, and never a part of it too early.
func TestUntil(t *testing.T) {
	for _, c := range []struct {
		text, want string
		stops      []string
	}{
		{"one two three", "one ", []string{"two"}},
		{"one two three", "one two three", []string{"four"}},
		{"one two three", "one two three", nil},
		{"aaab", "", []string{"aaab"}},
		{"aaaab", "a", []string{"aaab"}},
		{"abcabd!", "abc", []string{"abd"}},
		{"x<|im_end|", "x<|im_end|", []string{"<|im_end|>"}},
		{"both ab and b", "both a", []string{"b and", "ab x"}},
		{"first of two", "fir", []string{"of", "st"}},
		{"naïve 日本", "naïve ", []string{"日"}},
		{"\n\nx", "", []string{"\n\n", "\n"}},
	} {
		for size := 1; size <= len(c.text); size++ {
			u, got, stopped := NewUntil(c.stops), "", false
			for rest := c.text; rest != "" && !stopped; {
				n := min(size, len(rest))
				var sure string
				sure, stopped = u.Add(rest[:n])
				got, rest = got+sure, rest[n:]
				if !strings.HasPrefix(c.want, got) {
					t.Fatalf("%q until %q in pieces of %d: %q, want no more than %q", c.text, c.stops, size, got, c.want)
				}
			}
			if got += u.Rest(); got != c.want || stopped != (c.want != c.text) {
				t.Errorf("%q until %q in pieces of %d: %q, %v, want %q", c.text, c.stops, size, got, stopped, c.want)
			}
		}
	}
}
