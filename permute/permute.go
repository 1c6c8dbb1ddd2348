// Package permute puts the columns of a Linear in an order in which N:M keeps
// more of what the scores call important: columns that are all important no
// longer share a group. In memory weights stay where they are; the order goes
// with the output, so that a runtime may store the columns in it, true N:M, and
// permute the Linear's input.
//
// The letters of all files here:
//
//	S      out × in scores of any method, at least 0
//	N:M    of every M consecutive positions N are kept
//	g, c   a group of M positions and a slot in it: position g·M + c
//	order  position k holds column order[k]
//
// The retained score is the sum of what is kept: Σ over rows and groups of the
// N largest of M scores.
package permute

import (
	"fmt"
	"slices"

	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/internal/registry"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
)

// Method is a way to find an order.
type Method struct {
	Name   string
	Doc    string       // what it does, in a line
	Cite   string       // its source
	Params []param.Spec // the parameters it reads

	improve func(l *layout, blocks int) // after CP; may be nil
}

// methods are all methods, the simplest first.
var methods = registry.New("permutation", func(m Method) string { return m.Name },
	CP,
	LSA,
)

// Methods returns all methods, the simplest first.
func Methods() []Method { return methods.All() }

// Names returns the names of all methods, in their order.
func Names() []string { return methods.Names() }

// Lookup returns the method called want.
func Lookup(want string) (Method, error) { return methods.Lookup(want) }

// CP deals the columns to the slots by their sums.
var CP = Method{
	Name: "cp",
	Doc:  "deals the columns, in ascending order of their sums, to the slots of N:M's groups",
	Cite: "Zhang et al. 2024, Plug-and-Play, ICLR",
}

// LSA is CP and then, slot by slot, the best assignment of columns to groups.
var LSA = Method{
	Name:    "lsa",
	Doc:     "then assigns columns to groups, slot by slot, by an exact linear assignment",
	Cite:    "Zhang et al. 2024, Plug-and-Play, ICLR",
	Params:  []param.Spec{{Name: "lsa_fast", Doc: "assign within 4 to 16 blocks of columns, each by itself, which is faster", Default: false}},
	improve: assignSlots,
}

// Place is where in a block a Linear is.
type Place int

const (
	Attention      Place = iota
	FeedForward          // where a feed-forward network begins
	FeedForwardOut       // where it ends
)

// Blocks returns in how many blocks of columns m with parameters p looks for the
// order of a Linear: 1, or in LSA's fast form 4, 8 or 16, as in the source.
func (m Method) Blocks(p param.Values, at Place) int {
	if _, ok := param.Declared(m.Params, "lsa_fast"); !ok || !p.On("lsa_fast") {
		return 1
	}
	return [...]int{Attention: 4, FeedForward: 8, FeedForwardOut: 16}[at]
}

// Result is an order and what it is worth.
type Result struct {
	Order  []int   // nil: the columns as they are, which keep no less
	Before float64 // retained score of the columns as they are
	After  float64 // and of the order
}

// Bytes returns what Find holds for a rows × cols Linear.
func Bytes(rows, cols int, p pattern.Pattern) int64 {
	l := shape(rows, cols, p)
	slot := int64(l.stride) * int64(l.groups+padding)
	return 4*slot*int64(p.Of+1) + 8*int64(l.groups)*int64(l.groups)
}

// Find looks for an order of the columns of the row-major scores. LSA does so
// in so many blocks of consecutive groups, each by itself: 1, or more to be
// faster. An order that keeps less than the columns as they are is given up.
//
// Scores must be finite and at least 0; p.Of divides cols. Retained scores and
// the columns' sums are float64. The result does not depend on GOMAXPROCS.
func (m Method) Find(scores []float32, rows, cols int, p pattern.Pattern, blocks int) Result {
	if len(scores) != rows*cols || p.Of < 2 || cols%p.Of != 0 || blocks < 1 {
		panic(fmt.Sprintf("permute: Find: %d scores of %d × %d for %s in %d blocks", len(scores), rows, cols, p, blocks))
	}
	plain := make([]int, cols)
	for k := range plain {
		plain[k] = k
	}
	l := shape(rows, cols, p)
	l.load(scores, plain)
	res := Result{Before: l.retained()}
	l.load(scores, deal(l.sums(), p.Of))
	if m.improve != nil {
		m.improve(l, blocks)
	}
	if res.After = l.retained(); res.After > res.Before {
		res.Order = l.order
	} else {
		res.After = res.Before
	}
	return res
}

