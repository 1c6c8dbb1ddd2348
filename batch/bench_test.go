package batch

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/generate"
	"github.com/crepe-llm/crepe/model"
)

// BenchmarkTexts continues one text and several at a time, after prompts of 32
// tokens: new tokens per second, of all together. CREPE_BENCH_MODEL names another
// model than the demo.
func BenchmarkTexts(b *testing.B) {
	inv, err := checkpoint.Open(cmp.Or(os.Getenv("CREPE_BENCH_MODEL"), demoDir))
	if err != nil {
		b.Fatal(err)
	}
	defer inv.Close()
	compute := engine.F32
	if cpu.FastBF16() {
		compute = engine.BF16
	}
	m, err := model.Open(inv, model.Options{Engine: cpu.New(compute)})
	if err != nil {
		b.Fatal(err)
	}
	const tokens = 32
	for _, exact := range []bool{false, true} {
		r, err := New(m, Options{Exact: exact}, nil)
		if err != nil {
			b.Fatal(err)
		}
		for _, texts := range []int{1, 4, 16} {
			b.Run(fmt.Sprintf("exact=%v/%d", exact, texts), func(b *testing.B) {
				round := int32(0)
				for b.Loop() {
					var wg sync.WaitGroup
					for i := range texts {
						prompt := make([]int32, 32)
						for j := range prompt {
							prompt[j] = 100 + (round*31+int32(i*7+j))%500
						}
						wg.Go(func() {
							r.Run(b.Context(), Request{Prompt: prompt, Options: generate.Options{MaxTokens: tokens}}, func(Token) error { return nil })
						})
					}
					wg.Wait()
					round++
				}
				b.ReportMetric(float64(b.N*texts*tokens)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
		r.Close(b.Context())
	}
}
