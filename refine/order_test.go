package refine

import (
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// To refine N:M in an order of the columns is to refine the matrix whose columns
// were put in that order, and to put them back.
func TestMethodsFollowTheOrder(t *testing.T) {
	const rows, cols = 23, 96
	for _, method := range Methods() {
		for _, s := range []string{"2:4", "4:8", "1:4"} {
			t.Run(method.Name+"/"+s, func(t *testing.T) {
				to := target(t, s)
				p := random(t, 3, rows, cols, to, usual(method))
				order := rand.New(rand.NewPCG(4, 0)).Perm(cols)

				moved := Problem{Pattern: to.Pattern, Params: p.Params, W: weightOf(rows, cols), Scores: make([]float32, rows*cols)}
				moved.Input = &stats.Input{Tokens: p.Input.Tokens, ColSq: taken(p.Input.ColSq, order), ColSum: taken(p.Input.ColSum, order), ColVar: taken(p.Input.ColVar, order)}
				h := tensor.NewMatrix(cols, cols)
				for k, j := range order {
					for l, i := range order {
						h.Row(k)[l] = p.Gram.h.Row(j)[i]
					}
					for i := range rows {
						moved.W.Source().F32[i*cols+k] = p.W.Source().F32[i*cols+j]
						moved.Scores[i*cols+k] = p.Scores[i*cols+j]
					}
				}
				moved.Gram = gramOf(h)
				var err error
				if p.Kept, err = mask.SelectIn(p.Scores, rows, cols, to.Pattern, order); err != nil {
					t.Fatal(err)
				}
				if moved.Kept, err = mask.Select(moved.Scores, rows, cols, to); err != nil {
					t.Fatal(err)
				}
				got, want := do(t, method, p), do(t, method, moved)
				if got.Exchanges != want.Exchanges || got.Exchanges == 0 || !near(got.After, want.After) {
					t.Errorf("%+v, want %+v", got, want)
				}
				for i := range rows {
					for k, j := range order {
						if p.Kept.Kept(i, j) != moved.Kept.Kept(i, k) {
							t.Fatalf("row %d, column %d at %d: kept is %v", i, j, k, p.Kept.Kept(i, j))
						}
					}
				}
			})
		}
	}
}

func taken(v []float64, order []int) []float64 {
	out := make([]float64, len(order))
	for k, j := range order {
		out[k] = v[j]
	}
	return out
}
