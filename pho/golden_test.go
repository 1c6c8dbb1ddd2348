package pho

import (
	"encoding/json"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// testdata/gini.json is made by tools/golden_gini.py. Gini itself equals numpy
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
	readJSON(t, "testdata/gini.json", &golden)
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
		p, err := NewProxy(w, s, target(t, sparsity, nm))
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

// testdata/proxies.json is made by tools/golden_spearman.py. Shares are counts;
// Gini coefficients are as near as in TestGiniEqualsNumpy.
func TestProxiesEqualNumpyAndScipy(t *testing.T) {
	var matrix struct {
		Rows, Cols int
		W          []float32
		ColSq      []float64
	}
	var golden struct {
		Pairs []struct{ X, Y []float64 }
		Cases []struct {
			Pattern string
			Coefficients
			Proxies
		}
	}
	readJSON(t, "testdata/gini.json", &matrix)
	readJSON(t, "testdata/proxies.json", &golden)
	var results struct{ Pairs []Correlation }
	readJSON(t, "testdata/proxies.json", &results)
	for i, p := range golden.Pairs {
		got, ok := Spearman(p.X, p.Y)
		want := results.Pairs[i]
		if !ok || !(math.Abs(got.Rho-want.Rho) <= 1e-12) || !(math.Abs(got.P-want.P) <= 1e-9*want.P+1e-15) {
			t.Errorf("pair %d: %+v, want %+v", i, got, want)
		}
	}
	w := tensor.NewWeight(tensor.F32, matrix.Rows, matrix.Cols)
	copy(w.Source().F32, matrix.W)
	s := &stats.Input{ColSq: matrix.ColSq, Sequences: 1, Tokens: 1}
	work := make([]float32, matrix.Rows*matrix.Cols)
	for _, c := range golden.Cases {
		sparsity, nm := c.Pattern, ""
		if strings.Contains(c.Pattern, ":") {
			sparsity, nm = "", c.Pattern
		}
		c.Power = PaperPower
		got, err := MeasureProxies(work, w, s, target(t, sparsity, nm), c.Coefficients)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range c.Proxies.List() {
			tol := 0.0
			if strings.HasPrefix(ProxyNames[i], "gini") {
				tol = 2.0 * 20 / (1 << 24)
			}
			if v := got.List()[i]; !(math.Abs(v-want) <= tol) {
				t.Errorf("%s %s: %s is %v, want %v", c.Pattern, c.Coefficients, ProxyNames[i], v, want)
			}
		}
	}
	if len(golden.Pairs) == 0 || len(golden.Cases) == 0 {
		t.Fatal("no cases")
	}
	if _, ok := Spearman([]float64{1, 1, 1}, []float64{1, 2, 3}); ok {
		t.Error("a constant has a correlation")
	}
}

func readJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
}

// Bonett & Wright's interval, by hand: for ρ = 0.5 of 28 pairs artanh ρ = 0.549306 and
// the half width is 1.959964·√(1.125/25) = 0.415772.
func TestIntervalOfRho(t *testing.T) {
	for _, c := range []struct {
		rho       float64
		n         int
		low, high float64
	}{{0.5, 28, math.Tanh(0.133534), math.Tanh(0.965078)}, {-0.5, 28, -math.Tanh(0.965078), -math.Tanh(0.133534)}, {0.9, 3, -1, 1}, {1, 9, 1, 1}} {
		low, high := interval(c.rho, c.n)
		if !(math.Abs(low-c.low) < 1e-6) || !(math.Abs(high-c.high) < 1e-6) {
			t.Errorf("ρ %v of %d: %v to %v, want %v to %v", c.rho, c.n, low, high, c.low, c.high)
		}
	}
}