// deal returns the columns in the order of CP: ascending by sum, of equal sums
// the lower column first, the k-th M-th part of them in slot k, and every other
// part reversed.
func deal(sums []float64, m int) []int {
	sorted := make([]int, len(sums))
	for j := range sorted {
		sorted[j] = j
	}
	slices.SortStableFunc(sorted, func(a, b int) int {
		switch {
		case sums[a] < sums[b]:
			return -1
		case sums[a] > sums[b]:
			return 1
		}
		return 0
	})
	order, groups := make([]int, len(sums)), len(sums)/m
	for c := range m {
		part := sorted[c*groups : (c+1)*groups]
		if c%2 == 1 {
			slices.Reverse(part)
		}
		for g, j := range part {
			order[g*m+c] = j
		}
	}
	return order
}

// layout holds the scores column by column, the columns of a slot together:
// what an assignment reads is side by side. Columns are padded with zeros to
// whole vectors, slots with columns of zeros to whole tiles.
type layout struct {
	pattern      pattern.Pattern
	rows, groups int
	stride       int // of a column, in elements
	order        []int
	slots        [][]float32 // by slot: groups + padding columns
	scratch      []float32   // as large as a slot
}

// padding is how many columns a tile may reach past the last.
const padding = 4

func shape(rows, cols int, p pattern.Pattern) *layout {
	const vector = 16
	return &layout{pattern: p, rows: rows, groups: cols / p.Of, stride: (rows + vector - 1) / vector * vector}
}

func (l *layout) column(c, g int) []float32 {
	return l.slots[c][g*l.stride : g*l.stride+l.rows]
}

// load fills the slots with the scores in that order.
func (l *layout) load(scores []float32, order []int) {
	m := l.pattern.Of
	if l.slots == nil {
		for range m {
			l.slots = append(l.slots, make([]float32, (l.groups+padding)*l.stride))
		}
		l.scratch = make([]float32, (l.groups+padding)*l.stride)
	}
	l.order = order
	cols := l.groups * m
	const tile = 16 // rows and positions: a cache line of each
	parallel.For((cols+tile-1)/tile, 1, func(b, _ int) {
		for r0 := 0; r0 < l.rows; r0 += tile {
			for k := b * tile; k < min((b+1)*tile, cols); k++ {
				to := l.column(k%m, k/m)
				for r := r0; r < min(r0+tile, l.rows); r++ {
					to[r] = scores[r*cols+order[k]]
				}
			}
		}
	})
}

// sums returns the sum of each column.
func (l *layout) sums() []float64 {
	m := l.pattern.Of
	sums := make([]float64, l.groups*m)
	parallel.For(len(sums), 16, func(lo, hi int) {
		for k := lo; k < hi; k++ {
			s := 0.0
			for _, v := range l.column(k%m, k/m) {
				s += float64(v)
			}
			sums[l.order[k]] = s
		}
	})
	return sums
}

// retained returns the retained score of the order.
func (l *layout) retained() float64 {
	sums := make([]float64, l.groups)
	parallel.For(l.groups, 4, func(lo, hi int) {
		best := newTop(l.pattern.Keep)
		for g := lo; g < hi; g++ {
			for r := range l.rows {
				best.clear()
				for c := range l.slots {
					best.add(l.slots[c][g*l.stride+r])
				}
				for _, v := range best {
					sums[g] += float64(v)
				}
			}
		}
	})
	total := 0.0
	for _, v := range sums {
		total += v
	}
	return total
}

// top is the largest of some scores, ascending.
type top []float32

func newTop(n int) top { return make(top, n) }

func (t top) clear() { clear(t) }

func (t top) add(v float32) {
	if !(v > t[0]) {
		return
	}
	i := 1
	for ; i < len(t) && v > t[i]; i++ {
		t[i-1] = t[i]
	}
	t[i-1] = v
}
