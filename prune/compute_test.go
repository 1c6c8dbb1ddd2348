package prune_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/prune"
	"github.com/crepe-llm/crepe/recipe"
	"github.com/crepe-llm/crepe/tokenizer"
	"github.com/crepe-llm/crepe/windows"
)

// What --compute bf16, the default where the processor has it, may cost on the
// demo model: 0.2 % of a perplexity, and one mask bit of 200. Other processors
// round the inputs of products all the same.
func TestBF16CostsNoQuality(t *testing.T) {
	const (
		perplexity = 0.002
		bits       = 0.005
	)
	dir := t.TempDir()
	var reports []*prune.Report
	for _, compute := range []engine.Compute{engine.F32, engine.BF16} {
		inv, m := openDemo(t)
		m = m.With(model.Options{Engine: cpu.New(compute)})
		r, err := prune.Run(t.Context(), inv, m, prune.Options{
			Model: "demo", Output: filepath.Join(dir, compute.String()),
			Recipe: recipe.Recipe{Method: "crepe", Compute: compute.String(),
				Calibration: recipe.Calibration{Source: "x"}, Eval: recipe.Eval{Source: "y"}},
			Calibration: demoText(t, demo.Calibration(), 12, 256), Evaluation: demoText(t, demo.Evaluation(), 12, 256),
		})
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, r)
	}
	f32, bf16 := reports[0], reports[1]
	for name, p := range map[string][2]float64{
		"dense":  {float64(f32.Dense.Perplexity), float64(bf16.Dense.Perplexity)},
		"pruned": {float64(f32.Pruned.Perplexity), float64(bf16.Pruned.Perplexity)},
	} {
		if !(math.Abs(p[1]/p[0]-1) <= perplexity) {
			t.Errorf("%s perplexity %v in bf16, want %v within %v of itself", name, p[1], p[0], perplexity)
		}
	}
	differ, total := maskDistance(t, filepath.Join(dir, "f32"), filepath.Join(dir, "bf16"))
	if differ == 0 || float64(differ) > bits*float64(total) {
		t.Errorf("%d of %d mask bits differ, want some (are both f32?) but at most %v of them", differ, total, bits)
	}
	t.Logf("dense %.4f, %.4f; pruned %.4f, %.4f; %d of %d bits differ", f32.Dense.Perplexity, bf16.Dense.Perplexity,
		f32.Pruned.Perplexity, bf16.Pruned.Perplexity, differ, total)
}

// demoText is the first n windows of text.
func demoText(t *testing.T, text []byte, n, seqLen int) *windows.Set {
	t.Helper()
	dir, err := demo.ModelDir()
	if err != nil {
		t.Fatal(err)
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := tok.Encode(string(text[:min(len(text), 16*n*seqLen)]), true)
	if err != nil {
		t.Fatal(err)
	}
	s := &windows.Set{Source: "demo text", SeqLen: seqLen}
	for i := range n {
		s.Tokens = append(s.Tokens, ids[i*seqLen:(i+1)*seqLen])
	}
	return s
}

// maskDistance counts the weights that are zero in one of two models only.
func maskDistance(t *testing.T, a, b string) (differ, total int) {
	t.Helper()
	var all [2][]bool
	for i, dir := range []string{a, b} {
		inv, err := checkpoint.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer inv.Close()
		m, err := model.Open(inv, model.Options{Engine: cpu.New(engine.F32)})
		if err != nil {
			t.Fatal(err)
		}
		for n := range m.Blocks() {
			block, err := m.LoadBlock(n)
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range block.Inputs() {
				for _, l := range in.Linears {
					w := weightOf(t, l)
					for r := range l.Rows {
						for c := range l.Cols {
							all[i] = append(all[i], w.At(r, c) == 0)
						}
					}
				}
			}
			block.Release()
		}
	}
	for i, zero := range all[0] {
		if zero != all[1][i] {
			differ++
		}
	}
	return differ, len(all[0])
}
