package onig

import (
	"cmp"
	"slices"
	"unicode"
	"unicode/utf8"
)

// span is the code points lo to hi, both included.
type span struct{ lo, hi rune }

// set is a set of code points: spans in ascending order that neither overlap
// nor touch.
type set []span

var (
	all     = set{{0, unicode.MaxRune}}
	newline = set{{'\n', '\n'}}
	ascii   = set{{0, unicode.MaxASCII}}
)

// setOf returns the set of the runes.
func setOf(runes ...rune) set {
	var s set
	for _, r := range runes {
		s = append(s, span{r, r})
	}
	return s.normal()
}

// normal sorts and joins the spans of s in place.
func (s set) normal() set {
	slices.SortFunc(s, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	joined := s[:0]
	for _, x := range s {
		if n := len(joined); n > 0 && x.lo <= joined[n-1].hi+1 {
			joined[n-1].hi = max(joined[n-1].hi, x.hi)
			continue
		}
		joined = append(joined, x)
	}
	return joined
}

func (s set) or(t set) set {
	if len(s) == 0 {
		return t
	}
	return slices.Concat(s, t).normal()
}

func (s set) not() set {
	var out set
	next := rune(0)
	for _, x := range s {
		if next < x.lo {
			out = append(out, span{next, x.lo - 1})
		}
		next = x.hi + 1
	}
	if next <= unicode.MaxRune {
		out = append(out, span{next, unicode.MaxRune})
	}
	return out
}

func (s set) and(t set) set { return s.not().or(t.not()).not() }

func (s set) has(r rune) bool {
	_, found := slices.BinarySearchFunc(s, r, func(x span, r rune) int {
		switch {
		case x.hi < r:
			return -1
		case x.lo > r:
			return 1
		}
		return 0
	})
	return found
}

// table is a set as it is looked up while matching: a bit for each ASCII
// character, and pages of 256 bits for the others unless they are all alike.
type table struct {
	ascii [utf8.RuneSelf]bool
	rest  bool // of all other code points, where pages is nil
	pages []uint16
	bits  [][4]uint64 // by page; equal pages are shared
}

func newTable(s set) *table {
	t := &table{}
	for r := range rune(utf8.RuneSelf) {
		t.ascii[r] = s.has(r)
	}
	rest := s.and(ascii.not())
	if len(rest) == 0 || slices.Equal(rest, ascii.not()) {
		t.rest = len(rest) > 0
		return t
	}
	t.pages = make([]uint16, (unicode.MaxRune+1)>>8)
	known := map[[4]uint64]uint16{}
	for p := range t.pages {
		var page [4]uint64
		lo := rune(p) << 8
		i, _ := slices.BinarySearchFunc(s, lo, func(x span, r rune) int { return cmp.Compare(x.hi, r) })
		for ; i < len(s) && s[i].lo <= lo+255; i++ {
			for r := max(s[i].lo, lo) - lo; r <= min(s[i].hi, lo+255)-lo; r++ {
				page[r>>6] |= 1 << (r & 63)
			}
		}
		at, ok := known[page]
		if !ok {
			at = uint16(len(t.bits))
			known[page] = at
			t.bits = append(t.bits, page)
		}
		t.pages[p] = at
	}
	return t
}

func (t *table) has(r rune) bool {
	if r < utf8.RuneSelf {
		return t.ascii[r]
	}
	if t.pages == nil {
		return t.rest
	}
	return t.bits[t.pages[r>>8]][r>>6&3]>>(r&63)&1 != 0
}
