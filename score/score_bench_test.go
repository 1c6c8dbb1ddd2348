package score_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// benchWeight returns normal weights with deviation 0.02 and a statistic.
func benchWeight(dtype tensor.DType, rows, cols int) (*tensor.Weight, *stats.Input) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := tensor.NewWeight(dtype, rows, cols)
	src := w.Source()
	row := make([]float32, cols)
	for i := range rows {
		for j := range row {
			row[j] = float32(0.02 * rng.NormFloat64())
		}
		if dtype == tensor.F32 {
			copy(src.F32[i*cols:], row)
		} else {
			kernel.NarrowBF16(src.BF16[i*cols:(i+1)*cols], row)
		}
	}
	s := &stats.Input{ColSq: make([]float64, cols), Sequences: 1, Tokens: 1}
	for j := range s.ColSq {
		s.ColSq[j] = 100 * rng.ExpFloat64()
	}
	return w, s
}

func mustLookup(tb testing.TB, name string) score.Method {
	tb.Helper()
	m, err := score.Lookup(name)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// One Linear of a 7B model: score, selection of half of its weights, or both.
// SetBytes counts four bytes a weight, the size of the scores.
func BenchmarkScore(b *testing.B) {
	half, err := pattern.ParseSparsity("50%")
	if err != nil {
		b.Fatal(err)
	}
	targets := []struct {
		method string
		kernel int
		target pattern.Target
	}{
		{"magnitude", 0, pattern.Target{Sparsity: half}},
		{"wanda", 0, pattern.Target{Sparsity: half, Group: pattern.Row}},
		{"wanda", 0, pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}},
		{"wanda", 0, pattern.Target{Pattern: pattern.Pattern{Keep: 4, Of: 8}}},
		{"ria", 0, pattern.Target{Sparsity: half}},
		{"crepe", 3, pattern.Target{Sparsity: half}},
		{"crepe", 9, pattern.Target{Sparsity: half}},
		{"crepe", 11, pattern.Target{Sparsity: half}},
	}
	for _, cols := range []int{4096, 11008} {
		for _, dtype := range []tensor.DType{tensor.BF16, tensor.F32} {
			const rows = 4096
			w, s := benchWeight(dtype, rows, cols)
			dst := make([]float32, rows*cols)
			for _, c := range targets {
				m := mustLookup(b, c.method)
				p := published(b, m.Name)
				name := fmt.Sprintf("%dx%d/%v/%s", rows, cols, dtype, c.method)
				if c.kernel != 0 {
					p["kernel"] = c.kernel
					name += fmt.Sprint(c.kernel)
				}
				runScore := func(b *testing.B) {
					if err := m.Score(dst, w, s, p); err != nil {
						b.Fatal(err)
					}
				}
				runSelect := func(b *testing.B) {
					if _, err := mask.Select(dst, rows, cols, c.target); err != nil {
						b.Fatal(err)
					}
				}
				what := c.target.Group.String() + c.target.Pattern.String()
				for _, level := range cpu.Levels() {
					bench := func(part string, f func(b *testing.B)) {
						b.Run(name+"/"+what+"/"+part+"/"+level.String(), func(b *testing.B) {
							defer cpu.Use(level)()
							b.SetBytes(int64(4 * len(dst)))
							for b.Loop() {
								f(b)
							}
						})
					}
					bench("score", runScore)
					bench("select", runSelect)
					bench("both", func(b *testing.B) { runScore(b); runSelect(b) })
				}
			}
		}
	}
}
