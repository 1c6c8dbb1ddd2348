// Package pattern says which share of a matrix's weights goes and which
// weights compete for staying.
//
// A sparsity is the share of weights that is pruned. An N:M pattern counts
// what stays: 2:4 keeps two weights of each four consecutive input columns.
package pattern

import (
	"fmt"
	"strconv"
	"strings"
)

// Pattern is N:M sparsity: of every Of consecutive input columns of a row,
// Keep are kept. The zero value is no pattern.
type Pattern struct{ Keep, Of int }

// MaxOf is the longest group that ParsePattern takes.
const MaxOf = 1024

// ParsePattern parses "2:4". Keep is at least 1 and less than Of.
func ParsePattern(s string) (Pattern, error) {
	bad := func(why string) (Pattern, error) {
		return Pattern{}, fmt.Errorf("pattern %q: %s; want N:M such as 2:4, N of every M weights kept", s, why)
	}
	n, m, ok := strings.Cut(s, ":")
	if !ok {
		return bad("no colon")
	}
	keep, err := parseCount(n)
	if err != nil {
		return bad(err.Error())
	}
	of, err := parseCount(m)
	switch {
	case err != nil:
		return bad(err.Error())
	case of > MaxOf:
		return bad(fmt.Sprintf("M is %d, at most %d", of, MaxOf))
	case keep == 0:
		return bad("N is 0, which keeps nothing")
	case keep >= of:
		return bad("N is not below M, which prunes nothing")
	}
	return Pattern{Keep: keep, Of: of}, nil
}

func parseCount(s string) (int, error) {
	v, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", s)
	}
	return int(v), nil
}

// String returns "2:4", or "" for no pattern.
func (p Pattern) String() string {
	if p == (Pattern{}) {
		return ""
	}
	return fmt.Sprintf("%d:%d", p.Keep, p.Of)
}

// Sparsity returns the share of weights that the pattern prunes: for 2:4 a
// half, for 1:4 three quarters; 0 for no pattern.
func (p Pattern) Sparsity() Sparsity {
	if p.Of == 0 {
		return Sparsity{}
	}
	return newSparsity(uint64(p.Of-p.Keep), uint64(p.Of))
}

// Group is the set of weights that compete with each other.
type Group uint8

// The groups of unstructured sparsity.
const (
	Matrix Group = iota // all weights of a Linear
	Row                 // the weights of one output feature
)

var groupNames = [...]string{Matrix: "matrix", Row: "row"}

// ParseGroup parses "matrix" or "row".
func ParseGroup(s string) (Group, error) {
	for g, name := range groupNames {
		if s == name {
			return Group(g), nil
		}
	}
	return 0, fmt.Errorf("group %q, want %s", s, strings.Join(groupNames[:], " or "))
}

// String returns the name that ParseGroup takes.
func (g Group) String() string {
	if int(g) >= len(groupNames) {
		return fmt.Sprintf("Group(%d)", uint8(g))
	}
	return groupNames[g]
}

// Target is what is to be pruned of one Linear: N:M if Pattern is set, else
// the share Sparsity of each Group.
type Target struct {
	Sparsity Sparsity
	Group    Group
	Pattern  Pattern

	// Level lets rows differ by one weight, so that the whole of a Row target
	// is that of a Matrix target.
	Level bool
}

// PrunedInRow returns how many weights of row i of a Row target go: ⌊cols·s⌋,
// or, to level, ⌊(i+1)·cols·s⌋ − ⌊i·cols·s⌋.
func (t Target) PrunedInRow(i, cols int) int {
	if t.Level {
		return t.Sparsity.CountOf((i+1)*cols) - t.Sparsity.CountOf(i*cols)
	}
	return t.Sparsity.CountOf(cols)
}

// Pruned returns exactly how many weights of a rows × cols matrix go:
//
//	N:M     rows · cols/M · (M−N)
//	Row     rows · ⌊cols·s⌋
//	Matrix  ⌊rows·cols·s⌋, and a Row target that is to be level
//
// It is an error if M does not divide cols.
func (t Target) Pruned(rows, cols int) (int, error) {
	switch p := t.Pattern; {
	case p.Of != 0:
		if cols%p.Of != 0 {
			return 0, fmt.Errorf("%d columns, want a multiple of %d for pattern %s", cols, p.Of, p)
		}
		return rows * (cols / p.Of) * (p.Of - p.Keep), nil
	case t.Group == Row && !t.Level:
		return rows * t.Sparsity.CountOf(cols), nil
	}
	return t.Sparsity.CountOf(rows * cols), nil
}
