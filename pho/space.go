package pho

import (
	"math"
	"slices"

	"github.com/crepe-llm/crepe/model"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/recipe"
)

// space is the unit cube of a sampler, and what its points stand for.
type space struct {
	kernels []int // of several, an axis chooses one

	// The rest is of the wide family. Without it the points are the paper's triangle.
	wide  bool
	from  Coefficients // that the cube's start stands for
	unit  float64      // of δ: what α/R is on average
	rows  bool         // rows and the matrix are both to be tried
	kinds []string     // of Linears
}

// mostPower is the greatest power of the wide family, and mostDepth in what range the
// parameters of depth lie, around 0.
const (
	mostPower = 1.5
	mostDepth = 4
)

// between returns v, but at least lo and at most hi.
func between(lo, v, hi float64) float64 { return min(max(v, lo), hi) }

// start is the point where a sampler begins.
func (s *space) start() []float64 {
	if !s.wide {
		x := slices.Clone(Start)
		if len(s.kernels) > 1 {
			x = append(x, 0.5)
		}
		return x
	}
	var x []float64
	c := s.from.Normalized()
	if s.rows {
		d := c.depth()
		for _, v := range []float64{d.First, d.Slope, d.Curve} {
			x = append(x, between(0, 0.5+v/mostDepth, 1))
		}
	}
	for range s.kinds {
		x = append(x, 0.5, 0.5)
	}
	delta := 0.0
	if c.Delta > 0 {
		delta = c.Delta / (c.Delta + s.unit)
	}
	x = append(x, c.Kind("").Share(), between(0, c.Power/mostPower, 1), c.Gamma, delta)
	if s.rows {
		rows := 0.25
		if c.Compare == pattern.Row.String() {
			rows = 0.75
		}
		x = append(x, rows)
	}
	if len(s.kernels) > 1 {
		x = append(x, 0.5)
	}
	return x
}

// at returns the candidate at x.
//
// In the wide family, x is: for unstructured sparsity the parameters of depth; for each
// kind of Linear by how much its power and the column term's share of row and column
// differ from where the search began; the share and the power of all kinds, the share of
// the neighbourhood, that of the weight itself (δ in units of 1/R), for unstructured
// sparsity whether rows compare, and the kernel. A sampler that goes along one axis after
// the other tries first what gained the most on real models.
func (s *space) at(x []float64) Coefficients {
	if !s.wide {
		return At(x[0], x[1], s.kernel(x[2:]))
	}
	take := func(n int) []float64 {
		head := x[:n]
		x = x[n:]
		return head
	}
	var c Coefficients
	if s.rows {
		d := take(3)
		at := func(i int) float64 { return onGrid((d[i] - 0.5) * mostDepth) }
		if d := (Depth{First: at(0), Slope: at(1), Curve: at(2)}); d != (Depth{}) {
			c.Depth = &d
		}
	}
	own := take(2 * len(s.kinds))
	all := take(4)
	share, power, gamma, delta := all[0], mostPower*all[1], all[2], all[3]
	pair := (1 - gamma) * (1 - delta)
	c.Alpha, c.Beta, c.Gamma = onGrid(pair*(1-share)), onGrid(pair*share), onGrid(gamma*(1-delta))
	c.Delta, c.Power = onGrid(delta*s.unit), onGrid(power)
	if c.Alpha+c.Beta+c.Gamma+c.Delta == 0 {
		c.Delta = 1 // δ alone, whatever its unit
	}
	if s.rows && take(1)[0] >= 0.5 {
		c.Compare = pattern.Row.String()
	}
	c.Kernel = s.kernel(x)
	for i, name := range s.kinds {
		was, of := s.from.Kind(name), s.from.Kind("")
		power := between(0, power+was.Power-of.Power+own[2*i]-0.5, mostPower)
		share := between(0, share+was.Share()-of.Share()+own[2*i+1]-0.5, 1)
		k := Kind{onGrid(pair * (1 - share)), onGrid(pair * share), onGrid(power)}
		if k != (Kind{c.Alpha, c.Beta, c.Power}) {
			c.setKind(name, k)
		}
	}
	return c
}

// kernel returns the width that the first of x chooses.
func (s *space) kernel(x []float64) int {
	n := len(s.kernels)
	if n == 1 {
		return s.kernels[0]
	}
	return s.kernels[min(int(x[0]*float64(n)), n-1)]
}

// wideSpace is the wide family for a model around a candidate. The model's first Linear
// says in which unit δ is.
func wideSpace(m *model.Model, kernels []int, first *firstLinear, from Coefficients) *space {
	s := &space{kernels: kernels, wide: true, from: from, rows: first.resolved.Target.Pattern.Of == 0, unit: 1}
	if from.Alpha+from.Beta+from.Gamma == 0 && (!s.rows || from.Compare == pattern.Row.String()) {
		s.from.Alpha, s.from.Delta = 1, 0 // in a row 1/R is a constant, as δ is
	}
	sum := 0.0
	row := make([]float32, first.w.Cols)
	for i := range first.w.Rows {
		first.w.Row(row, i)
		for _, v := range row {
			sum += math.Abs(float64(v))
		}
	}
	if sum > 0 {
		s.unit = float64(first.w.Rows) / sum
	}
	for b := range m.Blocks() {
		for _, l := range m.Linears(b) {
			kind := recipe.Kind(l.Name)
			if !l.Gate && !first.resolved.Skips(l.Name) && !slices.Contains(s.kinds, kind) {
				s.kinds = append(s.kinds, kind)
			}
		}
	}
	slices.Reverse(s.kinds) // what ends a branch first, and the MLP before attention: there most is gained
	return s
}
