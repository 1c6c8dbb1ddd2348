package main

import (
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/rivo/uniseg"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{" the quick brown fox ", []string{"the quick", "brown fox"}},
		{"a\n\nb", []string{"a", "", "b"}},
		{"abcdefghijklmnop q", []string{"abcdefghij", "klmnop q"}},
		{"日本語の文です", []string{"日本語の文", "です"}},
		{"ten chars. next", []string{"ten chars.", "next"}},
		{"\x1b[31mred", []string{"\uFFFD[31mred"}},
		{"", nil},
	} {
		if got := wrap(c.text, 10); !slices.Equal(got, c.want) {
			t.Errorf("wrap(%q) = %q, want %q", c.text, got, c.want)
		}
	}
	if got := cut("/a/long/way/to/a/model", 10); uniseg.StringWidth(got) > 10 || !strings.HasSuffix(got, "/a/model") {
		t.Errorf("cut: %q, want its end in 10 cells", got)
	}
}

// FuzzWrap keeps every line within the width and all of the text but white space.
func FuzzWrap(f *testing.F) {
	f.Add("a b\tc  日本\n🙂 e\u0301xx", 3)
	f.Add("x\r\ny\u2028z", 2)
	f.Fuzz(func(t *testing.T, text string, cells int) {
		cells = 2 + (cells&0xff)%60 // a character takes 2 at most
		lines := wrap(text, cells)
		for _, l := range lines {
			if w := uniseg.StringWidth(l); w > cells && uniseg.GraphemeClusterCount(l) > 1 {
				t.Errorf("line %q is %d cells wide, want at most %d", l, w, cells)
			}
		}
		dense := func(s string) string {
			return strings.Map(func(r rune) rune {
				if unicode.IsSpace(r) {
					return -1
				}
				return r
			}, s)
		}
		if got, want := dense(strings.Join(lines, "")), dense(printable(text)); got != want {
			t.Errorf("lines have %q, want %q", got, want)
		}
	})
}

func TestShowBesideOnANarrowPage(t *testing.T) {
	same := 1
	rep := generateReport{Prompt: "p", Compute: "f32", Same: &same,
		continuation: continuation{Model: "one", Text: "a b", IDs: []int32{1, 2}},
		Against:      &continuation{Model: "two", Text: "a c d", IDs: []int32{1, 3, 4}}}
	var out strings.Builder
	if err := showBeside(&out, 40, rep); err != nil {
		t.Fatal(err)
	}
	if want := "p\n\none:\na b\n\ntwo:\na c d\n\n\n(the first 1 tokens are the same; 2 and 3 in all, f32)\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
