package score

import (
	"errors"
	"sync"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/stats"
	"github.com/crepe-llm/crepe/tensor"
)

// CRePE adds the share of the neighbourhood, and the weight itself, to RIA. The paper's
// coefficients are α = β = γ = 1 with power 0.5, compared within the matrix. The defaults
// are what is best over the real models and patterns of docs/real-models.md: there the
// neighbourhood does harm, and the power 1 and rows are better.
var CRePE = Method{
	Name:      "crepe",
	Doc:       "|W|·(α/row sum + β/column sum + γ/neighbourhood + δ)·‖X‖^power; compares within rows",
	Cite:      "CRePE",
	Group:     pattern.Row,
	NeedsData: true,
	Params: []param.Spec{
		{Name: "alpha", Doc: "coefficient of the row term", Default: 1., Max: maxCoefficient},
		{Name: "beta", Doc: "coefficient of the column term", Default: 1., Max: maxCoefficient},
		{Name: "gamma", Doc: "coefficient of the neighbourhood term", Default: 0., Max: maxCoefficient},
		{Name: "delta", Doc: "coefficient of the weight itself", Default: 0., Max: maxCoefficient},
		{Name: "kernel", Doc: "width of the neighbourhood", Default: 9, Choices: []any{3, 5, 7, 9, 11}, Factor: "gamma"},
		{Name: power.Name, Doc: power.Doc, Default: 1., Max: power.Max},
	},
	Valid: someTerm,
	Point: pointOf,
	Score: scoreCRePE,
}

// Paper returns the parameters that CRePE is published with. It compares within the
// matrix.
func Paper() param.Values {
	return CRePE.Defaults().With("gamma", 1.).With("power", DefaultPower)
}

func pointOf(p param.Values) Point {
	return Point{
		Alpha: p.Number("alpha"), Beta: p.Number("beta"), Gamma: p.Number("gamma"), Delta: p.Number("delta"),
		Power: p.Number(power.Name), Kernel: p.Whole("kernel"),
	}
}

// maxCoefficient bounds coefficients so that no score overflows float32 for the
// weights and activations of any real model.
const maxCoefficient = 1e6

// someTerm refuses coefficients by which every score is 0.
func someTerm(p param.Values) error {
	if p.Number("alpha") == 0 && p.Number("beta") == 0 && p.Number("gamma") == 0 && p.Number("delta") == 0 {
		return errors.New("alpha, beta, gamma and delta are all 0, want one above it")
	}
	return nil
}

// scoreCRePE adds to RIA the weight's share of its neighbourhood, which lies
// beside its own row and column, and the weight itself:
//
//	S_ij = |W_ij|·(α/R_i + β/C_j + γ/N_ij + δ)·‖X_j‖^p
//	N_ij = |W_ij| + Σ_{1≤|a|≤r} Σ_{1≤|b|≤r} |W_{i+a,j+b}|,   r = (kernel−1)/2
//
// with zeros outside the matrix: a k × k square has (k−1)² + 1 elements. N is
// float32, a tree of additions of numbers that are not negative, at most 9
// deep, so its relative error is at most 9·2⁻²⁴ (kernel.CrossImportance), and
// that of S at most 15·2⁻²⁴: six roundings follow on N's way to S, and fewer on δ's.
// All else is as in scoreRIA. The paper has no δ. With it other methods are points of
// one family: with the coefficients that are not named 0, the scores have the bits of
//
//	ria        α = β = 1
//	wanda      δ = 1, p = 1 (compared within rows)
//	magnitude  δ = 1, p = 0
//
// Sums of r rows are shared between the rows above and below them, and sums of
// r columns of those between the columns to the left and right.
func scoreCRePE(dst []float32, w *tensor.Weight, s *stats.Input, p param.Values) error {
	checkDst(dst, w)
	n, err := norms(w.Cols, s, p.Number("power"))
	if err != nil {
		return err
	}
	row, col, err := absSums(w)
	if err != nil {
		return err
	}
	a, b := overSums(p.Number("alpha"), row), overSums(p.Number("beta"), col)
	addTo(a, p.Number("delta"))
	gamma := p.Number("gamma")
	if gamma == 0 {
		relative(dst, w, a, b, n)
		return nil
	}
	cross(dst, w, a, b, n, float32(gamma), p.Whole("kernel")/2)
	return nil
}

// A task scores crossStrip rows of a panel of crossCols columns, or of
// crossColsF32, and reads r more rows and kernel.Halo more columns on each side.
// The rings of the widest neighbourhood then fill the first-level cache and leave
// room for what streams through, of which float32 is more.
const (
	crossStrip   = 256
	crossCols    = 576
	crossColsF32 = 512
)

