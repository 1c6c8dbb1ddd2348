package refine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// One row of three, by hand. H has 2 on its diagonal, H_01 = −1, else 0; w is
// 1, 2, 3. Pruned: 0, error 2. r = (2, −1, 0), so a_0 = 2 − 4, b_1 = 8 − 4,
// b_2 = 18: the lowest Δ is −2 + 4 − 2·1·2·(−1) = 6. Nothing helps.
// Pruned: 1, error 8. r = (−2, 4, 0), a_1 = 8 − 16, b_0 = 2 − 4, b_2 = 18:
// Δ_10 = −8 − 2 + 4 = −6, Δ_12 = 10. So 0 goes for 1.
func TestSwapsByHand(t *testing.T) {
	h := tensor.Matrix{Rows: 3, Cols: 3, Data: []float32{2, -1, 0, -1, 2, 0, 0, 0, 2}}
	for _, c := range []struct {
		scores []float32
		want   string
		n      int
	}{{[]float32{0, 1, 1}, ".##", 0}, {[]float32{1, 0, 1}, ".##", 1}} {
		in := &stats.Input{ColSq: make([]float64, 3)}
		p := start(t, weightOf(1, 3, 1, 2, 3), in, c.scores, target(t, "34%"), 9)
		p.Gram = gramOf(h)
		before := 2.
		if c.n == 1 {
			before = 8
		}
		r := do(t, Swaps, p)
		if grid(p.Kept) != c.want || r != (Result{c.n, before, 2}) {
			t.Errorf("%v: %s, %+v, want %s and %d exchanges from %v to 2", c.scores, grid(p.Kept), r, c.want, c.n, before)
		}
	}
}

// gramOf is the Gram of a whole matrix.
func gramOf(h tensor.Matrix) *Gram {
	g := &Gram{h: h, near: make([]float64, h.Rows)}
	for j := range g.near {
		g.near[j] = 1
	}
	return g
}

// brute is the refinement of row i by looking at every pair in float64, with r
// from its definition in each step. It returns the error before and after each
// exchange.
func brute(p Problem, i, cycles int) (kept []bool, errors []float64) {
	n := p.W.Cols
	row := make([]float32, n)
	p.W.Row(row, i)
	kept = make([]bool, n)
	for j := range kept {
		kept[j] = p.Kept.Kept(i, j)
	}
	for step := 0; ; step++ {
		r, err := make([]float64, n), 0.0
		for j := range n {
			for k := range n {
				if !kept[k] {
					r[j] += float64(p.Gram.h.Row(j)[k]) * float64(row[k])
				}
			}
			if !kept[j] {
				err += float64(row[j]) * r[j]
			}
		}
		errors = append(errors, err)
		if step == cycles {
			return kept, errors
		}
		best, bj, bk := 0.0, -1, -1
		for j := range n {
			for k := range n {
				if kept[j] || !kept[k] || p.Pattern.Of != 0 && j/p.Pattern.Of != k/p.Pattern.Of {
					continue
				}
				wj, wk, h := float64(row[j]), float64(row[k]), p.Gram.h
				d := wj*wj*float64(h.Row(j)[j]) - 2*wj*r[j] + wk*wk*float64(h.Row(k)[k]) + 2*wk*r[k] - 2*wj*wk*float64(h.Row(j)[k])
				if d < best {
					best, bj, bk = d, j, k
				}
			}
		}
		if bj < 0 || best > -1e-9*err {
			return kept, errors
		}
		kept[bj], kept[bk] = true, false
	}
}

func equalRow(m *mask.Mask, i int, kept []bool) bool {
	for j, k := range kept {
		if m.Kept(i, j) != k {
			return false
		}
	}
	return true
}

