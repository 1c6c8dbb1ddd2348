package search

import (
	"math"
	"testing"
)

// Many axes that hardly depend on each other, some of them flat and some with the minimum
// at a wall, in few trials: as what is searched on real models is.
func TestDescentInManyDimensions(t *testing.T) {
	f := func(x []float64) float64 {
		s := 0.0
		for i, v := range x {
			at := 0.5 + 0.37*math.Sin(float64(3*i+1))
			if i%5 == 4 {
				at = 0
			}
			s += (v - at) * (v - at) / float64(1+i%3)
			if i > 0 {
				s += 0.1 * (v - at) * (x[i-1] - 0.5)
			}
		}
		return s
	}
	best := map[string]float64{}
	for _, name := range []string{"hillclimb", "descent"} {
		start := make([]float64, 18)
		for i := range start {
			if start[i] = 0.5; i%5 == 4 {
				start[i] = 0
			}
		}
		s, err := New(name, Options{Start: start})
		if err != nil {
			t.Fatal(err)
		}
		best[name] = math.Inf(1)
		trials := run(t, s, 0, 60, f)
		for _, x := range trials {
			best[name] = min(best[name], x.Value)
		}
		t.Logf("%s: from %.3g to %.3g", name, trials[0].Value, best[name])
	}
	if !(best["descent"] < 0.5*(best["hillclimb"]+0.1)) {
		t.Errorf("descent %g, hillclimb %g: want less than half above the minimum", best["descent"], best["hillclimb"])
	}
}

// Of a sum of parabolas, the first round's last step is the minimum.
func TestDescentEndsAtTheMinimumOfParabolas(t *testing.T) {
	at := []float64{0.3, 0.8, 0.55}
	d, err := New("descent", Options{Start: []float64{0.5, 0.5, 0.5}})
	if err != nil {
		t.Fatal(err)
	}
	trials := run(t, d, 0, 12, func(x []float64) float64 {
		s := 0.0
		for i, v := range x {
			s += float64(i+1) * (v - at[i]) * (v - at[i])
		}
		return s
	})
	low := math.Inf(1)
	for _, x := range trials {
		low = min(low, x.Value)
	}
	if low > 1e-10 { // but for the grid of 2⁻²⁰
		t.Errorf("after %d trials %g above the minimum, want it", len(trials), low)
	}
}
