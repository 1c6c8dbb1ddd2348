package search

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var start = []float64{0.5, 0.5}

// sphere has its minimum, 0, at (0.3, 0.8).
func sphere(x []float64) float64 {
	return math.Pow(x[0]-0.3, 2) + math.Pow(x[1]-0.8, 2)
}

func run(t testing.TB, s Sampler, from, n int, f func([]float64) float64) []Trial {
	t.Helper()
	var trials []Trial
	for i := range n {
		x, err := s.Ask()
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range x {
			if !(v >= 0 && v <= 1) || v*grid != math.Round(v*grid) {
				t.Fatalf("trial %d is at %v, want a grid point of the cube", from+i, x)
			}
		}
		trials = append(trials, Trial{Number: from + i, X: slices.Clone(x), Value: f(x)})
		if err := s.Tell(x, trials[i].Value); err != nil {
			t.Fatal(err)
		}
	}
	return trials
}

func newSampler(t testing.TB, name string, seed uint64) Sampler {
	t.Helper()
	s, err := New(name, Options{Seed: seed, Start: start})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Same seed, same points; and a search cut anywhere goes on as if it had not been.
func TestReplayGoesOnAsIfUninterrupted(t *testing.T) {
	for _, name := range Names() {
		whole := run(t, newSampler(t, name, 7), 0, 60, sphere)
		for _, cut := range []int{0, 1, 5, 6, 7, 29, 60} {
			s := newSampler(t, name, 7)
			if err := Replay(s, whole[:cut]); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if rest := run(t, s, cut, 60-cut, sphere); len(rest) > 0 && !reflect.DeepEqual(rest, whole[cut:]) {
				t.Errorf("%s: after %d trials it goes on otherwise", name, cut)
			}
		}
		if name == "hillclimb" || name == "descent" {
			continue // has no use for a seed
		}
		if reflect.DeepEqual(whole, run(t, newSampler(t, name, 8), 0, 60, sphere)) {
			t.Errorf("%s: another seed, the same points", name)
		}
	}
}

func TestReplayRefusesOtherTrials(t *testing.T) {
	trials := run(t, newSampler(t, "random", 1), 0, 3, sphere)
	err := Replay(newSampler(t, "random", 2), trials)
	if err == nil || !strings.Contains(err.Error(), "trial 0") {
		t.Errorf("error %v, want one that names trial 0", err)
	}
}

// Median best of 60 over 20 seeds. The even draw's expectation is 1/(60·π) = 5e-3.
func TestSamplersFindTheMinimum(t *testing.T) {
	for name, limit := range map[string]float64{"cmaes": 2e-3, "tpe": 2e-3, "random": 1e-2, "hillclimb": 1e-4, "descent": 1e-6} {
		var best []float64
		for seed := range uint64(20) {
			low := math.Inf(1)
			for _, x := range run(t, newSampler(t, name, seed), 0, 60, sphere) {
				low = min(low, x.Value)
			}
			best = append(best, low)
		}
		slices.Sort(best)
		median := (best[9] + best[10]) / 2
		t.Logf("%s: %.2g", name, median)
		if !(median <= limit) {
			t.Errorf("%s: median best %g, want at most %g", name, median, limit)
		}
	}
}

// A flat function, and one with its minimum in a corner: no sampler gets stuck.
func TestSamplersStandAnything(t *testing.T) {
	for _, name := range Names() {
		run(t, newSampler(t, name, 1), 0, 400, func([]float64) float64 { return 1 })
		low := 9.0
		for _, x := range run(t, newSampler(t, name, 1), 0, 200, func(x []float64) float64 { return x[0] + x[1] }) {
			low = min(low, x.Value)
		}
		if low > 0.2 {
			t.Errorf("%s: lowest of a slope is %g", name, low)
		}
	}
}

func TestUnknownSampler(t *testing.T) {
	_, err := New("prayer", Options{Start: start})
	if err == nil || !strings.Contains(err.Error(), "cmaes, tpe, random, hillclimb, descent") {
		t.Errorf("error %v, want one that lists the samplers", err)
	}
}

// Ahead asks what a sampler asks that is told the same of every point.
func TestAhead(t *testing.T) {
	for _, name := range Names() {
		o := Options{Seed: 3, Start: []float64{0.5, 0.25}}
		s, err := New(name, o)
		if err != nil {
			t.Fatal(err)
		}
		twin, err := New(name, o)
		if err != nil {
			t.Fatal(err)
		}
		points, err := Ahead(twin, 20, 1)
		if err != nil || len(points) != 20 {
			t.Fatal(len(points), err)
		}
		for i, want := range points {
			x, err := s.Ask()
			if err != nil || !slices.Equal(x, want) {
				t.Fatalf("%s: point %d is %v (%v), want %v", name, i, x, err, want)
			}
			if err := s.Tell(x, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
}
