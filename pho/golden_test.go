package pho

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// testdata/gini.json is made by tools/gini_golden.py. Gini itself equals numpy
// to 1e-9. From weights on, numpy scores in float64 and crepe in float32: each
// score is off by at most 20·2⁻²⁴, and the coefficient of G ≥ 0.2 by at most
// 2/G times that, relatively.
func TestGiniEqualsNumpy(t *testing.T) {
	var golden struct {
		Rows, Cols int
		W          []float32
		ColSq      []float64
		Values     []float32
		ValuesGini float64 `json:"values_gini"`
		Cases      []struct {
			Pattern string
			Coefficients
			Gini float64
		}
	}
	text, err := os.ReadFile("testdata/gini.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	if got, want := Gini(golden.Values), golden.ValuesGini; !(math.Abs(got-want) <= 1e-9*want) {
		t.Errorf("values: %v, want %v", got, want)
	}
	w := tensor.NewWeight(tensor.F32, golden.Rows, golden.Cols)
	copy(w.Source().F32, golden.W)
	s := &stats.Input{ColSq: golden.ColSq, Sequences: 1, Tokens: 1}
	if len(golden.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range golden.Cases {
		sparsity, nm := c.Pattern, ""
		if strings.Contains(c.Pattern, ":") {
			sparsity, nm = "", c.Pattern
		}
		p, err := NewProxy(w, s, target(t, sparsity, nm), score.DefaultPower)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Gini(c.Coefficients)
		if err != nil {
			t.Fatal(err)
		}
		tol := 2 / c.Gini * 20 / (1 << 24)
		if !(math.Abs(got-c.Gini) <= tol*c.Gini) {
			t.Errorf("%s %s: %v, want %v (relative %.2g)", c.Pattern, c.Coefficients, got, c.Gini, math.Abs(got-c.Gini)/c.Gini)
		}
	}
}

func TestHopelessNeedsMoreThanNoise(t *testing.T) {
	best := make([]float64, 64)
	worse, noisy := make([]float64, 16), make([]float64, 16)
	for i := range worse {
		worse[i] = 0.5 + 0.01*float64(i%3)
		noisy[i] = float64(i%2)*2 - 0.9 // mean 0.1, deviation 1
	}
	if !hopeless(worse, best) || hopeless(noisy, best) || hopeless(worse[:7], best) || hopeless(worse, nil) {
		t.Errorf("hopeless: %t %t, want true and false", hopeless(worse, best), hopeless(noisy, best))
	}
	// Student's t, one-sided 99.9 %: tables say 4.785 for 7 and 3.733 for 15.
	for f, want := range map[float64]float64{7: 4.785, 15: 3.733} {
		if got := student(f); !(math.Abs(got-want) <= 0.02*want) {
			t.Errorf("student(%v) = %v, want %v", f, got, want)
		}
	}
}
