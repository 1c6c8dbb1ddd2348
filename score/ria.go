package score

import (
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// DefaultPower is the exponent of the activation norm that RIA and CRePE are published
// with.
const DefaultPower = 0.5

// power is the exponent of ‖X_j‖. Up to 4 no score overflows float32 for the
// activations of any real model.
var power = param.Spec{Name: "power", Doc: "exponent of the activation norm", Default: DefaultPower, Max: 4}

// RIA weighs the share of row and column by a dampened norm of the input.
var RIA = Method{
	Name:      "ria",
	Doc:       "(|W|/row sum + |W|/column sum)·‖X‖^power; compares within the matrix",
	Cite:      "Zhang et al. 2024, Plug-and-Play, ICLR",
	Group:     pattern.Matrix,
	NeedsData: true,
	Params:    []param.Spec{power},
	Point:     func(p param.Values) Point { return Point{Alpha: 1, Beta: 1, Power: p.Number(power.Name)} },
	Score:     scoreRIA,
}

// scoreRIA scores a weight by its share of its row and of its column, so that
// no channel is lost whole, times a dampened norm of its input:
//
//	S_ij = (|W_ij|/R_i + |W_ij|/C_j)·‖X_j‖^p
//
// p is the parameter power. The sums are float64; 1/R_i, 1/C_j and the norm are
// rounded to float32, and S_ij = |W_ij|·(1/R_i + 1/C_j)·‖X_j‖^p after each
// operation: relative error at most 5·2⁻²⁴.
//
// Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method
// for Large Language Models", ICLR.
func scoreRIA(dst []float32, w *tensor.Weight, s *stats.Input, p param.Values) error {
	checkDst(dst, w)
	n, err := norms(w.Cols, s, p.Number("power"))
	if err != nil {
		return err
	}
	row, col, err := absSums(w)
	if err != nil {
		return err
	}
	relative(dst, w, overSums(1, row), overSums(1, col), n)
	return nil
}

// relative writes |W_ij|·(a_i + b_j)·n_j.
func relative(dst []float32, w *tensor.Weight, a, b, n []float32) {
	if x := w.Source().BF16; x != nil {
		parallel.For(w.Rows, rowStrip, func(lo, hi int) {
			for i := lo; i < hi; i++ {
				k, end := i*w.Cols, (i+1)*w.Cols
				kernel.RelativeImportanceBF16(dst[k:end], x[k:end], b, n, a[i])
			}
		})
		return
	}
	eachSegment(w, func(x []float32, i, j int) {
		k, end := i*w.Cols+j, j+len(x)
		kernel.RelativeImportance(dst[k:k+len(x)], x, b[j:end], n[j:end], a[i])
	})
}
