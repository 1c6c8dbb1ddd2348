package bench

import (
	"fmt"

	"github.com/crepe-llm/crepe/demo"
	"github.com/crepe-llm/crepe/engine"
	enginecpu "github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/internal/splitmix"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
	"github.com/crepe-llm/crepe/tokenizer"
	"github.com/crepe-llm/crepe/update"
)

// shapes are those of LLaMA-2-7B's Linears, and small ones.
func (r *runner) shapes() (tokens, width, inner int) {
	if r.quick {
		return 256, 1024, 2816
	}
	return 2048, 4096, 11008
}

// measurePeaks measures all cores together: multiply-adds in registers, and
// reading memory that no cache holds.
func measurePeaks(r *runner) error {
	steps := 1 << 18
	if r.quick {
		steps >>= 3
	}
	tasks := 8 * r.Threads
	for _, bfloat := range []bool{false, true} {
		name := peakF32
		if bfloat {
			name = peakBF16
		}
		if bfloat && !cpu.AVX512BF16 {
			continue
		}
		flops, _ := kernel.MulAdds(steps, bfloat)
		err := r.measurePeak(name, float64(tasks)*flops, "GFLOP/s", func() error {
			parallel.For(tasks, 1, func(int, int) { kernel.MulAdds(steps, bfloat) })
			return nil
		})
		if err != nil {
			return err
		}
	}
	n := 64 << 20 // float32: more than caches hold
	if r.quick {
		n >>= 2
	}
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(i) // pages that nobody wrote are all one page
	}
	return r.measurePeak(peakRead, 4*float64(n), "GB/s", func() error {
		parallel.For(n, 1<<16, func(lo, hi int) { kernel.ReadAll(x[lo:hi]) })
		return nil
	})
}

// values returns n numbers that are about normal, of standard deviation
// deviation and mean 0: sums of uniform ones.
func values(n int, deviation float64) []float32 {
	x := make([]float32, n)
	const period = 65521 // prime: no two rows of a matrix are alike
	var rng splitmix.Source
	for i := range min(n, period) {
		z := rng.Next()
		sum := z&0xffff + z>>16&0xffff + z>>32&0xffff + z>>48 // variance 4·2³²/12
		x[i] = float32(deviation * (float64(sum) - 2*0xffff) / 37837)
	}
	for i := period; i < n; i += period {
		copy(x[i:], x[:period])
	}
	return x
}

// narrow returns x in bfloat16.
func narrow(x []float32) []uint16 {
	y := make([]uint16, len(x))
	kernel.NarrowBF16(y, x)
	return y
}

// productPeak is the peak of a product in bf16 or f32. Without AVX512_BF16,
// bf16 is multiplied as f32.
func productPeak(bfloat bool) string {
	if bfloat && cpu.AVX512BF16 {
		return peakBF16
	}
	return peakF32
}

// eachType calls f with MatMulT and MatMulTBF16.
func eachType(n int, f func(name string, bfloat bool, b kernel.Source, product productFunc) error) error {
	w := values(n, 0.02)
	if err := f("f32", false, kernel.Source{F32: w}, kernel.MatMulT); err != nil {
		return err
	}
	return f("bf16", true, kernel.Source{BF16: narrow(w)}, kernel.MatMulTBF16)
}

type productFunc func(dst []float32, ldd int, x []float32, ldx int, b kernel.Source, ldb int, m, n, k int)