// TestSwapsIsBruteForce holds the search against looking at every pair: the same
// exchanges, each of which lowers the error.
func TestSwapsIsBruteForce(t *testing.T) {
	for _, to := range []string{"25%", "50%", "70%", "95%", "2:4", "1:4", "4:8"} {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", to, seed), func(t *testing.T) {
				const rows, cols = 9, 48
				for _, cycles := range []int{1, 5, 1000} {
					p := random(t, seed, rows, cols, target(t, to), cycles)
					before, after, n := 0.0, 0.0, 0
					wants := make([][]bool, rows)
					for i := range rows {
						kept, errors := brute(p, i, cycles)
						for s := 1; s < len(errors); s++ {
							if !(errors[s] < errors[s-1]) {
								t.Errorf("row %d: exchange %d takes the error from %v to %v", i, s, errors[s-1], errors[s])
							}
						}
						before += errors[0]
						after += errors[len(errors)-1]
						n += len(errors) - 1
						wants[i] = kept
					}
					r := do(t, Swaps, p)
					if r.Exchanges != n || !near(r.Before, before) || !near(r.After, after) {
						t.Errorf("%d cycles: %+v, want %d exchanges from %v to %v", cycles, r, n, before, after)
					}
					for i := range rows {
						if !equalRow(p.Kept, i, wants[i]) {
							t.Errorf("%d cycles: row %d is not brute force's", cycles, i)
						}
					}
				}
			})
		}
	}
}

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-5*math.Abs(want) }

// rowError is uᵀHu of row i in float64.
func rowError(p Problem, i int) float64 {
	_, errors := brute(p, i, 0)
	return errors[0]
}

// TestSwapsNeverRaisesTheError refines what is hard to tell apart: columns that
// nearly cancel, are the same, constant or silent, and weights that are 0.
func TestSwapsNeverRaisesTheError(t *testing.T) {
	const rows, cols = 16, 64
	for _, to := range []string{"50%", "2:4"} {
		rng := rand.New(rand.NewPCG(9, 0))
		e := cpu.New(engine.F32)
		a := e.NewStats(cols, stats.Needs{Gram: true})
		x := tensor.NewMatrix(100, cols)
		for i := range x.Rows {
			row := x.Row(i)
			common := float32(100 * rng.NormFloat64())
			for j := range row {
				row[j] = common + float32(1e-3*rng.NormFloat64())
				switch j % 8 {
				case 5:
					row[j] = row[j-1]
				case 6:
					row[j] = 0
				case 7:
					row[j] = 3
				}
			}
		}
		a.Add(enginetest.Upload(e, x))
		in := a.Input(1)
		w := weightOf(rows, cols)
		scores := make([]float32, rows*cols)
		for k := range scores {
			if k%5 != 0 {
				w.Source().F32[k] = float32(rng.NormFloat64())
			}
			scores[k] = rng.Float32()
		}
		for cycles := 1; cycles <= 64; cycles *= 2 {
			p := start(t, w, in, scores, target(t, to), cycles)
			was := make([]float64, rows)
			for i := range was {
				was[i] = rowError(p, i)
			}
			r := do(t, Swaps, p)
			for i := range was {
				if now := rowError(p, i); !(now <= was[i]) {
					t.Errorf("%s, %d cycles: row %d has error %v, had %v", to, cycles, i, now, was[i])
				}
			}
			if r.Exchanges == 0 || !(r.After < r.Before) {
				t.Errorf("%s, %d cycles: %+v", to, cycles, r)
			}
		}
	}
}

// The bound that the search goes by holds for every pair.
func TestGramNear(t *testing.T) {
	p := random(t, 3, 1, 90, pattern.Target{}, 1)
	g := p.Gram
	for j := range g.h.Rows {
		tight := false
		for k := range g.h.Rows {
			if g.h.Row(j)[k] != g.h.Row(k)[j] {
				t.Fatalf("H[%d, %d] is not H[%d, %d]", j, k, k, j)
			}
			if want := float32(p.Input.Gram.At(j, k)); g.h.Row(j)[k] != want {
				t.Fatalf("H[%d, %d] = %v, want %v", j, k, g.h.Row(j)[k], want)
			}
			if k == j {
				continue
			}
			c := math.Abs(float64(g.h.Row(j)[k])) / math.Sqrt(float64(g.h.Row(j)[j])*float64(g.h.Row(k)[k]))
			if c > g.near[j]*g.near[k] {
				t.Errorf("columns %d and %d: %v above %v", j, k, c, g.near[j]*g.near[k])
			}
			tight = tight || c >= g.near[j]*g.near[j]*(1-1e-6)
		}
		if !tight {
			t.Errorf("column %d: nothing reaches its bound", j)
		}
	}
}
