package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

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
func randomBlock(b *testing.B, config string) (*decoder, *Model) {
	b.Helper()
	c, err := ParseConfig([]byte(config))
	if err != nil {
		b.Fatal(err)
	}
	m := open(b, fixturesDir+"/llama-mha") // has none of the tensors: they are made here
	m.Config = c
	rng := rand.New(rand.NewPCG(1, 2))
	block := m.bind(m.binder(), 0)
	for i := range block.branches {
		br := &block.branches[i]
		br.norm = ones(c.Width)
		if c.class.scaledEmbed { // Gemma
			br.post = ones(c.Width)
		}
		switch x := br.mixer.(type) {
		case *deltaNet:
			randomDelta(rng, x, c)
		case *attention:
			qkv := x.v.lo + x.v.n
			if x.q.Linear != x.v.Linear {
				qkv = x.q.n
				randomize(rng, x.k.Linear, x.k.n, c.Width)
				randomize(rng, x.v.Linear, x.v.n, c.Width)
			}
			randomize(rng, x.q.Linear, qkv, c.Width)
			randomize(rng, x.o, c.Width, c.Heads*c.HeadDim)
			if c.qkNorm {
				x.qNorm, x.kNorm = ones(c.HeadDim), ones(c.HeadDim)
			}
		case *mlp:
			randomMLP(rng, x, c)
		case *moe:
			randomize(rng, x.router.Linear, x.router.n, c.Width)
			for _, f := range x.experts {
				randomMLP(rng, f, c)
			}
		}
	}
	return block, m
}

func randomMLP(rng *rand.Rand, f *mlp, c *Config) {
	if f.gate.Linear != f.up.Linear {
		randomize(rng, f.gate.Linear, f.gate.n, c.Width)
	}
	randomize(rng, f.up.Linear, f.up.lo+f.up.n, c.Width)
	randomize(rng, f.down, c.Width, f.gate.n)
}

func randomDelta(rng *rand.Rand, d *deltaNet, c *Config) {
	for _, r := range []rows{d.qkv, d.z, d.a, d.b} {
		randomize(rng, r.Linear, r.n, c.Width)
	}
	randomize(rng, d.out, c.Width, d.valueWidth())
	d.rate, d.bias, d.norm = ones(d.valueHeads), ones(d.valueHeads), ones(d.valueDim)
	d.setConv(ones(d.channels() * d.taps))
}

// randomize gives l weights of variance 1/(3·in).
func randomize(rng *rand.Rand, l *Linear, out, in int) {
	l.W = tensor.NewWeight(tensor.BF16, out, in)
	data := l.W.Bytes()
	bits := unsafe.Slice((*uint16)(unsafe.Pointer(&data[0])), len(data)/2)
	// Sign and mantissa are random under the exponent of 1/√in, rounded down.
	exponent := uint16(127)
	for n := in; n > 1; n /= 4 {
		exponent--
	}
	for i := range bits {
		bits[i] = uint16(rng.Uint32())&0x807f | exponent<<7
	}
}

func ones(n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = 1
	}
	return v
}

// products are the block's products with its weights and nothing else: what a
// forward pass cannot be faster than. An expert gets its average of tokens.
type products struct {
	linears []*Linear
	tokens  []int // by Linear
	x, y    []float32
	flop    float64
}

func newProducts(block *decoder, c *Config, tokens int) *products {
	p := &products{}
	widest := 0
	for _, l := range block.linears() {
		n := tokens
		if l.Expert {
			n = tokens * c.experts.used / c.experts.count
		}
		p.linears, p.tokens = append(p.linears, l), append(p.tokens, n)
		p.flop += 2 * float64(n) * float64(l.W.Rows) * float64(l.W.Cols)
		widest = max(widest, l.W.Rows, l.W.Cols)
	}
	p.x, p.y = ones(tokens*widest), make([]float32, tokens*widest)
	return p
}

func (p *products) run() {
	for i, l := range p.linears {
		n := p.tokens[i]
		rows{Linear: l, n: l.W.Rows}.apply(
			tensor.Matrix{Rows: n, Cols: l.W.Rows, Data: p.y[:n*l.W.Rows]},
			operand{Matrix: tensor.Matrix{Rows: n, Cols: l.W.Cols, Data: p.x[:n*l.W.Cols]}})
	}
}

// mixing returns the operations of a block's own products, those between tokens:
// scores and weighted values of the keys that each token sees, or the chunks of
// the delta rule.
func mixing(block *decoder, c *Config, tokens int) float64 {
	switch x := block.branches[0].mixer.(type) {
	case *attention:
		pairs := 0
		for t := range tokens {
			seen := t + 1
			if w := x.kernel.Window; w > 0 {
				seen = min(seen, w)
			}
			pairs += seen
		}
		return 4 * float64(pairs) * float64(c.Heads*c.HeadDim)
	case *deltaNet:
		const l = deltaChunk
		chunk := 2 * float64(l) * float64(2*l*x.keyDim+3*x.keyDim*x.valueDim+l*x.valueDim+l/2*x.valueDim)
		return chunk * float64(tokens/l*x.valueHeads)
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
		for _, compute := range []Compute{F32, BF16} {
			b.Run(fmt.Sprintf("%s/%v", w.name, compute), func(b *testing.B) {
				block, m := randomBlock(b, w.config)
				m.Compute = compute
				rng := rand.New(rand.NewPCG(3, 4))
				x := tensor.NewMatrix(tokens, m.Width())
				for i := range x.Data {
					x.Data[i] = float32(rng.NormFloat64())
				}
				y := tensor.NewMatrix(tokens, m.Width())
				st := m.NewState()
				alone := newProducts(block, m.Config, tokens)
				fastest, whole, part := math.Inf(1), math.Inf(1), math.Inf(1) // seconds
				for b.Loop() {
					copy(y.Data, x.Data)
					start, cpu := time.Now(), cpuSeconds()
					forward(b, block, st, y)
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
