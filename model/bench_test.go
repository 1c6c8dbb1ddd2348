package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/tensor"
)

// widths are the real ones of published models, one block of each kind.
var widths = []struct {
	name, config string
}{
	{"llama-2-7b", `{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
		"num_attention_heads": 32, "num_hidden_layers": 1, "vocab_size": 32000}`},
	{"llama-3.1-8b", `{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
		"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 1, "vocab_size": 128256, "rope_theta": 5e5}`},
	{"mistral-7b", `{"architectures": ["MistralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336, "sliding_window": 1024,
		"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 1, "vocab_size": 32000}`},
	{"qwen2.5-7b", `{"architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944,
		"num_attention_heads": 28, "num_key_value_heads": 4, "num_hidden_layers": 1, "vocab_size": 152064}`},
	{"qwen3-8b", `{"architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288,
		"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 1, "vocab_size": 151936}`},
	{"phi-4", `{"architectures": ["Phi3ForCausalLM"], "hidden_size": 5120, "intermediate_size": 17920,
		"num_attention_heads": 40, "num_key_value_heads": 10, "num_hidden_layers": 1, "vocab_size": 100352}`},
	{"gemma-2-9b", `{"architectures": ["Gemma2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 14336,
		"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "num_hidden_layers": 1, "vocab_size": 256000}`},
	{"gemma-3-12b-global", `{"architectures": ["Gemma3ForCausalLM"], "hidden_size": 3840, "intermediate_size": 15360, "layer_types": ["full_attention"],
		"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "num_hidden_layers": 1, "vocab_size": 262208}`},
	{"gemma-3-12b-local", `{"architectures": ["Gemma3ForCausalLM"], "hidden_size": 3840, "intermediate_size": 15360, "sliding_window": 1024,
		"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256, "num_hidden_layers": 1, "vocab_size": 262208}`},
	{"qwen3.5-9b-linear", `{"architectures": ["Qwen3_5ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288,
		"num_attention_heads": 16, "num_hidden_layers": 1, "vocab_size": 248320}`},
	{"qwen3.5-9b-full", `{"architectures": ["Qwen3_5ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288,
		"num_attention_heads": 16, "num_hidden_layers": 1, "vocab_size": 248320, "layer_types": ["full_attention"]}`},
	{"mixtral-8x7b", `{"architectures": ["MixtralForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
		"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 1, "vocab_size": 32000}`},
	{"qwen3-30b-a3b", `{"architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "intermediate_size": 6144, "head_dim": 128,
		"num_attention_heads": 32, "num_key_value_heads": 4, "num_hidden_layers": 1, "vocab_size": 151936}`},
}

// randomBlock returns a block of that config with random bfloat16 weights.
func randomBlock(b *testing.B, config string, e engine.Engine) (*Block, *Model) {
	b.Helper()
	c, err := ParseConfig([]byte(config))
	if err != nil {
		b.Fatal(err)
	}
	m := open(b, fixturesDir+"/llama-mha").With(Options{Engine: e}) // has none of the tensors: they are made here
	m.Config = c
	rng := rand.New(rand.NewPCG(1, 2))
	block := m.bind(m.binder(), 0)
	unitNorms(block, e, c)
	for _, l := range allLinears(block) {
		randomize(rng, l)
	}
	return block, m
}

// allLinears returns the block's Linears, routers too.
func allLinears(b *Block) []*Linear {
	all := b.Linears()
	if x := expertsOf(b); x != nil {
		all = append(all, x.router.Linear)
	}
	return all
}

// expertsOf returns the mixture of experts of a block, nil if it has none.
func expertsOf(b *Block) *moe {
	x, _ := b.branches[1].layer.(*moe)
	return x
}

// unitNorms sets the vectors that only a checkpoint has.
func unitNorms(b *Block, e engine.Engine, c *Config) {
	vec := func(n int) engine.Vec { return e.NewVec(slices.Repeat([]float32{1}, n)) }
	norm := func(n int) *engine.Norm { return &engine.Norm{W: vec(n), Eps: c.NormEps} }
	for _, branch := range b.branches {
		branch.norm = norm(c.Width)
		if branch.post != nil {
			branch.post = norm(c.Width)
		}
		switch x := branch.layer.(type) {
		case *attention:
			if c.qkNorm {
				x.conf.QNorm, x.conf.KNorm = norm(c.HeadDim), norm(c.HeadDim)
			}
		case *deltaNet:
			x.conf.Rate, x.conf.Bias, x.conf.Norm = vec(x.conf.ValueHeads), vec(x.conf.ValueHeads), norm(x.conf.ValueDim)
			x.conf.Conv = nil
			for range x.conf.Taps {
				x.conf.Conv = append(x.conf.Conv, vec(x.conf.Channels()))
			}
		}
	}
}

