package prune_test

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
)

// TestSplitSeparatesGates prunes Qwen3.5, whose q_proj holds the rows of query
// and gate by turns, head by head, by magnitude. Split, the smallest half of the
// queries' weights must go, and of the gates', no more and no fewer; whole, not.
// Masks made in memory must give the same bytes.
func TestSplitSeparatesGates(t *testing.T) {
	const fixture = "qwen3_5"
	inv, m := openModel(t, filepath.Join(fixturesDir, fixture))
	dim := m.Config.HeadDim
	dense := map[string][]float32{}
	eachLinear(t, filepath.Join(fixturesDir, fixture), func(l *model.Linear) { dense[l.Name] = widened(t, l) })
	for _, fused := range []string{"split", "whole"} {
		opt := fixtureOptions(t, fixture, recipe.Recipe{Method: "magnitude", Fused: fused})
		if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
			t.Fatal(err)
		}
		gated, halves := 0, 0
		eachLinear(t, opt.Output, func(l *model.Linear) {
			if !strings.HasSuffix(l.Name, "q_proj") {
				return
			}
			gated++
			was, is := dense[l.Name], widened(t, l)
			for part := range 2 { // query, gate
				zeros, largest, smallest := 0, 0.0, math.Inf(1)
				for i, v := range is {
					switch size := math.Abs(float64(was[i])); {
					case i/l.Cols/dim%2 != part:
					case v == 0:
						zeros++
						largest = max(largest, size)
					case v != was[i]:
						t.Fatalf("%s, %s: weight %d is %v, was %v", fused, l.Name, i, v, was[i])
					default:
						smallest = min(smallest, size)
					}
				}
				if zeros == len(is)/4 && largest <= smallest {
					halves++
				}
			}
		})
		if gated == 0 || (halves == 2*gated) != (fused == "split") {
			t.Errorf("%s: %d parts of %d q_proj have lost their smaller half", fused, halves, gated)
		}
		if fused == "whole" {
			continue
		}
		masks, err := prune.NewInMemory(m, opt.Calibration).Prune(t.Context(), "x", opt.Recipe, func(*model.Block) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		want := content(t, opt.Output)
		opt.Output, opt.Masks = t.TempDir(), masks
		if _, err := prune.Run(t.Context(), inv, m, opt); err != nil {
			t.Fatal(err)
		}
		compareMasked(t, "masks made in memory", content(t, opt.Output), want)
	}
}

// widened returns l's weights as float32.
func widened(t *testing.T, l *model.Linear) []float32 {
	t.Helper()
	weight := weightOf(t, l)
	w := make([]float32, l.Rows*l.Cols)
	for i := range l.Rows {
		weight.Row(w[i*l.Cols:(i+1)*l.Cols], i)
	}
	return w
}
