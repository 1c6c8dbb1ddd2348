package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// TestInputsInExecutionOrder holds names, order and shapes of the Linears
// against the order in which transformers reaches them.
func TestInputsInExecutionOrder(t *testing.T) {
	for _, name := range golden.Folders(t, fixturesDir) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(fixturesDir, name)
			var meta struct {
				Linears []struct {
					Name string
					Out  int `json:"out_features"`
					In   int `json:"in_features"`
				} `json:"prunable_linears"`
			}
			readJSON(t, filepath.Join(dir, "meta.json"), &meta)
			m := open(t, dir)
			var got, want []string
			for _, l := range meta.Linears {
				want = append(want, fmt.Sprintf("%s %d×%d", l.Name, l.Out, l.In))
			}
			for i := range m.Blocks() {
				for _, l := range m.Linears(i) {
					got = append(got, fmt.Sprintf("%s %d×%d", l.Name, l.Rows, l.Cols))
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
		})
	}
}

// TestAttention holds the Linears that are the attention's against their names,
// which every architecture here has in common.
func TestAttention(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, _ map[string]golden.Tensor) {
		n := 0
		for i := range m.Blocks() {
			for _, l := range m.Linears(i) {
				want := strings.Contains(l.Name, ".self_attn.") || strings.Contains(l.Name, ".linear_attn.")
				if l.Attention != want {
					t.Errorf("%s: attention %v", l.Name, l.Attention)
				}
				if want {
					n++
				}
			}
		}
		if n < 2*m.Blocks() {
			t.Errorf("%d Linears of attention in %d blocks", n, m.Blocks())
		}
	})
}

// TestStateOfManySequences passes sequences of several lengths through one
// State; each must come out as from a fresh one.
func TestStateOfManySequences(t *testing.T) {
	forFixtures(t, func(t *testing.T, m *Model, want map[string]golden.Tensor) {
		ids := sequences(want["input_ids"])[0]
		st := m.NewState()
		for _, n := range []int{24, 3, 16, 17, 24} {
			got := run(t, m, st, ids[:n], []int{n})
			fresh := run(t, m, m.NewState(), ids[:n], []int{n})
			golden.Compare(t, fmt.Sprintf("%d tokens", n), got.Data, fresh.Data, golden.Tolerance{})
		}
	})
}

func TestChooseExperts(t *testing.T) {
	for _, c := range []struct {
		p           []float32
		renormalise bool
		want        []choice
	}{
		{[]float32{0.125, 0.5, 0.25, 0.125}, false, []choice{{1, 0.5}, {2, 0.25}}},
		{[]float32{0.25, 0.125, 0.375, 0.25}, false, []choice{{2, 0.375}, {0, 0.25}}}, // a tie
		{[]float32{0.125, 0.375, 0.125, 0.375}, true, []choice{{1, 0.5}, {3, 0.5}}},
		{[]float32{1, 0, 0, 0}, true, []choice{{0, 1}, {1, 0}}},
	} {
		m := &moe{conf: experts{count: 4, used: 2, renormalise: c.renormalise}}
		got := make([]choice, 2)
		if m.choose(got, slices.Clone(c.p)); !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.p, got, c.want)
		}
	}
	m := &moe{conf: experts{count: 2, used: 1}}
	nan := float32(math.NaN())
	got := make([]choice, 1)
	if m.choose(got, []float32{nan, nan}); !(got[0].weight < 0) {
		t.Errorf("NaN: got %v, want none", got)
	}
}

// TestExpertsWithoutTokens routes all tokens to two of four experts: the
// others are not tapped.
func TestExpertsWithoutTokens(t *testing.T) {
	m := open(t, filepath.Join(fixturesDir, "mixtral"))
	block := load(t, m, 0).(*decoder)
	experts := block.branches[1].mixer.(*moe)
	router := experts.router.W
	for k := range router.Rows * router.Cols {
		router.Zero(k) // all logits equal: the lower indices go first
	}
	rng := rand.New(rand.NewPCG(5, 6))
	x := tensor.NewMatrix(9, m.Width())
	for i := range x.Data {
		x.Data[i] = float32(rng.NormFloat64())
	}
	seen := map[string]int{}
	observe(t, block, m.NewState(), x, func(in *Input, x tensor.Matrix) { seen[in.Name] += x.Rows })
	want := map[string]int{}
	for _, in := range append(block.branches[0].mixer.inputs(), experts.ins[:4]...) {
		want[in.Name] = 9
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("tokens seen: %v, want %v", seen, want)
	}
}

