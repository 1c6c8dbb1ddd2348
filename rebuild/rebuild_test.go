package rebuild

import (
	"math"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/splitmix"
)

// The steps of torch.optim.Adam 2.15.0 in float64 on w = (1, −2, 0.5), gradient
// (w² − 0.3·i, i the step from 0) and learning rate 0.1; the third weight is pruned.
func TestAdamFollowsPyTorch(t *testing.T) {
	want := [][]float64{
		{0.900000001, -2.09999999975},
		{0.80649350312217, -2.2000615038244145},
		{0.7314160385462207, -2.3002359534602657},
		{0.690911071239424, -2.4005811695143073},
		{0.6902181452167494, -2.5011601999755593},
		{0.7208069045430834, -2.602040193919966},
	}
	w, g := []float32{1, -2, 0}, make([]float32, 3)
	a := NewAdam(w)
	for i, step := range want {
		for j, v := range w {
			g[j] = 2 * (v*v - 0.3*float32(i)) // by 1/2, as a batch of two would
		}
		g[2] = 7
		a.Step(w, g, 0.5, 0.1)
		for j, v := range step {
			if !(math.Abs(float64(w[j])-v) <= 2e-6) {
				t.Fatalf("step %d: weight %d is %v, want %v", i, j, w[j], v)
			}
		}
		if w[2] != 0 {
			t.Fatalf("step %d: a pruned weight became %v", i, w[2])
		}
	}
}

// On least squares Adam reaches the closed form, here one weight after the other: the
// columns are orthogonal, so each is Σ x·y / Σ x².
func TestAdamReachesTheClosedForm(t *testing.T) {
	const n, steps = 8, 4000
	draws := splitmix.Source(3)
	x, best, w, g := make([]float64, n), make([]float64, n), make([]float32, n), make([]float32, n)
	for j := range x {
		x[j], best[j], w[j] = 0.5+float64(draws.Next()>>40)/(1<<24), float64(draws.Next()>>40)/(1<<23)-1, 1
	}
	s := Schedule{Epochs: 1, Batch: 1, Rate: 0.01, Cosine: true}
	a := NewAdam(w)
	for i := range steps {
		for j := range g {
			g[j] = float32(2 * x[j] * x[j] * (float64(w[j]) - best[j]))
		}
		a.Step(w, g, 1, s.RateAt(i, steps))
	}
	for j, v := range w {
		if !(math.Abs(float64(v)-best[j]) <= 1e-3) {
			t.Errorf("weight %d is %v, want %v", j, v, best[j])
		}
	}
}

func TestScheduleByHand(t *testing.T) {
	s := Schedule{Epochs: 2, Batch: 3, Rate: 2, Cosine: true}
	if s.Steps(7) != 3 || s.RateAt(0, 4) != 2 || math.Abs(s.RateAt(2, 4)-1) > 1e-15 || s.RateAt(3, 4) >= 0.3 {
		t.Errorf("%d steps of rates %v, %v, %v", s.Steps(7), s.RateAt(0, 4), s.RateAt(2, 4), s.RateAt(3, 4))
	}
	if s.Cosine = false; s.RateAt(3, 4) != 2 {
		t.Errorf("a constant rate is %v", s.RateAt(3, 4))
	}
	first, second := Order(20, 1), Order(20, 2)
	if slices.Equal(first, second) || !slices.Equal(first, Order(20, 1)) {
		t.Errorf("orders %v, %v", first, second)
	}
	slices.Sort(first)
	for i, v := range first {
		if v != i {
			t.Fatalf("order has %v", first)
		}
	}
}