// cross writes (|W_ij|·(a_i + b_j) + γ|W_ij|/N_ij)·n_j, N of radius r.
func cross(dst []float32, w *tensor.Weight, a, b, n []float32, gamma float32, r int) {
	width := crossCols
	if w.Source().F32 != nil {
		width = crossColsF32
	}
	panels := ceil(w.Cols, width)
	width = ceil(ceil(w.Cols, panels), kernel.PanelStep) * kernel.PanelStep // about the same for all
	strips := ceil(w.Rows, crossStrip)
	parallel.For(strips*panels, 1, func(task, _ int) {
		t := crossTasks.Get().(*crossTask)
		defer crossTasks.Put(t)
		j := task % panels * width
		t.begin(w, b, n, j, min(j+width, w.Cols), r)
		t.c.Gamma = gamma
		i := task / panels * crossStrip
		t.run(dst, a, i, min(i+crossStrip, w.Rows))
		t.w, t.src = nil, kernel.Source{} // the pool is not to hold on to the weight
	})
}

// ceil returns the least integer that is at least a/b.
func ceil(a, b int) int { return (a + b - 1) / b }

// crossTask scores a strip of rows of one panel. Its buffers have a halo on
// both sides; rows are kept in rings, as long as later rows need them.
type crossTask struct {
	w      *tensor.Weight
	src    kernel.Source
	lo, hi int // columns
	r      int
	c      kernel.Cross
	mag    ring // magnitudes of row i+k in row k
	sum    ring // of the magnitudes of rows i+k−r … i+k−1 in row k
	b, n   []float32
	sides  []float32
	out    []float32
}

// ring holds size rows, of which rows[first] is the first.
type ring struct {
	rows        [kernel.MaxRadius + 2][]float32
	first, size int
}

// row returns row k after the first, k < size.
func (g *ring) row(k int) []float32 {
	k += g.first
	if k >= g.size {
		k -= g.size
	}
	return g.rows[k]
}

// advance makes the second row the first, and the first the last.
func (g *ring) advance() {
	if g.first++; g.first == g.size {
		g.first = 0
	}
}

// reset cuts the rows to their first length elements and takes size of them.
func (g *ring) reset(size, length int) {
	g.first, g.size = 0, size
	for i, row := range g.rows {
		g.rows[i] = row[:length]
	}
}

// Slices of their lengths begin on a line of the cache, which arrays in the
// struct would not.
var crossTasks = sync.Pool{New: func() any {
	t := new(crossTask)
	for _, s := range []*[]float32{&t.b, &t.n, &t.sides, &t.out} {
		*s = make([]float32, crossCols)
	}
	for i := range t.mag.rows {
		const length = crossCols + 2*kernel.Halo
		t.mag.rows[i], t.sum.rows[i] = make([]float32, length), make([]float32, length)
	}
	return t
}}

// begin sets t to columns lo to hi-1 of w.
func (t *crossTask) begin(w *tensor.Weight, b, n []float32, lo, hi, r int) {
	t.w, t.src, t.lo, t.hi, t.r = w, w.Source(), lo, hi, r
	clear(t.b[copy(t.b, b[lo:hi]):])
	clear(t.n[copy(t.n, n[lo:hi]):])
	width := ceil(hi-lo, kernel.PanelStep) * kernel.PanelStep
	t.c.B, t.c.S, t.c.Sides = t.b[:width], t.n[:width], t.sides[:width]
	t.mag.reset(r+1, width+2*kernel.Halo)
	t.sum.reset(r+2, width+2*kernel.Halo)
	t.c.Ahead = rowsAhead * w.Cols
}

// run writes the scores of rows lo to hi-1. It begins r+1 rows before, to
// have the sums above the first; what it scores there is dropped.
func (t *crossTask) run(dst, a []float32, lo, hi int) {
	c, width, r := &t.c, len(t.c.B), t.r
	first := lo - r - 1
	for k := range r {
		t.load(t.mag.row(k), first+k)
	}
	for i := first; i < hi; i++ {
		t.load(t.mag.row(r), i+r)
		c.Row = t.mag.row(0)
		for k := range r {
			c.Below[k] = t.mag.row(1 + k)
		}
		c.Above, c.Under = t.sum.row(0), t.sum.row(r+1)
		out := t.out
		if i >= lo {
			c.A = a[i]
			out = dst[i*t.w.Cols+t.lo : i*t.w.Cols+t.hi]
		}
		if i < lo || len(out) < width {
			kernel.CrossImportance(t.out[:width], c, r)
			copy(out, t.out)
		} else {
			kernel.CrossImportance(out, c, r)
		}
		t.mag.advance()
		t.sum.advance()
	}
}

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
		kernel.AbsBF16(in, t.src.BF16[lo:hi], rowsAhead*t.w.Cols)
		return
	}
	kernel.Abs(in, segment(in, t.src, lo, hi), rowsAhead*t.w.Cols)
}
