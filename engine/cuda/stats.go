package cuda

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
	"github.com/crepe-llm/crepe/stats"
)

// accumulator gathers a stats.Input, sums in float64 on the device. A Gram matrix is of
// what products read: rounded to bfloat16 by an engine that rounds.
type accumulator struct {
	s      *stream
	in     int
	needs  stats.Needs
	tokens int

	squares          *buffer // Σ x_j²
	sums, deviations *buffer // Σ x_j and Σ (x_j − mean of its sequence)²
	gram             *buffer // panels of Σ XᵀX, one after another
	cross            *buffer
}

// NewStats implements engine.Engine. The memory of a Gram matrix is taken when the first
// token comes.
func (e *Engine) NewStats(in int, needs stats.Needs) engine.Stats {
	a := &accumulator{s: e.NewStream().(*stream), in: in, needs: needs}
	a.squares = e.zeros(8 * int64(in))
	if needs.Moments {
		a.sums, a.deviations = e.zeros(8*int64(in)), e.zeros(8*int64(in))
	}
	return a
}

func (d *Device) zeros(n int64) *buffer {
	b := d.buffer(n)
	d.Zero(b.at, n)
	return b
}

// StatsScratch implements engine.Engine: the products of a sequence.
func (e *Engine) StatsScratch(in int, needs stats.Needs) int64 {
	rows := needs.Cross
	if needs.Gram {
		rows = max(rows, in)
	}
	return 4 * int64(rows) * int64(in)
}

// Add implements engine.Stats.
func (a *accumulator) Add(x engine.Mat) { a.AddFit(x, engine.Fit{}) }

// AddFit implements engine.Stats.
func (a *accumulator) AddFit(x engine.Mat, f engine.Fit) {
	if x.Cols != a.in {
		panic(fmt.Sprintf("cuda: Stats.Add: %d columns, want %d", x.Cols, a.in))
	}
	if x.Rows == 0 {
		return
	}
	s := a.s
	defer s.Release(s.Mark())
	a.tokens += x.Rows
	blocks := (a.in + 31) / 32
	s.rows("column_squares", blocks, 1024, a.squares.at, at(x), x.Rows, a.in)
	if a.needs.Moments {
		s.rows("column_moments", blocks, 1024, a.sums.at, a.deviations.at, at(x), x.Rows, a.in)
	}
	if !a.needs.Gram && (a.needs.Cross == 0 || f.Lacks.Rows == 0) {
		return
	}
	var weights driver.Pointer
	if f.Weights != nil {
		weights = upload(s, f.Weights[:x.Rows])
	}
	plain := a.rows(x, 0)
	if a.needs.Gram {
		weighted := plain
		if weights != 0 {
			weighted = a.rows(x, weights)
		}
		a.addGram(weighted, plain, x.Rows)
	}
	if a.needs.Cross > 0 && f.Lacks.Rows > 0 {
		a.addCross(a.rows(f.Lacks, weights), plain, x.Rows)
	}
}

// rows returns the transpose of x's rows, each times its weight if there are weights, as
// products read them.
func (a *accumulator) rows(x engine.Mat, weights driver.Pointer) matrix {
	rounded := a.s.engine.compute == engine.BF16
	if !rounded && weights == 0 {
		return matrix{at(x), driver.F32, x.Cols, true}
	}
	t := driver.F32
	if rounded {
		t = driver.BF16
	}
	to := a.s.take(int64(t.Size()) * size(x))
	a.s.each("weigh_rows", size(x), 1, to, at(x), weights, x.Cols, size(x), rounded)
	return matrix{to, t, x.Cols, true}
}

// part returns m from row lo on.
func (m matrix) part(lo int) matrix {
	row, _ := m.steps()
	m.at += driver.Pointer(m.t.Size() * lo * row)
	return m
}

// addGram adds the upper half of Σ_t weighted_ti · plain_tj: of each strip of columns
// the rows down to its last.
func (a *accumulator) addGram(weighted, plain matrix, tokens int) {
	n := a.in
	if a.gram == nil {
		a.gram = a.s.engine.zeros(8 * panelElements(n))
	}
	const strip = 4 * stats.GramPanel
	products := a.s.take(4 * int64(n) * int64(n))
	for lo := 0; lo < n; lo += strip {
		hi := min(lo+strip, n)
		a.s.product(products+driver.Pointer(4*lo), n, weighted, plain.part(lo), hi, hi-lo, tokens)
	}
	panels := (n + stats.GramPanel - 1) / stats.GramPanel
	a.s.engine.Launch("add_panels", [3]int{n, panels, 1}, [3]int{stats.GramPanel, 1, 1}, 0, a.gram.at, products, n)
}

// panelElements returns what the panels of n columns hold together.
func panelElements(n int) int64 {
	sum := int64(0)
	for lo := 0; lo < n; lo += stats.GramPanel {
		hi := min(lo+stats.GramPanel, n)
		sum += int64(hi) * int64(hi-lo)
	}
	return sum
}

func (a *accumulator) addCross(lacks, plain matrix, tokens int) {
	n := int64(a.needs.Cross) * int64(a.in)
	if a.cross == nil {
		a.cross = a.s.engine.zeros(8 * n)
	}
	products := a.s.take(4 * n)
	a.s.product(products, a.in, lacks, plain, a.needs.Cross, a.in, tokens)
	a.s.each("add_products", n, 1, a.cross.at, products, n)
}

// Input implements engine.Stats.
func (a *accumulator) Input(sequences int) *stats.Input {
	n := float64(sequences)
	in := &stats.Input{ColSq: a.read(a.squares, a.in), Sequences: sequences, Tokens: a.tokens}
	for j := range in.ColSq {
		in.ColSq[j] /= n
	}
	if a.needs.Moments {
		in.ColSum, in.ColVar = a.read(a.sums, a.in), a.read(a.deviations, a.in)
		for j := range in.ColSum {
			in.ColSum[j] /= n
			in.ColVar[j] /= float64(max(a.tokens, 1))
		}
	}
	if a.needs.Gram {
		var panels [][]float64
		if a.gram != nil {
			panels = stats.NewGramPanels(a.in)
			at := a.gram.at
			for _, panel := range panels {
				download(a.s, panel, at)
				at += driver.Pointer(8 * len(panel))
			}
			a.gram = nil
		}
		in.Gram = stats.NewGram(a.in, 2/n, panels)
	}
	if a.needs.Cross > 0 {
		sum := make([]float64, a.needs.Cross*a.in)
		if a.cross != nil {
			sum = a.read(a.cross, len(sum))
		}
		in.Cross = stats.NewCross(a.needs.Cross, a.in, 2/n, sum)
	}
	return in
}

func (a *accumulator) read(b *buffer, n int) []float64 {
	v := make([]float64, n)
	download(a.s, v, b.at)
	return v
}
