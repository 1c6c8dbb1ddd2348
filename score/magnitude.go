package score

import (
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// Magnitude is the size of the weight.
var Magnitude = Method{
	Name:  "magnitude",
	Doc:   "|W|; needs no data",
	Cite:  "Han et al. 2015, arXiv:1506.02626",
	Group: pattern.Matrix,
	Point: func(param.Values) Point { return Point{Delta: 1} },
	Score: scoreMagnitude,
}

// scoreMagnitude scores a weight by its size:
//
//	S_ij = |W_ij|
//
// exactly.
//
// Han et al. 2015, arXiv:1506.02626, section 3.
func scoreMagnitude(dst []float32, w *tensor.Weight, _ *stats.Input, _ param.Values) error {
	checkDst(dst, w)
	return scaled(dst, w, ones(w.Cols))
}
