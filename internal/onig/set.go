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

// table is a set as it is looked up while matching: a flag for each ASCII
// character and, unless all others are alike, pages of 256 bits, found by
// blocks of 16 pages. Equal pages and equal blocks are shared, since a pattern
// of a few bytes may have a set of all scripts.
type table struct {
	ascii  [utf8.RuneSelf]bool
	rest   bool // of all other code points, where blocks is nil
	top    [(unicode.MaxRune + 1) >> 12]uint16
	blocks [][16]uint16
	pages  [][4]uint64
}

func newTable(s set) *table {
	t := &table{}
	for r := range rune(utf8.RuneSelf) {
		t.ascii[r] = s.has(r)
	}
	switch last := len(s) - 1; {
	case last < 0 || s[last].hi < utf8.RuneSelf:
		return t
	case s[last].lo <= utf8.RuneSelf && s[last].hi == unicode.MaxRune:
		t.rest = true
		return t
	}
	pages, blocks := map[[4]uint64]uint16{}, map[[16]uint16]uint16{}
	for b := range t.top {
		var block [16]uint16
		for p := range block {
			block[p] = indexOf(&t.pages, pages, s.page(rune(b)<<12|rune(p)<<8))
		}
		t.top[b] = indexOf(&t.blocks, blocks, block)
	}
	return t
}

// page returns the bits of the 256 code points from lo on.
func (s set) page(lo rune) (bits [4]uint64) {
	i, _ := slices.BinarySearchFunc(s, lo, func(x span, r rune) int { return cmp.Compare(x.hi, r) })
	for ; i < len(s) && s[i].lo <= lo+255; i++ {
		for r := max(s[i].lo-lo, 0); r <= min(s[i].hi-lo, 255); r++ {
			bits[r>>6] |= 1 << (r & 63)
		}
	}
	return bits
}

// indexOf returns the index of v in list, where known has it, and appends it if
// it is not there.
func indexOf[T comparable](list *[]T, known map[T]uint16, v T) uint16 {
	i, ok := known[v]
	if !ok {
		i = uint16(len(*list))
		known[v] = i
		*list = append(*list, v)
	}
	return i
}

func (t *table) has(r rune) bool {
	if r < utf8.RuneSelf {
		return t.ascii[r]
	}
	if t.blocks == nil {
		return t.rest
	}
	page := &t.pages[t.blocks[t.top[r>>12]][r>>8&15]]
	return page[r>>6&3]>>(r&63)&1 != 0
}
