package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/golden"
	"github.com/crepe-llm/crepe/tensor"
)

// TestDeltaChunksEqualRecurrence holds the chunked delta rule against its
// definition, token by token in float64, over chunks, a rest and two pieces.
func TestDeltaChunksEqualRecurrence(t *testing.T) {
	d := newDeltaNet(&engine.DeltaNet{KeyHeads: 2, ValueHeads: 4, KeyDim: 8, ValueDim: 6, Taps: 1})
	rng := rand.New(rand.NewPCG(7, 8))
	const tokens, cut = 2*deltaChunk + 9, deltaChunk + 3
	qkv, beta := tensor.NewMatrix(tokens, d.Channels()), tensor.NewMatrix(tokens, d.ValueHeads)
	decay := tensor.NewMatrix(tokens, d.ValueHeads)
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
	got := tensor.NewMatrix(tokens, d.ValueWidth())
	states := make([]float32, d.ValueWidth()*d.KeyDim)
	work := make([]float32, d.workSize())
	for head := range d.ValueHeads {
		for _, p := range [][2]int{{0, cut}, {cut, tokens}} {
			d.scan(head, got.Slice(p[0], p[1]), qkv.Slice(p[0], p[1]), beta.Slice(p[0], p[1]), decay.Slice(p[0], p[1]), states, work)
		}
		golden.Compare(t, fmt.Sprintf("head %d", head), column(got, head, d.ValueDim),
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
	s := make([][]float64, d.KeyDim)
	for i := range s {
		s[i] = make([]float64, d.ValueDim)
	}
	var out []float32
	for t := range qkv.Rows {
		row := qkv.Row(t)
		at := head / (d.ValueHeads / d.KeyHeads) * d.KeyDim
		q, k := row[at:at+d.KeyDim], row[d.KeyHeads*d.KeyDim+at:]
		v := row[2*d.KeyHeads*d.KeyDim+head*d.ValueDim:]
		for c := range d.ValueDim {
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
