package mask

import (
	"fmt"

	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// Verify returns an error that says where w has fewer zeros than t asks for:
// in a group of N:M, in a row, or in all. −0 is a zero. More zeros are no
// error: a dense weight may have some.
func Verify(w *tensor.Weight, t pattern.Target) error {
	want, err := t.Pruned(w.Rows, w.Cols)
	if err != nil {
		return err
	}
	switch {
	case t.Pattern.Of != 0:
		if i, j := findDense(w, t.Pattern, nil); i >= 0 {
			return fmt.Errorf("weights [%d, %d] to [%d, %d] have more than %d that are not zero, against pattern %s",
				i, j, i, j+t.Pattern.Of-1, t.Pattern.Keep, t.Pattern)
		}
	case t.Group == pattern.Row:
		row := make([]float32, w.Cols)
		for i := range w.Rows {
			w.Row(row, i)
			if n, k := zeros(row), t.PrunedInRow(i, w.Cols); n < k {
				return fmt.Errorf("row %d has %d zeros, want at least %d (%s of %d)", i, n, k, t.Sparsity, w.Cols)
			}
		}
	default:
		if n := w.Zeros(); n < want {
			return fmt.Errorf("%d zeros, want at least %d (%s of %d × %d)", n, want, t.Sparsity, w.Rows, w.Cols)
		}
	}
	return nil
}

// HoldsNM reports whether every group of p.Of consecutive columns of w has at
// most p.Keep weights that are not zero. It does not where the columns do not
// divide into groups.
func HoldsNM(w *tensor.Weight, p pattern.Pattern) bool { return HoldsNMIn(w, p, nil) }

// HoldsNMIn is HoldsNM for columns in another order: position k holds column
// order[k]; nil: as they are. It does not hold in what is no order of w's columns.
func HoldsNMIn(w *tensor.Weight, p pattern.Pattern, order []int) bool {
	if p.Of < 1 || w.Cols%p.Of != 0 || order != nil && !isOrder(order, w.Cols) {
		return false
	}
	i, _ := findDense(w, p, order)
	return i < 0
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

// findDense returns where the first group begins that has more than p.Keep
// weights that are not zero, or -1, -1.
func findDense(w *tensor.Weight, p pattern.Pattern, order []int) (i, j int) {
	row, plain := make([]float32, w.Cols), make([]float32, w.Cols)
	for i := range w.Rows {
		w.Row(plain, i)
		copy(row, plain)
		for k, j := range order {
			row[k] = plain[j]
		}
		for j := 0; j < w.Cols; j += p.Of {
			if p.Of-zeros(row[j:j+p.Of]) > p.Keep {
				return i, j
			}
		}
	}
	return -1, -1
}

func zeros(x []float32) int {
	n := 0
	for _, v := range x {
		if v == 0 {
			n++
		}
	}
	return n
}
