package score

import (
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Wanda weighs size by the norm of the input.
var Wanda = Method{
	Name:      "wanda",
	Doc:       "|W|·‖X‖; compares within rows",
	Cite:      "Sun et al. 2023, arXiv:2306.11695",
	Group:     pattern.Row,
	NeedsData: true,
	Point:     func(param.Values) Point { return Point{Delta: 1, Power: 1} },
	Score:     scoreWanda,
}

// scoreWanda scores a weight by its size times how loudly its input speaks:
//
//	S_ij = |W_ij|·‖X_j‖
//
// The norm is rounded to float32 once, the product once: relative error at
// most 2·2⁻²⁴.
//
// Sun et al. 2023, arXiv:2306.11695, eq. 1.
func scoreWanda(dst []float32, w *tensor.Weight, s *stats.Input, _ param.Values) error {
	checkDst(dst, w)
	n, err := norms(w.Cols, s, 1)
	if err != nil {
		return err
	}
	return scaled(dst, w, n)
}
