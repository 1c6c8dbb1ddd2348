package allocate

import (
	"math"
	"testing"

	"github.com/crepe-llm/crepe/param"
)

// By hand: of three blocks of which the last has no weights, t is −1, 0, 1. With slope 1
// and first 0.5 the log-odds are c − 0.5 and c, whose shares have the mean 1/2 of equal
// weights if c = 0.25. At any sparsity and bend the mean is exact and no share leaves
// (0, 1).
func TestDepthByHand(t *testing.T) {
	params := param.Values{"depth_slope": 1., "depth_curve": 0., "depth_first": 0.5}
	blocks := []Block{{Weights: 10}, {Weights: 10}, {}}
	if uniform, err := Depth.Allocate(blocks, sparsity(t, "50%"), params); uniform || err != nil {
		t.Fatal(uniform, err)
	}
	for b, want := range []float64{1 / (1 + math.Exp(0.25)), 1 / (1 + math.Exp(-0.25)), 0} {
		if !(math.Abs(blocks[b].Sparsity-want) <= 1e-9) {
			t.Errorf("block %d: %v, want %v", b, blocks[b].Sparsity, want)
		}
	}
	for _, p := range []string{"1%", "50%", "99%"} {
		for _, bend := range []float64{-4, -0.3, 0, 4} {
			blocks := make([]Block, 30)
			for b := range blocks {
				blocks[b].Weights = 1000 + 7*b
			}
			params := param.Values{"depth_slope": bend, "depth_curve": -bend / 2, "depth_first": bend}
			uniform, err := Depth.Allocate(blocks, sparsity(t, p), params)
			if err != nil || uniform {
				t.Fatalf("%s, bend %v: uniform %v, error %v", p, bend, uniform, err)
			}
			total, got := 0.0, 0.0
			for _, b := range blocks {
				total += float64(b.Weights)
				got += float64(b.Weights) * b.Sparsity
				if !(b.Sparsity > 0 && b.Sparsity < 1) {
					t.Errorf("%s, bend %v: share %v", p, bend, b.Sparsity)
				}
			}
			if want := sparsity(t, p).Float64(); !(math.Abs(got/total-want) <= 1e-12) {
				t.Errorf("%s, bend %v: %v of all, want %v", p, bend, got/total, want)
			}
		}
	}
}
