package onig

import "math"

// node is a part of a pattern:
//
//	empty    nothing
//	*text    characters, perhaps whatever their case
//	class    one character of a set
//	cat      one after the other
//	alt      the first that fits
//	*quant   min to max times, unlimited if max < 0
//	scoped   a part with options of its own
//	*group   a capturing group
//	atomic   a part that is not entered again
//	*look    a look-ahead or look-behind
//	anchor   a place
//	*backref what a group has matched
//	keep     \K: the match begins here
type node interface{}

type (
	empty struct{}
	text  struct {
		runes []rune
		fold  bool
	}
	class struct{ set set }
	cat   []node
	alt   []node
	quant struct {
		body     node
		min, max int
		lazy     bool
	}
	scoped struct{ body node }
	group  struct {
		body   node
		number int
	}
	atomic struct{ body node }
	look   struct {
		body        node
		behind, not bool
	}
	anchor  uint8
	backref struct{ groups []int } // of one name, in order
	keep    struct{}
)

const (
	lineBegin anchor = iota
	lineEnd
	textBegin
	textEnd
	lastLineEnd // \Z
	searchBegin // \G
	wordBorder
	noWordBorder
	asciiWordBorder
	noASCIIWordBorder
)

const unlimited = -1

// children returns the parts of n.
func children(n node) []node {
	switch n := n.(type) {
	case cat:
		return n
	case alt:
		return n
	case *quant:
		return []node{n.body}
	case scoped:
		return []node{n.body}
	case *group:
		return []node{n.body}
	case atomic:
		return []node{n.body}
	case *look:
		return []node{n.body}
	}
	return nil
}

// anyNode reports whether f holds for n or a part of it.
func anyNode(n node, f func(node) bool) bool {
	if f(n) {
		return true
	}
	for _, c := range children(n) {
		if anyNode(c, f) {
			return true
		}
	}
	return false
}

// length returns the least and the most characters that n matches; most < 0:
// unlimited. Back-references may be of any length.
func length(n node) (least, most int) {
	switch n := n.(type) {
	case class:
		return 1, 1
	case *text:
		return len(n.runes), len(n.runes)
	case cat:
		for _, c := range n {
			lo, hi := length(c)
			least, most = plus(least, lo), plus(most, hi)
		}
		return least, most
	case alt:
		least, most = length(n[0])
		for _, c := range n[1:] {
			lo, hi := length(c)
			least = min(least, lo)
			if most = max(most, hi); most < 0 || hi < 0 {
				most = unlimited
			}
		}
		return least, most
	case *quant:
		lo, hi := length(n.body)
		return times(lo, n.min), times(hi, n.max)
	case scoped:
		return length(n.body)
	case *group:
		return length(n.body)
	case atomic:
		return length(n.body)
	case *backref:
		return 0, unlimited
	}
	return 0, 0
}

// plus and times count characters; unlimited stays so, and so does what is too
// much to count.
func plus(a, b int) int {
	if a < 0 || b < 0 || a > math.MaxInt32 {
		return unlimited
	}
	return a + b
}

func times(a, b int) int {
	switch {
	case a == 0 || b == 0:
		return 0
	case a < 0 || b < 0 || a > math.MaxInt32/b:
		return unlimited
	}
	return a * b
}
