package model

import (
	"fmt"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/tensor"
)

// readWeight reads t into w and refuses NaN and infinities: a NaN would spread
// over every hidden state and score.
func readWeight(inv *checkpoint.Inventory, t checkpoint.Tensor, w *tensor.Weight) error {
	if err := inv.Read(t, w.Bytes()); err != nil {
		return err
	}
	return checkFinite(t, w, 0)
}

// checkFinite refuses NaN and infinities in w, the rows of t from first on.
func checkFinite(t checkpoint.Tensor, w *tensor.Weight, first int) error {
	i := w.FirstNonFinite()
	if i < 0 {
		return nil
	}
	row, col := i/w.Cols, i%w.Cols
	return notFinite(t, first+row, col, w.At(row, col))
}

// readPacked reads t, which is stored packed, and refuses NaN and infinities.
func readPacked(inv *checkpoint.Inventory, t checkpoint.Tensor) (*tensor.Packed, error) {
	w, err := inv.ReadPacked(t)
	if err != nil {
		return nil, err
	}
	if row, col, v, ok := w.FirstNonFinite(); ok {
		return nil, notFinite(t, row, col, v)
	}
	return w, nil
}

func notFinite(t checkpoint.Tensor, row, col int, v float32) error {
	return fmt.Errorf("%s: tensor %s: element [%d %d] is %v, want a finite number", t.File, t.Name, row, col, v)
}
