package eval

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/checkpoint"
	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/model"
)

func open(t *testing.T, compute engine.Compute) *model.Model {
	t.Helper()
	inv, err := checkpoint.Open("../demo/data/model")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inv.Close() })
	m, err := model.Open(inv, model.Options{Engine: cpu.New(compute)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Three windows, of which a batch of the head holds more than one.
func windows() [][]int32 {
	all := make([][]int32, 3)
	for i := range all {
		for j := range 40 {
			all[i] = append(all[i], int32((i*977+j*j*31)%4096))
		}
	}
	return all
}

func TestAgainstItself(t *testing.T) {
	m := open(t, engine.F32)
	c, err := Against(context.Background(), m, open(t, engine.F32), windows(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.KL != (Spread{}) || c.SameTop != 1 || c.Positions != 3*39 || c.Model != c.Dense {
		t.Errorf("got %+v, want no divergence at 117 positions", c)
	}
}

// The same model with its products' inputs rounded is another model, but a
// close one.
func TestAgainstAnother(t *testing.T) {
	ctx := context.Background()
	rounded, dense := open(t, engine.BF16), open(t, engine.F32)
	c, err := Against(ctx, rounded, dense, windows(), Options{States: engine.Place{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		m   *model.Model
		got Result
	}{{rounded, c.Model}, {dense, c.Dense}} {
		want, err := Perplexity(ctx, w.m, windows(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if !(math.Abs(float64(w.got.NLL-want.NLL)) <= 1e-9) || w.got.Tokens != want.Tokens {
			t.Errorf("got %+v, want Perplexity's %+v", w.got, want)
		}
	}
	if !(c.KL.Mean > 0 && c.KL.Mean < 0.05) || !(c.KL.P50 <= c.KL.P90 && c.KL.P90 <= c.KL.P99 && c.KL.P99 <= c.KL.Max) {
		t.Errorf("got %+v, want a small divergence", c.KL)
	}
	if _, err := Against(ctx, rounded, dense, nil, Options{}); err == nil {
		t.Error("no windows: no error")
	}
}

func TestSpread(t *testing.T) {
	var x []float64
	for i := range 200 {
		x = append(x, float64(200-i))
	}
	if got, want := spread(slices.Clone(x)), (Spread{Mean: 100.5, P50: 100, P90: 180, P99: 198, Max: 200}); got != want {
		t.Errorf("1 … 200: got %+v, want %+v", got, want)
	}
	if got, want := spread([]float64{3}), (Spread{3, 3, 3, 3, 3}); got != want {
		t.Errorf("one number: got %+v, want %+v", got, want)
	}
}
