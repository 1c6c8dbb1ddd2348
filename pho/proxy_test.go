package pho

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/score"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

func normalWeight(rows, cols int) (*tensor.Weight, *stats.Input) {
	rng := rand.New(rand.NewPCG(1, 2))
	w := tensor.NewWeight(tensor.BF16, rows, cols)
	row := make([]float32, cols)
	for i := range rows {
		for j := range row {
			row[j] = float32(0.02 * rng.NormFloat64())
		}
		kernel.NarrowBF16(w.Source().BF16[i*cols:(i+1)*cols], row)
	}
	s := &stats.Input{ColSq: make([]float64, cols), Sequences: 1, Tokens: 1}
	for j := range s.ColSq {
		s.ColSq[j] = 100 * rng.ExpFloat64()
	}
	return w, s
}

func target(t testing.TB, sparsity, nm string) pattern.Target {
	t.Helper()
	var out pattern.Target
	var err error
	if nm != "" {
		out.Pattern, err = pattern.ParsePattern(nm)
	} else {
		out.Sparsity, err = pattern.ParseSparsity(sparsity)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestGiniByHand(t *testing.T) {
	for _, c := range []struct {
		x    []float32
		want float64
	}{
		{[]float32{3, 1}, 0.25}, // (−1·1 + 1·3) / (2·4)
		{[]float32{5, 5, 5}, 0},
		{[]float32{0, 0}, 0},
		{[]float32{0, 0, 0, 1}, 0.75},
	} {
		if got := Gini(slices.Clone(c.x)); got != c.want {
			t.Errorf("Gini(%v) = %v, want %v", c.x, got, c.want)
		}
	}
}

// direct is Gini_pruned by prune's own scores and mask and a full sort.
func direct(t testing.TB, w *tensor.Weight, s *stats.Input, tg pattern.Target, c Coefficients) float64 {
	t.Helper()
	p := c.params()
	x := make([]float32, w.Rows*w.Cols)
	if err := score.CRePE.Score(x, w, s, p); err != nil {
		t.Fatal(err)
	}
	m, err := mask.Select(x, w.Rows, w.Cols, tg)
	if err != nil {
		t.Fatal(err)
	}
	var pruned []float32
	for k, v := range x {
		if !m.Kept(k/w.Cols, k%w.Cols) {
			pruned = append(pruned, v)
		}
	}
	return Gini(pruned)
}

func TestProxyEqualsFullSort(t *testing.T) {
	for _, size := range [][2]int{{8, 16}, {96, 200}, {700, 1024}} {
		w, s := normalWeight(size[0], size[1])
		for _, tg := range []pattern.Target{target(t, "50%", ""), target(t, "70%", ""), target(t, "", "2:4"), target(t, "", "4:8")} {
			p, err := NewProxy(w, s, tg)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []Coefficients{RIA(9), Equal(9), Equal(3), {Alpha: 0.2, Beta: 0.1, Gamma: 0.7, Kernel: 5, Power: PaperPower}, {Gamma: 1, Kernel: 11, Power: PaperPower}} {
				got, err := p.Gini(c)
				if err != nil {
					t.Fatal(err)
				}
				want := direct(t, w, s, tg, c)
				if !(math.Abs(got-want) <= tolerance*want) {
					t.Errorf("%v %v %s: %v, want %v (relative %.2g)", size, tg, c, got, want, math.Abs(got-want)/want)
				}
			}
		}
	}
}

// Scores that crowd in few bins are beyond the histogram: it must know.
func TestProxyOfCrowdedScores(t *testing.T) {
	w, s := normalWeight(64, 64)
	for k := range w.Source().BF16 {
		w.Source().BF16[k] = 0x3f80 // 1
	}
	for j := range s.ColSq {
		s.ColSq[j] = 1 + float64(j)*1e-6
	}
	tg := target(t, "50%", "")
	p, err := NewProxy(w, s, tg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []Coefficients{RIA(9), Equal(5)} {
		got, err := p.Gini(c)
		if err != nil {
			t.Fatal(err)
		}
		if want := direct(t, w, s, tg, c); !(math.Abs(got-want) <= tolerance*want) {
			t.Errorf("%s: %v, want %v", c, got, want)
		}
	}
}

func TestProxyDoesNotDependOnThreads(t *testing.T) {
	w, s := normalWeight(500, 512)
	p, err := NewProxy(w, s, target(t, "60%", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var want float64
	for i, n := range []int{1, 2, 3, 7} {
		runtime.GOMAXPROCS(n)
		got, err := p.Gini(Equal(9))
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			want = got
		}
		if got != want {
			t.Errorf("%d threads: %v, want the bits of %v", n, got, want)
		}
	}
}

func TestHistogramBoundHolds(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	x := make([]float32, 300_000)
	for i := range x {
		x[i] = float32(rng.ExpFloat64())
	}
	h := newHistogram()
	if bad := h.add(x); bad >= 0 {
		t.Fatal(bad)
	}
	got, ok := h.gini(h.hi+1, nil)
	if want := Gini(x); !ok || !(math.Abs(got-want) <= tolerance*want) {
		t.Errorf("%v (within the bound: %t), want %v", got, ok, want)
	}
	for _, v := range []float32{float32(math.NaN()), float32(math.Inf(1)), -1} {
		if h.add([]float32{0, v}) != 1 {
			t.Errorf("add accepts %v", v)
		}
	}
}

func TestAtIsOnTheTriangle(t *testing.T) {
	seen := 0
	for i := range 50 {
		for j := range 50 {
			c := At(float64(i)/49, float64(j)/49, 9)
			if s := c.Alpha + c.Beta + c.Gamma; cmp.Compare(math.Abs(s-1), 1e-12) > 0 || min(c.Alpha, c.Beta, c.Gamma) < 0 {
				t.Errorf("At(%d/49, %d/49) = %v", i, j, c)
			}
			if c.Alpha > 0.5 {
				seen++
			}
		}
	}
	if share := float64(seen) / 2500; share < 0.2 || share > 0.3 {
		t.Errorf("α > 1/2 in %.2f of the square, want the quarter that it is of the triangle", share)
	}
	if !At(Start[0], Start[1], 9).Duplicates(Equal(9)) {
		t.Errorf("Start is %v, want equal coefficients", At(Start[0], Start[1], 9))
	}
	if !RIA(3).Duplicates(RIA(9)) || Equal(3).Duplicates(Equal(9)) {
		t.Error("the kernel tells candidates apart only where γ is above 0")
	}
}

// 60 candidates on the first q_proj of a 7B model: seconds for all.
func BenchmarkProxy(b *testing.B) {
	w, s := normalWeight(4096, 4096)
	for _, tg := range []pattern.Target{target(b, "50%", ""), target(b, "", "2:4")} {
		b.Run(fmt.Sprint(tg.Pattern), func(b *testing.B) {
			for b.Loop() {
				p, err := NewProxy(w, s, tg)
				if err != nil {
					b.Fatal(err)
				}
				for i := range 60 {
					if _, err := p.Gini(At(float64(i)/60, float64(i*37%60)/60, 9)); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/60-candidates")
		})
	}
}
