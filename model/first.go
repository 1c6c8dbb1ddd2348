package model

import (
	"fmt"

	"github.com/crepe-llm/crepe/tensor"
)

// FirstInput returns the first Input of a block, whose first Linear holds the
// query, and the function that writes what enters it for the hidden states x
// to dst, which may be x: one norm, and nothing of the block's products.
func FirstInput(b Block) (in *Input, enter func(dst, x tensor.Matrix)) {
	d, ok := b.(*decoder)
	if !ok {
		panic(fmt.Sprintf("model: FirstInput: %T, want a block of LoadBlock", b))
	}
	first := &d.branches[0]
	return first.mixer.inputs()[0], func(dst, x tensor.Matrix) { normRows(dst, x, first.norm, d.eps) }
}