// randomize gives l weights of variance 1/(3·in).
func randomize(rng *rand.Rand, l *Linear) {
	w := tensor.NewWeight(tensor.BF16, l.Rows, l.Cols)
	data := w.Bytes()
	bits := unsafe.Slice((*uint16)(unsafe.Pointer(&data[0])), len(data)/2)
	// Sign and mantissa are random under the exponent of 1/√in, rounded down.
	exponent := uint16(127)
	for n := l.Cols; n > 1; n /= 4 {
		exponent--
	}
	for i := range bits {
		bits[i] = uint16(rng.Uint32())&0x807f | exponent<<7
	}
	if err := l.Write(w); err != nil {
		panic(err)
	}
}

// products are the block's products with its weights and nothing else: what a
// forward pass cannot be faster than. An expert gets its average of tokens.
type products struct {
	stream  engine.Stream
	linears []*Linear
	tokens  []int // by Linear
	x, y    engine.Memory
	flop    float64
}

func newProducts(block *Block, m *Model, tokens int) *products {
	c := m.Config
	p := &products{stream: m.Engine().NewStream()}
	widest := 0
	for _, l := range block.Linears() {
		n := tokens
		if l.Expert {
			n = tokens * c.experts.used / c.experts.count
		}
		p.linears, p.tokens = append(p.linears, l), append(p.tokens, n)
		p.flop += 2 * float64(n) * float64(l.Rows) * float64(l.Cols)
		widest = max(widest, l.Rows, l.Cols)
	}
	x := tensor.Matrix{Rows: tokens, Cols: widest, Data: slices.Repeat([]float32{1}, tokens*widest)}
	p.x, p.y = enginetest.Upload(m.Engine(), x).Mem, m.Engine().NewMat(tokens, widest).Mem
	return p
}

func (p *products) run() {
	for i, l := range p.linears {
		n := p.tokens[i]
		p.stream.Linear(engine.Mat{Rows: n, Cols: l.Rows, Mem: p.y}, engine.Mat{Rows: n, Cols: l.Cols, Mem: p.x}, l.all().engine())
	}
}

// mixing returns the operations of a block's own products, those between tokens:
// scores and weighted values of the keys that each token sees, or the chunks of
// the delta rule.
func mixing(block *Block, c *Config, tokens int) float64 {
	switch x := block.branches[0].layer.(type) {
	case *attention:
		pairs := 0
		for t := range tokens {
			seen := t + 1
			if w := x.conf.Window; w > 0 {
				seen = min(seen, w)
			}
			pairs += seen
		}
		return 4 * float64(pairs) * float64(c.Heads*c.HeadDim)
	case *deltaNet:
		const l = 64 // tokens of a chunk of the delta rule
		d := &x.conf
		chunk := 2 * float64(l) * float64(2*l*d.KeyDim+3*d.KeyDim*d.ValueDim+l*d.ValueDim+l/2*d.ValueDim)
		return chunk * float64(tokens/l*d.ValueHeads)
	}
	return 0
}

// BenchmarkForward runs one sequence of 2048 tokens through one block and, by
// turns, its products with its weights alone. of-products is the share of the
// block's processor time that these take. of-speed is the block's operations a
// second, those of attention included, over those of the products alone.
// tokens/s and GFLOP/s are by the clock, of the fastest run.
func BenchmarkForward(b *testing.B) {
	const tokens = 2048
	for _, w := range widths {
		for _, compute := range []engine.Compute{engine.F32, engine.BF16} {
			b.Run(fmt.Sprintf("%s/%v", w.name, compute), func(b *testing.B) {
				block, m := randomBlock(b, w.config, cpu.New(compute))
				rng := rand.New(rand.NewPCG(3, 4))
				x := tensor.NewMatrix(tokens, m.Width())
				for i := range x.Data {
					x.Data[i] = float32(rng.NormFloat64())
				}
				from, y := enginetest.Upload(m.Engine(), x), m.NewMat(tokens)
				st := m.NewState()
				alone := newProducts(block, m, tokens)
				fastest, whole, part := math.Inf(1), math.Inf(1), math.Inf(1) // seconds
				for b.Loop() {
					st.stream.Copy(y, from)
					start, cpu := time.Now(), cpuSeconds()
					if err := block.Run(st, y, Mode{}); err != nil {
						b.Fatal(err)
					}
					fastest, whole = min(fastest, time.Since(start).Seconds()), min(whole, cpuSeconds()-cpu)
					b.StopTimer()
					cpu = cpuSeconds()
					alone.run()
					part = min(part, cpuSeconds()-cpu)
					b.StartTimer()
				}
				all := alone.flop + mixing(block, m.Config, tokens)
				b.ReportMetric(tokens/fastest, "tokens/s")
				b.ReportMetric(all/fastest/1e9, "GFLOP/s")
				b.ReportMetric(part/whole, "of-products")
				b.ReportMetric(part/whole*all/alone.flop, "of-speed")
				b.ReportMetric(float64(stateBytes(st))/1e6, "scratch-MB")
			})
		}
	}
}
