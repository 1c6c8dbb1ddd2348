package score_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/tensor"
)

// What crepe's score costs over ria's, for each width of the neighbourhood: the two
// in turn, and the median of the rounds' ratios. ria-ms is the median of all runs of
// ria. With -cpu 1 seconds are processor time.
func BenchmarkCost(b *testing.B) {
	for _, dtype := range []tensor.DType{tensor.BF16, tensor.F32} {
		const rows, cols = 4096, 11008
		w, s := benchWeight(dtype, rows, cols)
		dst := make([]float32, rows*cols)
		seconds := func(m score.Method, p param.Values) float64 {
			begin := time.Now()
			if err := m.Score(dst, w, s, p); err != nil {
				b.Fatal(err)
			}
			return time.Since(begin).Seconds()
		}
		seconds(score.RIA, score.RIA.Defaults()) // the first touches the pages of dst
		for _, level := range cpu.Levels() {
			if level == cpu.LevelGeneric {
				continue
			}
			b.Run(fmt.Sprintf("%v/%v", dtype, level), func(b *testing.B) {
				defer cpu.Use(level)()
				var ria []float64
				ratios := map[int][]float64{}
				for b.Loop() {
					for k := 3; k <= 11; k += 2 {
						p := score.Paper()
						p["kernel"] = k
						r, c := seconds(score.RIA, score.RIA.Defaults()), seconds(score.CRePE, p)
						ria, ratios[k] = append(ria, r), append(ratios[k], c/r)
					}
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(1e3*median(ria), "ria-ms")
				for k, r := range ratios {
					b.ReportMetric(median(r), fmt.Sprintf("kernel%02d", k))
				}
			})
		}
	}
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
