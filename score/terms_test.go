package score_test

import (
	"math"
	"testing"

	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/tensor"
)

// What the proxy of the search scores is what prune scores, to the bit.
func TestTermsScoreAsCRePEDoes(t *testing.T) {
	for _, dtype := range []tensor.DType{tensor.F32, tensor.BF16} {
		w, s := benchWeight(dtype, 70, 131)
		terms, err := score.NewTerms(w, s, score.DefaultPower)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []param.Values{
			crepe(1, 1, 1, 9, score.DefaultPower), crepe(1, 1, 0, 9, score.DefaultPower), crepe(0, 0, 1, 3, score.DefaultPower),
			crepe(0.3, 0.07, 0.63, 11, score.DefaultPower), crepe(0, 1, 0, 5, score.DefaultPower),
			crepe(0.3, 0.2, 0.1, 5, score.DefaultPower).With("delta", 0.02), crepe(0, 0, 0, 9, score.DefaultPower).With("delta", 1.),
		} {
			want := make([]float32, w.Rows*w.Cols)
			if err := score.CRePE.Score(want, w, s, p); err != nil {
				t.Fatal(err)
			}
			got := make([]float32, len(want))
			if err := terms.EachRow(p, func(i int, x []float32) { copy(got[i*w.Cols:], x) }); err != nil {
				t.Fatal(err)
			}
			for k := range want {
				if math.Float32bits(got[k]) != math.Float32bits(want[k]) {
					t.Fatalf("%v %+v: score %d is %v, want %v", dtype, p, k, got[k], want[k])
				}
			}
		}
	}
}
