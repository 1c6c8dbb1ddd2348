package update

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cpu"
	"github.com/crepe-llm/crepe/engine/enginetest"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// gramOf returns the Gram of tokens × in correlated activations, with one
// channel a hundred times as loud as the rest, and the sequences' number 1.
func gramOf(rng *rand.Rand, tokens, in int, dead ...int) *stats.Gram {
	x := tensor.NewMatrix(tokens, in)
	for t := range tokens {
		row, carry := x.Row(t), 0.0
		for j := range row {
			carry = 0.8*carry + rng.NormFloat64()
			row[j] = float32(carry)
		}
		row[in/3] *= 100
		for _, j := range dead {
			row[j] = 0
		}
	}
	return gramFrom(x)
}

func gramFrom(x tensor.Matrix) *stats.Gram {
	return enginetest.Stats(cpu.New(engine.F32), x, stats.Needs{Gram: true}).Gram
}

func weightOf(rng *rand.Rand, rows, cols int) *tensor.Weight {
	w := tensor.NewWeight(tensor.F32, rows, cols)
	for i := range rows {
		row := make([]float32, cols)
		for j := range row {
			row[j] = float32(rng.NormFloat64())
		}
		w.SetRow(i, 0, row)
	}
	return w
}

func target(t testing.TB, s string) pattern.Target {
	var out pattern.Target
	var err error
	if strings.Contains(s, ":") {
		out.Pattern, err = pattern.ParsePattern(s)
	} else {
		out.Sparsity, err = pattern.ParseSparsity(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func wide(w *tensor.Weight) [][]float64 {
	out := make([][]float64, w.Rows)
	row := make([]float32, w.Cols)
	for i := range out {
		w.Row(row, i)
		out[i] = make([]float64, w.Cols)
		for j, v := range row {
			out[i][j] = float64(v)
		}
	}
	return out
}

func clone(w *tensor.Weight) *tensor.Weight {
	c := tensor.NewWeight(w.DType, w.Rows, w.Cols)
	copy(c.Bytes(), w.Bytes())
	return c
}

func run(t testing.TB, w *tensor.Weight, g *stats.Gram, kept *mask.Mask, to pattern.Target) *tensor.Weight {
	t.Helper()
	return runBy(t, SparseGPT, w, g, kept, to)
}

func runBy(t testing.TB, m Method, w *tensor.Weight, g *stats.Gram, kept *mask.Mask, to pattern.Target) *tensor.Weight {
	t.Helper()
	p, err := m.Prepare(g, to.Pattern, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := clone(w)
	if err := p.Run(t.Context(), out, kept, to, make([]float32, w.Rows*w.Cols)); err != nil {
		t.Fatal(err)
	}
	return out
}

// damped returns H as the method has it, in float64.
func damped(g *stats.Gram, share float64) [][]float64 {
	n, mean := g.N, 0.0
	h := make([][]float64, n)
	for i := range h {
		h[i] = make([]float64, n)
		for j := range h[i] {
			h[i][j] = g.At(i, j)
		}
		if h[i][i] == 0 {
			h[i][i] = 1
		}
		mean += h[i][i] / float64(n)
	}
	for i := range h {
		h[i][i] += share * mean
	}
	return h
}

// inverse is Gauss-Jordan's.
func inverse(h [][]float64) [][]float64 {
	n := len(h)
	a := make([][]float64, n)
	for i := range a {
		a[i] = append(slices.Clone(h[i]), make([]float64, n)...)
		a[i][n+i] = 1
	}
	for c := range n {
		p := c
		for i := c; i < n; i++ {
			if math.Abs(a[i][c]) > math.Abs(a[p][c]) {
				p = i
			}
		}
		a[c], a[p] = a[p], a[c]
		for k, v := 0, a[c][c]; k < 2*n; k++ {
			a[c][k] /= v
		}
		for i := range n {
			if v := a[i][c]; i != c && v != 0 {
				for k := c; k < 2*n; k++ {
					a[i][k] -= v * a[c][k]
				}
			}
		}
	}
	for i := range a {
		a[i] = a[i][n:]
	}
	return a
}

// upperFactor returns U with a = UᵀU.
func upperFactor(a [][]float64) [][]float64 {
	n := len(a)
	u := make([][]float64, n)
	for i := range u {
		u[i] = make([]float64, n)
		for j := i; j < n; j++ {
			s := a[i][j]
			for k := range i {
				s -= u[k][i] * u[k][j]
			}
			if i == j {
				u[i][i] = math.Sqrt(s)
			} else {
				u[i][j] = s / u[i][i]
			}
		}
	}
	return u
}

// published is the source's algorithm word for word, in float64: the inverse,
// its factor, errors spread to all columns on the right.
func published(w [][]float64, g *stats.Gram, kept *mask.Mask, to pattern.Target) [][]float64 {
	u := upperFactor(inverse(damped(g, dampings[0])))
	rows, cols := len(w), len(w[0])
	for i := range w {
		for j := range w[i] {
			if g.At(j, j) == 0 {
				w[i][j] = 0
			}
		}
	}
	stays := make([][]bool, rows)
	for i := range stays {
		stays[i] = make([]bool, cols)
		for j := range stays[i] {
			stays[i][j] = kept == nil || kept.Kept(i, j)
		}
	}
	drop := func(i0, i1, j0, j1, k int) {
		var at [][2]int
		for i := i0; i < i1; i++ {
			for j := j0; j < j1; j++ {
				at = append(at, [2]int{i, j})
			}
		}
		saliency := func(p [2]int) float64 { return math.Abs(w[p[0]][p[1]]) / u[p[1]][p[1]] }
		sort.SliceStable(at, func(a, b int) bool { return saliency(at[a]) < saliency(at[b]) })
		for _, p := range at[:k] {
			stays[p[0]][p[1]] = false
		}
	}
	for j := range cols {
		switch {
		case kept != nil:
		case to.Pattern.Of != 0 && j%to.Pattern.Of == 0:
			for i := range rows {
				drop(i, i+1, j, j+to.Pattern.Of, to.Pattern.Of-to.Pattern.Keep)
			}
		case to.Pattern.Of == 0 && j%blockColumns == 0:
			end := min(j+blockColumns, cols)
			drop(0, rows, j, end, to.Sparsity.CountOf(rows*end)-to.Sparsity.CountOf(rows*j))
		}
		for i := range rows {
			if stays[i][j] {
				continue
			}
			e := w[i][j] / u[j][j]
			for k := j; k < cols; k++ {
				w[i][k] -= e * u[j][k]
			}
			w[i][j] = 0
		}
	}
	return w
}

// loss is Σ over rows of (w−q)ᵀH(w−q), undamped or not as h is.
func loss(w, q, h [][]float64) float64 {
	sum := 0.0
	for i := range w {
		for a := range h {
			da := w[i][a] - q[i][a]
			for b := range h {
				sum += da * h[a][b] * (w[i][b] - q[i][b])
			}
		}
	}
	return sum
}

func countZeros(w [][]float64) int {
	n := 0
	for _, row := range w {
		for _, v := range row {
			if v == 0 {
				n++
			}
		}
	}
	return n
}

func randomMask(t testing.TB, rng *rand.Rand, rows, cols int, to pattern.Target) *mask.Mask {
	scores := make([]float32, rows*cols)
	for i := range scores {
		scores[i] = rng.Float32()
	}
	m, err := mask.Select(scores, rows, cols, to)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// refit returns the kept weights that minimise (w−q)ᵀH(w−q), row by row.
func refit(w [][]float64, h [][]float64, zero func(i, j int) bool) [][]float64 {
	q := make([][]float64, len(w))
	for i := range w {
		var at []int
		for j := range h {
			if !zero(i, j) {
				at = append(at, j)
			}
		}
		sub := make([][]float64, len(at))
		right := make([]float64, len(at))
		for a, j := range at {
			for _, k := range at {
				sub[a] = append(sub[a], h[j][k])
			}
			for k := range h {
				right[a] += h[j][k] * w[i][k]
			}
		}
		q[i] = make([]float64, len(h))
		for a, row := range inverse(sub) {
			for b, v := range row {
				q[i][at[a]] += v * right[b]
			}
		}
	}
	return q
}
