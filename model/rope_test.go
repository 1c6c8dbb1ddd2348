package model

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/golden"
)

// f32Tol allows for the roundings of one power, one division and one product
// in float32.
var f32Tol = golden.Tolerance{Rel: 4.0 / (1 << 24)}

func TestRopeDefault(t *testing.T) {
	// 10000^(−2i/8) = 10^(−i)
	r := &rope{kind: "default", theta: 1e4, dim: 8}
	golden.Compare(t, "inv", r.frequencies(0), []float32{1, 0.1, 0.01, 0.001}, f32Tol)
}

func TestRopeLinear(t *testing.T) {
	r := &rope{kind: "linear", theta: 1e4, dim: 8, factor: 4}
	golden.Compare(t, "inv", r.frequencies(0), []float32{0.25, 0.025, 0.0025, 0.00025}, f32Tol)
}

// TestRopeLlama3 has one pair of each kind. C = 200π, low 1, high 4: waves
// shorter than 50π keep their frequency, those longer than 200π lose a factor
// of 8. Wavelengths are 2π, 20π, 200π·10^… of 10^(−i/2):
//
//	i  inv      λ        s = (C/λ − 1)/3        inv'
//	2  0.1      20π      –                      0.1
//	3  0.03162  63.25π   (3.1623 − 1)/3 = 0.7208  0.2792·0.03162/8 + 0.7208·0.03162
//	5  0.00316  632.5π   –                      0.00316/8
func TestRopeLlama3(t *testing.T) {
	r := &rope{kind: "llama3", theta: 1e4, dim: 16, factor: 8, low: 1, high: 4, original: 628}
	got := r.frequencies(0)
	s := (628/(2*math.Pi/math.Pow(10, -1.5)) - 1) / 3
	inv3 := math.Pow(10, -1.5) * ((1-s)/8 + s)
	want := []float32{0.1, float32(inv3), float32(math.Pow(10, -2.5) / 8)}
	golden.Compare(t, "inv", []float32{got[2], got[3], got[5]}, want, golden.Tolerance{Rel: 1e-6})
}

func TestRopeTableGrows(t *testing.T) {
	r := &rope{kind: "default", theta: 1e4, dim: 4, scale: 1}
	st := &State{tables: map[ropeKey]*engine.Rotary{}}
	table := st.rotary(r, 3)
	table.Grow(3)
	first, _ := table.At(2)
	if table != st.rotary(r, 9) {
		t.Error("another table for a longer sequence, want the same")
	}
	table.Grow(9)
	again, _ := table.At(2)
	golden.Compare(t, "position 2", again, first, golden.Tolerance{})
	cos, sin := table.At(7)
	golden.Compare(t, "cos", cos, []float32{float32(math.Cos(7)), float32(math.Cos(0.07))}, f32Tol)
	golden.Compare(t, "sin", sin, []float32{float32(math.Sin(7)), float32(math.Sin(0.07))}, f32Tol)
}

// TestRopeLong checks both lists and the limit between them: C = 16 tokens
// are short. F = 64/16, so scale = √(1 + ln 4/ln 16) = √1.5.
func TestRopeLong(t *testing.T) {
	c, err := ParseConfig(with(t, "Phi3ForCausalLM", changes{
		"rope_theta": "1e4", "max_position_embeddings": "64", "original_max_position_embeddings": "16",
		"partial_rotary_factor": "0.5",
		"rope_scaling":          `{"type": "su", "short_factor": [1, 2, 4, 8], "long_factor": [2, 4, 8, 16]}`,
	}))
	if err != nil {
		t.Fatal(err)
	}
	r := c.rope
	if r.dim != 8 || r.regime(16) != 0 || r.regime(17) != 1 || !(math.Abs(r.scale-math.Sqrt(1.5)) < 1e-15) {
		t.Errorf("%+v: regime at 16: %v, at 17: %v", r, r.regime(16), r.regime(17))
	}
	golden.Compare(t, "short", r.frequencies(0), []float32{1, 0.1 / 2, 0.01 / 4, 0.001 / 8}, f32Tol)
	golden.Compare(t, "long", r.frequencies(1), []float32{0.5, 0.1 / 4, 0.01 / 8, 0.001 / 16}, f32Tol)
	table := (&State{tables: map[ropeKey]*engine.Rotary{}}).rotary(r, 3)
	table.Grow(3)
	cos, _ := table.At(2)
	golden.Compare(t, "cos", cos[:1], []float32{float32(math.Sqrt(1.5) * math.Cos(2))}, f32Tol)
}

// TestRopeEqualsTransformers holds frequencies and scales against those that
// transformers computes from the same keys (tools/golden_rope.py).
func TestRopeEqualsTransformers(t *testing.T) {
	var cases []struct {
		Config  json.RawMessage
		Tokens  int
		InvFreq []float32 `json:"inv_freq"`
		Scale   float64
	}
	readJSON(t, "../testdata/rope.json", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, want := range cases {
		c, err := ParseConfig(want.Config)
		if err != nil {
			t.Errorf("%s: %v", want.Config, err)
			continue
		}
		name := fmt.Sprintf("%s, %d tokens", want.Config, want.Tokens)
		got := c.rope.frequencies(c.rope.regime(want.Tokens))
		// A power, a few products and a sum in float32 each.
		golden.Compare(t, name, got, want.InvFreq, golden.Tolerance{Rel: 1e-6})
		if !(math.Abs(c.rope.scale-want.Scale) < 1e-6) {
			t.Errorf("%s: scale %v, want %v", name, c.rope.scale, want.Scale)
		}
	}
}

// TestRopeTablesOfLengths turns sequences of several lengths with dynamic
// scaling by one State: each gets its own table.
func TestRopeTablesOfLengths(t *testing.T) {
	r := &rope{kind: "dynamic", theta: 1e4, dim: 4, factor: 2, original: 8, scale: 1}
	st := &State{tables: map[ropeKey]*engine.Rotary{}}
	for _, n := range []int{8, 9, 20, 9, 3} {
		// (2·T/8 − 1)² more theta, of which the second pair sees the root.
		want := 0.01 / max(1, 2*float64(n)/8-1)
		golden.Compare(t, fmt.Sprint(n), st.rotary(r, n).Inv, []float32{1, float32(want)}, f32Tol)
	}
	if len(st.tables) > 2 {
		t.Errorf("%d tables are kept", len(st.tables))
	}
}
