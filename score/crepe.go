package score

import (
	"sync"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// CRePE adds the share of the neighbourhood to RIA.
var CRePE = Method{
	Name:      "crepe",
	Doc:       "(α|W|/row sum + β|W|/column sum + γ|W|/neighbourhood)·‖X‖^power; compares within the matrix",
	Cite:      "CRePE",
	Group:     pattern.Matrix,
	NeedsData: true,
	Params:    []string{"alpha", "beta", "gamma", "kernel", "power"},
	Defaults:  Params{Alpha: 1, Beta: 1, Gamma: 1, Kernel: 9, Power: DefaultPower},
	Score:     scoreCRePE,
}

// scoreCRePE adds to RIA the weight's share of its neighbourhood, which lies
// beside its own row and column:
//
//	S_ij = (α|W_ij|/R_i + β|W_ij|/C_j + γ|W_ij|/N_ij)·‖X_j‖^p
//	N_ij = |W_ij| + Σ_{1≤|a|≤r} Σ_{1≤|b|≤r} |W_{i+a,j+b}|,   r = (Kernel−1)/2
//
// with zeros outside the matrix: a k × k kernel has (k−1)² + 1 elements. N is
// float32, a tree of additions of numbers that are not negative, at most 10
// deep, so its relative error is at most 10·2⁻²⁴ (kernel.CrossImportance);
// all else is as in scoreRIA. With α = β = 1 and γ = 0 the scores have the
// bits of RIA's.
//
// Vertical sums of r rows are shared between the rows above and below, and
// horizontal ones are taken by doubling.
func scoreCRePE(dst []float32, w *tensor.Weight, s *stats.Input, p Params) error {
	checkDst(dst, w)
	n, err := norms(w, s, p.Power)
	if err != nil {
		return err
	}
	row, col, err := absSums(w)
	if err != nil {
		return err
	}
	a, b := overSums(p.Alpha, row), overSums(p.Beta, col)
	if p.Gamma == 0 {
		relative(dst, w, a, b, n)
		return nil
	}
	cross(dst, w, a, b, n, float32(p.Gamma), p.Kernel/2)
	return nil
}

// A task scores crossStrip rows of a panel of crossCols columns, and reads r
// more rows and kernel.Halo more columns on each side. The rings of rows stay
// in the second-level cache. Narrower panels, which would stay in the first,
// are slower: memory likes long runs.
const (
	crossStrip = 256
	crossCols  = 4096
)

// cross writes (|W_ij|·(a_i + b_j) + γ|W_ij|/N_ij)·n_j, N of radius r.
func cross(dst []float32, w *tensor.Weight, a, b, n []float32, gamma float32, r int) {
	panels := (w.Cols + crossCols - 1) / crossCols
	strips := (w.Rows + crossStrip - 1) / crossStrip
	parallel.For(strips*panels, 1, func(task, _ int) {
		t := crossTasks.Get().(*crossTask)
		defer crossTasks.Put(t)
		j := task % panels * crossCols
		t.begin(w, b, n, j, min(j+crossCols, w.Cols), r)
		t.c.Gamma = gamma
		i := task / panels * crossStrip
		t.run(dst, a, i, min(i+crossStrip, w.Rows))
		t.w, t.src = nil, kernel.Source{} // the pool is not to hold on to the weight
	})
}

// crossTask scores a strip of rows of one panel. Its buffers have a halo on
// both sides; rows are kept in rings, as long as later rows need them.
type crossTask struct {
	w      *tensor.Weight
	src    kernel.Source
	lo, hi int // columns
	r      int
	c      kernel.Cross
	mag    [kernel.MaxRadius + 1][]float32 // magnitudes of row i in mag[i mod r+1]
	sum    [kernel.MaxRadius + 2][]float32 // of rows m … m+r−1 in sum[m mod r+2]
	b, n   [crossCols]float32
	out    [crossCols]float32
}

var crossTasks = sync.Pool{New: func() any {
	t := new(crossTask)
	const length = crossCols + 2*kernel.Halo
	for i := range t.mag {
		t.mag[i] = make([]float32, length)
	}
	for i := range t.sum {
		t.sum[i] = make([]float32, length)
	}
	return t
}}

// begin sets t to columns lo to hi-1 of w.
func (t *crossTask) begin(w *tensor.Weight, b, n []float32, lo, hi, r int) {
	t.w, t.src, t.lo, t.hi, t.r = w, w.Source(), lo, hi, r
	clear(t.b[copy(t.b[:], b[lo:hi]):])
	clear(t.n[copy(t.n[:], n[lo:hi]):])
	width := (hi - lo + 15) &^ 15
	t.c.B, t.c.S = t.b[:width], t.n[:width]
}

// run writes the scores of rows lo to hi-1. It begins r+1 rows before, to
// have the sums above the first; what it scores there is dropped.
func (t *crossTask) run(dst, a []float32, lo, hi int) {
	length := len(t.c.B) + 2*kernel.Halo
	row := func(i int) []float32 { return t.mag[mod(i, t.r+1)][:length] }
	sum := func(m int) []float32 { return t.sum[mod(m, t.r+2)][:length] }
	for i := lo - t.r; i < lo-1; i++ {
		t.load(row(i), i)
	}
	for i := lo - t.r - 1; i < hi; i++ {
		t.load(row(i+t.r), i+t.r)
		t.c.Row = row(i)
		for p := range t.r {
			t.c.Below[p] = row(i + 1 + p)
		}
		t.c.Above, t.c.Under = sum(i-t.r), sum(i+1)
		width, out := len(t.c.B), t.out[:]
		if i >= lo {
			t.c.A = a[i]
			out = dst[i*t.w.Cols+t.lo : i*t.w.Cols+t.hi]
		}
		if i < lo || len(out) < width {
			kernel.CrossImportance(t.out[:width], &t.c, t.r)
			copy(out, t.out[:])
			continue
		}
		kernel.CrossImportance(out, &t.c, t.r)
	}
}

func mod(i, m int) int { return (i%m + m) % m }

// load sets buf to the magnitudes of row i, the halos included.
func (t *crossTask) load(buf []float32, i int) {
	lo, hi := max(t.lo-kernel.Halo, 0), min(t.lo-kernel.Halo+len(buf), t.w.Cols)
	if i < 0 || i >= t.w.Rows {
		clear(buf)
		return
	}
	skip := lo - (t.lo - kernel.Halo)
	clear(buf[:skip])
	clear(buf[skip+hi-lo:])
	in := buf[skip : skip+hi-lo]
	lo, hi = i*t.w.Cols+lo, i*t.w.Cols+hi
	if t.src.BF16 != nil {
		kernel.AbsBF16(in, t.src.BF16[lo:hi])
	} else {
		kernel.Abs(in, segment(in, t.src, lo, hi))
	}
}
