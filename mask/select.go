package mask

import (
	"fmt"
	"math"
	"slices"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/pattern"
)

// Select prunes the lowest of the rows × cols scores: exactly
// t.Pruned(rows, cols) of them, within each group of t; of equal scores those
// with the lower index go first. −0 counts as 0. A score that is NaN, infinite
// or negative is an error that names its position. scores is not changed and
// not copied.
func Select(scores []float32, rows, cols int, t pattern.Target) (*Mask, error) {
	if len(scores) != rows*cols {
		panic(fmt.Sprintf("mask: Select: len(scores) = %d, want %d × %d", len(scores), rows, cols))
	}
	k, err := t.Pruned(rows, cols)
	if err != nil {
		return nil, err
	}
	s := selection{Mask: newMask(rows, cols), scores: scores, bad: make([]bool, rows)}
	switch {
	case t.Pattern.Of != 0:
		s.groups(t.Pattern)
	case k == 0 || t.Group == pattern.Row:
		s.rows(func(i int) int { return t.PrunedInRow(i, cols) })
	default:
		s.matrix(k)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.Mask, nil
}

// Lowest is Select of the k lowest scores of the whole matrix.
func Lowest(scores []float32, rows, cols, k int) (*Mask, error) {
	if len(scores) != rows*cols || k < 0 || k > len(scores) {
		panic(fmt.Sprintf("mask: Lowest: %d of %d scores, want some of %d × %d", k, len(scores), rows, cols))
	}
	s := selection{Mask: newMask(rows, cols), scores: scores, bad: make([]bool, rows)}
	if k == 0 {
		s.rows(func(int) int { return 0 })
	} else {
		s.matrix(k)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.Mask, nil
}

// SelectIn is Select of pattern p for columns in another order: position k
// holds column order[k], a group is p.Of consecutive positions, and of equal
// scores the lower position goes first. The mask is of the columns as they are.
func SelectIn(scores []float32, rows, cols int, p pattern.Pattern, order []int) (*Mask, error) {
	if len(scores) != rows*cols || len(order) != cols || p.Of < 1 || cols%p.Of != 0 {
		panic(fmt.Sprintf("mask: SelectIn: %d scores of %d × %d, %d columns in order, pattern %s", len(scores), rows, cols, len(order), p))
	}
	s := selection{Mask: newMask(rows, cols), scores: scores, bad: make([]bool, rows)}
	s.Order = order
	parallel.For(rows, taskRows, func(lo, hi int) {
		ordered, kept := make([]float32, cols), make([]uint64, s.stride)
		for i := lo; i < hi; i++ {
			x := s.scoresOf(i)
			for k, j := range order {
				ordered[k] = x[j]
			}
			kernel.KeepBest(kept, ordered, p.Keep, p.Of)
			row := s.row(i)
			for k, j := range order {
				row[j/64] |= kept[k/64] >> (k % 64) & 1 << (j % 64)
			}
		}
	})
	if err := s.check(); err != nil {
		return nil, err
	}
	return s.Mask, nil
}

// selection is a Select at work.
type selection struct {
	*Mask
	scores []float32
	bad    []bool // rows with something that is no score
}

// scoresOf returns the scores of row i, and notes it if something there is none.
func (s *selection) scoresOf(i int) []float32 {
	x := s.scores[i*s.Cols : (i+1)*s.Cols]
	s.bad[i] = kernel.MaxBits(x) >= kernel.InfBits && slices.ContainsFunc(x, noScore)
	return x
}

func noScore(v float32) bool {
	return !(v >= 0 && v <= math.MaxFloat32) // −0 is a score
}

// check returns an error that names the first score that is none.
func (s *selection) check() error {
	i := slices.Index(s.bad, true)
	if i < 0 {
		return nil
	}
	row := s.scores[i*s.Cols : (i+1)*s.Cols]
	j := slices.IndexFunc(row, noScore)
	return fmt.Errorf("score [%d, %d] is %v, want a finite number of at least 0", i, j, row[j])
}

// taskRows is how many rows one task selects in.
const taskRows = 16

// groups selects in every p.Of columns.
func (s *selection) groups(p pattern.Pattern) {
	parallel.For(s.Rows, taskRows, func(lo, hi int) {
		for i := lo; i < hi; i++ {
			kernel.KeepBest(s.row(i), s.scoresOf(i), p.Keep, p.Of)
		}
	})
}
