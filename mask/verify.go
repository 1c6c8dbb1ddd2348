package mask

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// NonZero returns the mask that keeps the weights of w that are not zero; −0 is
// a zero.
func NonZero(w *tensor.Weight) *Mask {
	m := newMask(w.Rows, w.Cols)
	parallel.For(m.Rows, applyRows, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			w.NonZero(m.row(i), i)
		}
	})
	return m
}

// Without returns the mask that keeps all but what m keeps and o prunes: of two
// masks of one matrix, what o has pruned since m.
func (m *Mask) Without(o *Mask) *Mask {
	m.checkSize("Without", o)
	left := newMask(m.Rows, m.Cols)
	tail := uint64(1)<<(m.Cols%64) - 1 // of a row's last word; 0 if that is full
	for k := range left.bits {
		left.bits[k] = o.bits[k] | ^m.bits[k]
		if k%m.stride == m.stride-1 && tail != 0 {
			left.bits[k] &= tail
		}
	}
	return left
}

// Extra returns the first weight that m keeps and o prunes, and false if there is
// none.
func (m *Mask) Extra(o *Mask) (i, j int, ok bool) {
	m.checkSize("Extra", o)
	for k, word := range m.bits {
		if extra := word &^ o.bits[k]; extra != 0 {
			return k / m.stride, k%m.stride*64 + bits.TrailingZeros64(extra), true
		}
	}
	return 0, 0, false
}

func (m *Mask) checkSize(what string, o *Mask) {
	if m.Rows != o.Rows || m.Cols != o.Cols {
		panic(fmt.Sprintf("mask: %s: masks of %d × %d and %d × %d", what, m.Rows, m.Cols, o.Rows, o.Cols))
	}
}

// Bound says how the number of weights that are pruned of a group compares with
// what a target asks for.
type Bound uint8

// The bounds of Verify. A weight has at least the zeros that a target asks for:
// it may have had others when it was dense.
const (
	Exactly Bound = iota
	AtLeast
	AtMost
)

var boundNames = [...]string{Exactly: "", AtLeast: "at least ", AtMost: "at most "}

func (b Bound) holds(got, want int) bool {
	switch b {
	case AtLeast:
		return got >= want
	case AtMost:
		return got <= want
	}
	return got == want
}

// Verify returns an error that names the first group of which m prunes another
// number of weights than t asks for, within b: a group of N:M in m.Order, a row, or
// the whole matrix.
func (m *Mask) Verify(t pattern.Target, b Bound) error {
	want, err := t.Pruned(m.Rows, m.Cols)
	if err != nil {
		return err
	}
	switch p := t.Pattern; {
	case p.Of != 0:
		if m.Order != nil && !isOrder(m.Order, m.Cols) {
			return fmt.Errorf("the order of the columns is none of %d columns", m.Cols)
		}
		i, k, got := m.findGroup(p, b)
		if i < 0 {
			return nil
		}
		which := fmt.Sprintf("weights [%d, %d] to [%d, %d]", i, k, i, k+p.Of-1)
		if m.Order != nil {
			which = fmt.Sprintf("row %d, columns %v", i, m.Order[k:k+p.Of])
		}
		return fmt.Errorf("%s: %d pruned, want %s%d (pattern %s)", which, got, boundNames[b], p.Of-p.Keep, p)
	case t.Group == pattern.Row:
		for i := range m.Rows {
			if got, want := m.PrunedInRow(i), t.PrunedInRow(i, m.Cols); !b.holds(got, want) {
				return fmt.Errorf("row %d: %d pruned, want %s%d (%s of %d)", i, got, boundNames[b], want, t.Sparsity, m.Cols)
			}
		}
		return nil
	}
	if got := m.Pruned(); !b.holds(got, want) {
		return fmt.Errorf("%d pruned, want %s%d (%s of %d × %d)", got, boundNames[b], want, t.Sparsity, m.Rows, m.Cols)
	}
	return nil
}

func isOrder(order []int, n int) bool {
	seen := make([]bool, n)
	for _, j := range order {
		if j < 0 || j >= n || seen[j] {
			return false
		}
		seen[j] = true
	}
	return len(order) == n
}

// findGroup returns row, position and pruned weights of the first group of p that
// is outside b; row -1 if there is none.
func (m *Mask) findGroup(p pattern.Pattern, b Bound) (row, at, pruned int) {
	type group struct{ row, at, pruned int }
	counter := newGroupCounter(p)
	found := make([]*group, (m.Rows+applyRows-1)/applyRows) // by task: the first is not another's
	parallel.For(m.Rows, applyRows, func(lo, hi int) {
		ordered := make([]uint64, m.stride)
		for i := lo; i < hi; i++ {
			row := m.row(i)
			if m.Order != nil {
				clear(ordered)
				for k, j := range m.Order {
					ordered[k/64] |= row[j/64] >> (j % 64) & 1 << (k % 64)
				}
				row = ordered
			}
			for at := 0; at < m.Cols; at += p.Of {
				if counter != nil && at%64 == 0 && at+64 <= m.Cols && counter.even(row[at/64]) {
					at += 64 - p.Of
					continue
				}
				if pruned := p.Of - countIn(row, at, at+p.Of); !b.holds(pruned, p.Of-p.Keep) {
					found[lo/applyRows] = &group{i, at, pruned}
					return
				}
			}
		}
	})
	for _, g := range found {
		if g != nil {
			return g.row, g.at, g.pruned
		}
	}
	return -1, 0, 0
}

// groupCounter counts the bits of all groups of a word at once, where 64 is a
// multiple of a group's length, which is a power of 2.
type groupCounter struct {
	low  []uint64 // by step of the sum: the lower half of each two neighbours
	want uint64   // the sums if p.Keep are set in each group
}

// newGroupCounter returns a counter for p, nil if there is none.
func newGroupCounter(p pattern.Pattern) *groupCounter {
	if p.Of > 32 || p.Of&(p.Of-1) != 0 {
		return nil
	}
	const all = math.MaxUint64
	c := &groupCounter{want: all / (1<<p.Of - 1) * uint64(p.Keep)}
	for width := 1; width < p.Of; width *= 2 {
		c.low = append(c.low, all/(1<<width+1))
	}
	return c
}

// even reports whether each group of word has exactly as many bits set as it is to
// have, as nearly all do.
func (c *groupCounter) even(word uint64) bool {
	for i, low := range c.low {
		word = word&low + word>>(1<<i)&low
	}
	return word == c.want
}

// countIn returns how many of the bits lo to hi-1 are set.
func countIn(words []uint64, lo, hi int) int {
	n := 0
	for lo < hi {
		bit := lo % 64
		run := min(64-bit, hi-lo)
		n += bits.OnesCount64(words[lo/64] >> bit << (64 - run))
		lo += run
	}
	return n
}

// HoldsNM reports whether every group of p.Of consecutive columns of w has at
// most p.Keep weights that are not zero. It does not where the columns do not
// divide into groups.
func HoldsNM(w *tensor.Weight, p pattern.Pattern) bool { return HoldsNMIn(w, p, nil) }

// HoldsNMIn is HoldsNM for columns in another order: position k holds column
// order[k]; nil: as they are. It does not hold in what is no order of w's columns.
func HoldsNMIn(w *tensor.Weight, p pattern.Pattern, order []int) bool {
	m := NonZero(w)
	m.Order = order
	return p.Of > 0 && m.Verify(pattern.Target{Pattern: p}, AtLeast) == nil
}
