package linalg

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// TestAssignEqualsSciPy: tools/golden_permute.py made the matrices, random and
// degenerate, and their least costs.
func TestAssignEqualsSciPy(t *testing.T) {
	text, err := os.ReadFile("testdata/assignment.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name  string
		N     int
		Cost  []float64
		Least float64
	}
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) != 46 {
		t.Fatalf("%d matrices (%v), want 46", len(cases), err)
	}
	for _, c := range cases {
		was := slices.Clone(c.Cost)
		got, size := costOf(t, c.Cost, c.N, Assign(c.Cost, c.N))
		if !(math.Abs(got-c.Least) <= float64(c.N)*0x1p-50*size) {
			t.Errorf("%s, %d: costs %v, want %v", c.Name, c.N, got, c.Least)
		}
		if !slices.Equal(c.Cost, was) {
			t.Errorf("%s, %d: Assign changed the costs", c.Name, c.N)
		}
	}
}

// costOf returns what the assignment costs, and the sum of the sizes.
func costOf(t *testing.T, cost []float64, n int, to []int) (sum, size float64) {
	t.Helper()
	sorted := slices.Sorted(slices.Values(to))
	for i, j := range sorted {
		if i != j || len(to) != n {
			t.Fatalf("%v is no assignment of %d", to, n)
		}
	}
	for i, j := range to {
		sum += cost[i*n+j]
		size += math.Abs(cost[i*n+j])
	}
	return sum, size
}

// TestAssignIsBest tries every assignment of small matrices.
func TestAssignIsBest(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	for range 2000 {
		n := 1 + rng.IntN(6)
		cost := make([]float64, n*n)
		for i := range cost {
			cost[i] = float64(rng.IntN(7) - 3)
		}
		best := math.Inf(1)
		used := make([]bool, n)
		var try func(i int, sum float64)
		try = func(i int, sum float64) {
			if i == n {
				best = min(best, sum)
				return
			}
			for j := range n {
				if !used[j] {
					used[j] = true
					try(i+1, sum+cost[i*n+j])
					used[j] = false
				}
			}
		}
		try(0, 0)
		if got, _ := costOf(t, cost, n, Assign(cost, n)); got != best {
			t.Fatalf("%d: %v costs %v, want %v", n, cost, got, best)
		}
	}
	if got := Assign(nil, 0); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func BenchmarkAssign(b *testing.B) {
	const n = 1024
	rng := rand.New(rand.NewPCG(2, 0))
	random, products := make([]float64, n*n), make([]float64, n*n)
	for i := range n {
		for j := range n {
			random[i*n+j] = rng.Float64()
			products[i*n+j] = float64((i + 1) * (j + 1))
		}
	}
	for name, cost := range map[string][]float64{"random": random, "products": products} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				Assign(cost, n)
			}
		})
	}
}

func BenchmarkSquaredSingularValues(b *testing.B) {
	for _, n := range []int{1024, 4096} {
		w := benchWeight(n)
		b.Run(map[int]string{1024: "1024", 4096: "4096"}[n], func(b *testing.B) {
			for b.Loop() {
				if _, err := SquaredSingularValues(w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