func TestFirstNonFinite(t *testing.T) {
	for _, dtype := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16} {
		w := tensor.NewWeight(dtype, 3, 300_000)
		if got := firstNonFinite(w.Source()); got != -1 {
			t.Errorf("%v: zeros: got %d, want -1", dtype, got)
		}
		size := dtype.Size()
		largest := map[tensor.DType][]byte{tensor.F32: {0xff, 0xff, 0x7f, 0xff}, tensor.F16: {0xff, 0xfb}, tensor.BF16: {0x7f, 0xff}}[dtype]
		for i := range w.Bytes() {
			w.Bytes()[i] = largest[i%size]
		}
		if got := firstNonFinite(w.Source()); got != -1 {
			t.Errorf("%v: the largest negative number: got %d, want -1", dtype, got)
		}
		for _, at := range []int{899_999, 600_001, 262_146, 262_145, 262_144, 135, 70, 7} {
			// All bits set is a NaN in each type.
			data := w.Bytes()[at*size:][:size]
			for i := range data {
				data[i] = 0xff
			}
			if got := firstNonFinite(w.Source()); got != at {
				t.Errorf("%v: got %d, want %d", dtype, got, at)
			}
		}
	}
}

// TestDeltaChunksEqualRecurrence holds the chunked delta rule against its
// definition, token by token in float64, over chunks, a rest and two pieces.
func TestDeltaChunksEqualRecurrence(t *testing.T) {
	d := &deltaNet{deltaSizes: deltaSizes{keyHeads: 2, valueHeads: 4, keyDim: 8, valueDim: 6, taps: 1}}
	d.setUnit()
	rng := rand.New(rand.NewPCG(7, 8))
	const tokens, cut = 2*deltaChunk + 9, deltaChunk + 3
	qkv, beta := tensor.NewMatrix(tokens, d.channels()), tensor.NewMatrix(tokens, d.valueHeads)
	decay := tensor.NewMatrix(tokens, d.valueHeads)
	for i := range qkv.Data {
		qkv.Data[i] = float32(rng.NormFloat64())
	}
	for t := range tokens {
		d.unitHeads(qkv.Row(t))
	}
	for i := range beta.Data {
		beta.Data[i] = rng.Float32()
		decay.Data[i] = -4 * rng.Float32() * rng.Float32()
	}
	got := tensor.NewMatrix(tokens, d.valueWidth())
	states := make([]float32, d.valueWidth()*d.keyDim)
	work := make([]float32, d.workSize())
	for head := range d.valueHeads {
		for _, p := range [][2]int{{0, cut}, {cut, tokens}} {
			d.scan(head, got.Slice(p[0], p[1]), qkv.Slice(p[0], p[1]), beta.Slice(p[0], p[1]), decay.Slice(p[0], p[1]), states, work)
		}
		golden.Compare(t, fmt.Sprintf("head %d", head), column(got, head, d.valueDim),
			d.recurrence(head, qkv, beta, decay), golden.Tolerance{Abs: 2e-6})
	}
}

// column returns the columns of one head, row after row.
func column(x tensor.Matrix, head, dim int) []float32 {
	var out []float32
	for t := range x.Rows {
		out = append(out, x.Row(t)[head*dim:(head+1)*dim]...)
	}
	return out
}

// recurrence is the delta rule of one head by its definition.
func (d *deltaNet) recurrence(head int, qkv, beta, decay tensor.Matrix) []float32 {
	s := make([][]float64, d.keyDim)
	for i := range s {
		s[i] = make([]float64, d.valueDim)
	}
	var out []float32
	for t := range qkv.Rows {
		row := qkv.Row(t)
		at := head / (d.valueHeads / d.keyHeads) * d.keyDim
		q, k := row[at:at+d.keyDim], row[d.keyHeads*d.keyDim+at:]
		v := row[2*d.keyHeads*d.keyDim+head*d.valueDim:]
		for c := range d.valueDim {
			read, o := 0.0, 0.0
			for i := range s {
				s[i][c] *= math.Exp(float64(decay.Row(t)[head]))
				read += s[i][c] * float64(k[i])
			}
			write := float64(beta.Row(t)[head]) * (float64(v[c]) - read)
			for i := range s {
				s[i][c] += float64(k[i]) * write
				o += s[i][c] * float64(q[i])
			}
			out = append(out, float32(o))
		}
	}
	return out
}
