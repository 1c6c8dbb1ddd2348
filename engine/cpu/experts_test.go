package cpu

import (
	"math"
	"slices"
	"testing"
)

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
		got := make([]choice, 2)
		if choose(got, slices.Clone(c.p), c.renormalise); !slices.Equal(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.p, got, c.want)
		}
	}
	nan := float32(math.NaN())
	got := make([]choice, 1)
	if choose(got, []float32{nan, nan}, false); !(got[0].weight < 0) {
		t.Errorf("NaN: got %v, want none", got)
	}
}
