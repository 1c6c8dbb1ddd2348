package pho

import (
	"math"
	"testing"
)

// The cube begins at the candidate that it is made around, each axis changes it, and
// every point is one that crepe can score by.
func TestSpaceBeginsAtItsCandidate(t *testing.T) {
	kinds := []string{"q_proj", "down_proj"}
	for _, from := range []Coefficients{
		Default(9), Equal(9), Wanda(9),
		{Alpha: 1, Beta: 0.25, Kernel: 5, Power: 0.75, Compare: "row", Depth: &Depth{Slope: 0.5, First: -1}, Kinds: map[string]Kind{"down_proj": {Alpha: 0.625, Beta: 0.625, Power: 1}}},
	} {
		for _, rows := range []bool{true, false} {
			s := &space{kernels: []int{from.Kernel}, wide: true, from: from, unit: 0.01, rows: rows, kinds: kinds}
			want := from
			if !rows {
				want.Compare, want.Depth = "", nil
			}
			x := s.start()
			got := s.at(x)
			if from.Delta > 0 { // α/R and δ share the cube: nearly
				if !(math.Abs(got.Delta-0.0099) < 0.0001) {
					t.Errorf("%s is %s at the start", from, got)
				}
				continue
			}
			if !got.Duplicates(want) {
				t.Errorf("%s is %s at the start", want, got)
			}
			for i := range x {
				changes := false
				for _, step := range []float64{-0.5, 0.25} {
					y := append([]float64(nil), x...)
					y[i] = between(0, y[i]+step, 1)
					moved := s.at(y)
					changes = changes || moved.Key() != got.Key()
					if err := moved.Valid(); err != nil {
						t.Errorf("%s: axis %d: %v", from, i, err)
					}
				}
				if !changes {
					t.Errorf("%s: axis %d of %d changes nothing", from, i, len(x))
				}
			}
			for _, v := range []float64{0, 1} {
				for i := range x {
					x[i] = v
				}
				if err := s.at(x).Valid(); err != nil {
					t.Errorf("%s: corner %v: %v", from, v, err)
				}
			}
		}
	}
}

// A recipe and its coefficients say the same.
func TestCoefficientsOfRecipe(t *testing.T) {
	c := Coefficients{Alpha: 1, Beta: 0.25, Kernel: 5, Power: 0.75, Compare: "row", Depth: &Depth{Slope: 0.5, First: -1}, Kinds: map[string]Kind{"down_proj": {Alpha: 0.625, Beta: 0.625, Power: 1}}}
	for _, nm := range []bool{false, true} {
		r := options(nil).Recipe
		want := c
		if nm {
			r.Sparsity, r.Pattern = "", "2:4"
			want.Compare, want.Depth = "", nil
		}
		r = c.Of(r)
		if _, err := r.Resolve(); err != nil {
			t.Fatal(err)
		}
		if got, err := Of(r); err != nil || got.Key() != want.Key() {
			t.Errorf("%s comes back as %s (%v)", want, got, err)
		}
	}
	r := RIA(9).Of(options(nil).Recipe)
	r.Allocate = "owl"
	if _, err := Of(r); err == nil {
		t.Error("an allocation that coefficients cannot say is taken")
	}
}