// products measures tokens × in times (out × in)ᵀ.
func products(r *runner) error {
	tokens, width, inner := r.shapes()
	for _, s := range [][2]int{{width, width}, {inner, width}, {width, inner}} {
		out, in := s[0], s[1]
		x, dst := values(tokens*in, 1), make([]float32, tokens*out)
		err := eachType(out*in, func(name string, bfloat bool, b kernel.Source, product productFunc) error {
			return r.measure("product", fmt.Sprintf("%d × %d × %d %s", tokens, out, in, name),
				2*float64(tokens)*float64(out)*float64(in), "GFLOP/s", productPeak(bfloat), func() error {
					product(dst, out, x, in, b, in, tokens, out, in)
					return nil
				})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// vectors measures the same for one token, whose time is that of reading the
// weights.
func vectors(r *runner) error {
	_, in, out := r.shapes()
	x, dst := values(in, 1), make([]float32, out)
	return eachType(out*in, func(name string, bfloat bool, b kernel.Source, product productFunc) error {
		size := 4.0
		if bfloat {
			size = 2
		}
		return r.measure("matrix-vector", fmt.Sprintf("%d × %d %s", out, in, name),
			size*float64(out)*float64(in), "GB/s", peakRead, func() error {
				product(dst, out, x, in, b, in, 1, out, in)
				return nil
			})
	})
}

// attention measures one block's, heads of width 128, keys and values packed
// anew. The operations counted are those of the visible half.
func attention(r *runner) error {
	tokens, width, _ := r.shapes()
	a := kernel.Attention{HeadDim: 128, Heads: width / 128, KVHeads: width / 128, Scale: 0.088}
	x, dst := values(tokens*width, 1), make([]float32, tokens*width)
	for _, bfloat := range []bool{false, true} {
		name := "f32"
		if bfloat {
			name = "bf16"
		}
		kv := kernel.NewKeyValues(a.KVHeads, a.HeadDim, bfloat)
		err := r.measure("attention", fmt.Sprintf("%d tokens, %d heads of %d, causal, %s", tokens, a.Heads, a.HeadDim, name),
			4*float64(width)*float64(tokens)*float64(tokens+1)/2, "GFLOP/s", productPeak(bfloat), func() error {
				kv.Reset()
				kv.Append(x, x, tokens)
				a.Run(dst, x, kv, tokens)
				return nil
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// scores measures score and selection of one Linear. The rate is that of its
// weights, so a share is what the time to read them once is of the whole.
func scores(r *runner) error {
	_, rows, cols := r.shapes()
	w := tensor.NewWeight(tensor.BF16, rows, cols)
	copy(w.Source().BF16, narrow(values(rows*cols, 0.02)))
	s := &stats.Input{ColSq: make([]float64, cols), Sequences: 1, Tokens: 1}
	for j, v := range values(cols, 10) {
		s.ColSq[j] = float64(v * v)
	}
	half, err := pattern.ParseSparsity("50%")
	if err != nil {
		return err
	}
	dst := make([]float32, rows*cols)
	for _, c := range []struct {
		method string
		what   string
		target pattern.Target
	}{
		{"magnitude", "50 % of the matrix", pattern.Target{Sparsity: half}},
		{"wanda", "50 % of each row", pattern.Target{Sparsity: half, Group: pattern.Row}},
		{"wanda", "2:4", pattern.Target{Pattern: pattern.Pattern{Keep: 2, Of: 4}}},
		{"ria", "50 % of the matrix", pattern.Target{Sparsity: half}},
		{"crepe", "50 % of the matrix", pattern.Target{Sparsity: half}},
	} {
		m, err := score.Lookup(c.method)
		if err != nil {
			return err
		}
		err = r.measure("score and select", fmt.Sprintf("%s, %d × %d bf16, %s", c.method, rows, cols, c.what),
			2*float64(rows*cols), "GB/s", peakRead, func() error {
				if err := m.Score(dst, w, s, m.Defaults()); err != nil {
					return err
				}
				_, err := mask.Select(dst, rows, cols, c.target)
				return err
			})
		if err != nil {
			return err
		}
	}
	return nil
}

// solves measures what SparseGPT needs: a Gram matrix, its factor, and the
// sweep that prunes one Linear and mends what is kept.
func solves(r *runner) error {
	tokens, n, _ := r.shapes()
	if r.quick {
		n = 512
	}
	e := enginecpu.New(engine.F32)
	x := e.NewMat(tokens, n)
	e.Upload(x, tensor.Matrix{Rows: tokens, Cols: n, Data: values(tokens*n, 1)})
	var gram *stats.Gram
	square := float64(n) * float64(n)
	err := r.measure("gram", fmt.Sprintf("%d tokens, %d × %d f32", tokens, n, n), float64(tokens)*square, "GFLOP/s", peakF32, func() error {
		a := e.NewStats(n, stats.Needs{Gram: true})
		a.Add(x)
		gram = a.Input(1).Gram
		return nil
	})
	if err != nil {
		return err
	}
	half, err := pattern.ParseSparsity("50%")
	if err != nil {
		return err
	}
	var f update.Prepared
	err = r.measure("factor", fmt.Sprintf("%d × %d f32", n, n), square*float64(n)/3, "GFLOP/s", peakF32, func() (err error) {
		f, err = update.SparseGPT.Prepare(gram, pattern.Pattern{}, nil)
		return err
	})
	if err != nil {
		return err
	}
	w, fresh := tensor.NewWeight(tensor.F32, n, n), values(n*n, 0.02)
	work := make([]float32, n*n)
	return r.measure("sparsegpt sweep", fmt.Sprintf("%d × %d f32, 50 %%", n, n), square*float64(n), "GFLOP/s", peakF32, func() error {
		copy(w.Source().F32, fresh)
		return f.Run(r.ctx, w, nil, pattern.Target{Sparsity: half}, work)
	})
}

// tokenizers measures the demo's tokenizer on its evaluation text, on one core.
func tokenizers(r *runner) error {
	dir, err := demo.ModelDir()
	if err != nil {
		return err
	}
	text := string(demo.Evaluation())
	if r.quick {
		text = text[:min(len(text), 100000)]
	}
	t, err := tokenizer.Load(dir)
	if err != nil {
		return err
	}
	return r.measure("tokenizer", fmt.Sprintf("demo's, %.2g MB of text, one core, its words known", float64(len(text))/1e6),
		float64(len(text)), "MB/s", "", func() error {
			_, err := t.Encode(text, true)
			return err
		})
}
