// Package mask selects the weights that are pruned, exactly as many as asked
// for, and prunes them.
package mask

import (
	"fmt"
	"math/bits"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Mask says of each weight of a matrix whether it is kept.
type Mask struct {
	Rows, Cols int

	// Order is the order of the columns in which N:M groups follow each other:
	// position k holds column Order[k]. nil: as they are.
	Order []int

	stride int      // words a row
	bits   []uint64 // bit j%64 of bits[i*stride + j/64] is set: W_ij is kept; unused bits are 0
}

func newMask(rows, cols int) *Mask {
	stride := (cols + 63) / 64
	return &Mask{Rows: rows, Cols: cols, stride: stride, bits: make([]uint64, rows*stride)}
}

// Of returns the mask of these words, which it keeps: row after row, each of ⌈cols/64⌉ of
// them, as Words says. order is Order.
func Of(rows, cols int, words []uint64, order []int) *Mask {
	m := &Mask{Rows: rows, Cols: cols, Order: order, stride: (cols + 63) / 64, bits: words}
	if len(words) != rows*m.stride {
		panic(fmt.Sprintf("mask: Of: %d words, want those of %d × %d", len(words), rows, cols))
	}
	if used := cols % 64; used != 0 {
		for i := range rows {
			if m.row(i)[m.stride-1]>>used != 0 {
				panic(fmt.Sprintf("mask: Of: row %d has bits past column %d", i, cols-1))
			}
		}
	}
	return m
}

// Bits returns the words of all rows in m's own memory, to be read.
func (m *Mask) Bits() []uint64 { return m.bits }

// Words returns row i in m's own memory, to be read: bit j%64 of word j/64 is set if
// weight (i, j) is kept.
func (m *Mask) Words(i int) []uint64 { return m.row(i) }

func (m *Mask) row(i int) []uint64 { return m.bits[i*m.stride : (i+1)*m.stride] }

// Kept reports whether weight (i, j) is kept.
func (m *Mask) Kept(i, j int) bool {
	return m.bits[i*m.stride+j/64]>>(j%64)&1 != 0
}

// Exchange prunes weight (i, prune), which is kept, and keeps weight (i, keep),
// which is pruned. Rows may be changed from several goroutines, each row from
// one.
func (m *Mask) Exchange(i, prune, keep int) {
	if !m.Kept(i, prune) || m.Kept(i, keep) {
		panic(fmt.Sprintf("mask: Exchange: row %d, prune %d (kept: %v), keep %d (kept: %v)", i, prune, m.Kept(i, prune), keep, m.Kept(i, keep)))
	}
	row := m.row(i)
	row[prune/64] &^= 1 << (prune % 64)
	row[keep/64] |= 1 << (keep % 64)
}

// Pruned returns how many weights are pruned.
func (m *Mask) Pruned() int {
	return m.Rows*m.Cols - count(m.bits)
}

// PrunedInRow returns how many weights of row i are pruned.
func (m *Mask) PrunedInRow(i int) int {
	return m.Cols - count(m.row(i))
}

func count(words []uint64) int {
	n := 0
	for _, w := range words {
		n += bits.OnesCount64(w)
	}
	return n
}

// applyRows is how many rows one task of Apply prunes.
const applyRows = 64

// Apply sets the weights that m prunes to +0 and leaves the others as they are.
func (m *Mask) Apply(w *tensor.Weight) {
	if w.Rows != m.Rows || w.Cols != m.Cols {
		panic(fmt.Sprintf("mask: Apply: weight of %d × %d, want %d × %d", w.Rows, w.Cols, m.Rows, m.Cols))
	}
	src := w.Source()
	parallel.For(m.Rows, applyRows, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			a, b := i*m.Cols, (i+1)*m.Cols
			switch {
			case src.F32 != nil:
				kernel.ZeroUnset32(src.F32[a:b], m.row(i))
			case src.BF16 != nil:
				kernel.ZeroUnset16(src.BF16[a:b], m.row(i))
			case src.F16 != nil:
				kernel.ZeroUnset16(src.F16[a:b], m.row(i))
			}
		}
	})
}
