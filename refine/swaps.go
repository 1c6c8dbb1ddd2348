package refine

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"

	"github.com/crepe-llm/crepe/fit"
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/param"
	"github.com/crepe-llm/crepe/tensor"
)

// Swaps exchanges weights as long as that lowers the error of the outputs.
var Swaps = Method{
	Name:      "swaps",
	Doc:       "exchanges the pair that lowers each output's squared error most, until no pair lowers it",
	Cite:      "Zimmer et al. 2025, arXiv:2512.10922",
	Params:    append([]param.Spec{layers(All), cycles(100)}, fit.Params()...),
	NeedsGram: true,
	Run:       runSwaps,
}

// runSwaps refines each row by itself. Its error is uᵀHu, H the Gram matrix,
// 2/n·Σ XᵀX: twice the squared change of the row's output, summed over a
// sequence's tokens, a mean over the sequences. With r = Hu, bringing back j and
// pruning i changes it by
//
//	Δ_ji = a_j + b_i − 2·w_j·w_i·H_ji
//	a_j  = w_j²·H_jj − 2·w_j·r_j    j pruned
//	b_i  = w_i²·H_ii + 2·w_i·r_i    i kept
//
// The exchange of the lowest Δ of the row, under N:M the lowest inside a group,
// is made, r follows in two columns of H, and so on until no Δ is below 0 or
// refine_cycles exchanges are made. So every exchange lowers the error, and a row that
// ends before the limit is one that no single exchange improves.
//
// H is float32, all else float64 but the first r of a row: products of float32
// over 256 columns at a time, summed in float64. That decides only which
// exchange is looked at; before one is made, its r_j and r_i are summed anew in
// float64, and Δ must be below 0 by more than their rounding. Which is lowest is
// therefore exact but for Δ that r's first rounding, some 1e-7, cannot tell apart.
//
// Result's error is that of all rows. Equal Δ: the first found.
//
// Zimmer et al. 2025 (SparseSwaps), arXiv:2512.10922; the search by bounds is ours.
func runSwaps(ctx context.Context, p Problem) (Result, error) {
	p.check()
	p.Gram.check(p.W.Cols)
	s := newSwaps(&p)
	refiners := &sync.Pool{New: func() any { return newSwapRow(s) }}
	var sum Result
	for lo := 0; lo < p.W.Rows; lo += swapRows {
		s.first(lo, min(lo+swapRows, p.W.Rows))
		r, err := eachRow(ctx, lo, min(lo+swapRows, p.W.Rows), refiners)
		if err != nil {
			return sum, err
		}
		sum.Add(r)
	}
	return sum, nil
}

const (
	swapRows  = 256 // rows whose r are held: 23 MB at 11008 columns
	swapDepth = 256 // columns a product sums in float32
)

// swaps is a run.
type swaps struct {
	*Problem
	cycles int       // exchanges a row at most
	diag   []float64 // H_jj
	groups []float32 // under N:M: Gram.groups
	order  []int     // and the columns in the order of their groups
	u      tensor.Matrix
	part   tensor.Matrix // a product
	r      []float64     // swapRows × in
	lo     int           // row of r's first
}

func newSwaps(p *Problem) *swaps {
	rows, cols := min(swapRows, p.W.Rows), p.W.Cols
	s := &swaps{
		Problem: p, cycles: p.Params.Whole("refine_cycles"), diag: make([]float64, cols),
		u: tensor.NewMatrix(rows, cols), part: tensor.NewMatrix(rows, cols), r: make([]float64, rows*cols),
	}
	for j := range s.diag {
		s.diag[j] = float64(p.Gram.h.Row(j)[j])
	}
	if of := p.Pattern.Of; of != 0 {
		s.order, _ = p.order()
		s.groups = p.Gram.groups(s.order, of)
	}
	return s
}

// SwapsBytes returns what Swaps works in for an input of width in.
func SwapsBytes(in int) int64 { return 16 * swapRows * int64(in) }

// first fills r with HU for the rows lo to hi−1.
func (s *swaps) first(lo, hi int) {
	s.lo = lo
	n, cols := hi-lo, s.W.Cols
	parallel.For(n, taskRows, func(a, b int) {
		for i := a; i < b; i++ {
			row := s.u.Row(i)
			s.W.Row(row, lo+i)
			for j := range row {
				if s.Kept.Kept(lo+i, j) {
					row[j] = 0
				}
			}
		}
	})
	clear(s.r)
	for k := 0; k < cols; k += swapDepth {
		depth := min(swapDepth, cols-k)
		kernel.MatMulT(s.part.Data, cols, s.u.Data[k:], cols, kernel.Source{F32: s.Gram.h.Data[k:]}, cols, n, cols, depth)
		parallel.For(n, taskRows, func(a, b int) {
			r := s.r[a*cols : b*cols]
			for i, v := range s.part.Data[a*cols : b*cols] {
				r[i] += float64(v)
			}
		})
	}
}

// swapRow refines one row after the other.
type swapRow struct {
	*swaps
	row          []float32
	w, u         []float64
	r            []float64 // the row's, in swaps.r
	exact        []bool    // r_j has been summed in float64
	square       []float64 // w_j²·H_jj
	norm         []float64 // its root
	reach        []float64 // near_j·norm_j, so that |w_j·w_k·H_jk| ≤ reach_j·reach_k
	slope        []float64 // of change_j by r_j: −2·w_j pruned, 2·w_j kept
	change       []float64 // a_j or b_j
	gone         []bool    // pruned
	pruned, kept []int32   // columns; those of an exchange change places
	at           []int32   // where a column is in its list
	bound        []float64 // by place in pruned: no Δ_ji is lower
	back, away   queue     // what bestInRow has left of pruned, by bound, and of kept, by b
	left         []int32   // the columns of back
	rounding     float64   // of a Δ of columns with norms of sum 1
}

func newSwapRow(s *swaps) *swapRow {
	n := s.W.Cols
	f := func() []float64 { return make([]float64, n) }
	return &swapRow{
		swaps: s, row: make([]float32, n), w: f(), u: f(), exact: make([]bool, n), gone: make([]bool, n), square: f(), norm: f(), reach: f(), slope: f(), change: f(),
		pruned: make([]int32, 0, n), kept: make([]int32, 0, n), at: make([]int32, n), bound: f(),
	}
}

func (s *swapRow) refine(i int) Result {
	s.load(i)
	var out Result
	for j, u := range s.u {
		out.Before += u * s.r[j]
	}
	out.After = out.Before
	for out.Exchanges < s.cycles {
		j, k := s.best()
		if j < 0 {
			break
		}
		seen := s.exact[j] && s.exact[k]
		if !seen {
			s.sum(j)
			s.sum(k)
		}
		delta := s.change[j] + s.change[k] - 2*s.w[j]*s.w[k]*float64(s.Gram.h.Row(j)[k])
		switch {
		case delta < -s.rounding*(s.norm[j]+s.norm[k]):
			s.exchange(j, k)
			s.Kept.Exchange(i, k, j)
			out.Exchanges++
			out.After += delta
		case seen:
			return out // the best there is
		}
	}
	return out
}

// load takes up row i.
func (s *swapRow) load(i int) {
	n := s.W.Cols
	s.W.Row(s.row, i)
	s.r = s.swaps.r[(i-s.lo)*n : (i-s.lo+1)*n]
	s.pruned, s.kept = s.pruned[:0], s.kept[:0]
	clear(s.exact)
	clear(s.u)
	s.rounding = 0
	for j, v := range s.row {
		w := float64(v)
		s.w[j] = w
		s.square[j] = w * w * s.diag[j]
		s.norm[j] = math.Sqrt(s.square[j])
		s.reach[j] = s.Gram.near[j] * s.norm[j]
		s.gone[j] = !s.Kept.Kept(i, j)
		if !s.gone[j] {
			s.slope[j] = 2 * w
			s.at[j] = int32(len(s.kept))
			s.kept = append(s.kept, int32(j))
		} else {
			s.u[j] = w
			s.slope[j] = -2 * w
			s.at[j] = int32(len(s.pruned))
			s.pruned = append(s.pruned, int32(j))
			s.rounding += s.norm[j]
		}
	}
	// |r_j| ≤ sqrt(H_jj)·Σ norm, and a sum of n is off by n·2⁻⁵³ of that; an
	// exchange can add no more than two of its terms.
	s.rounding *= 4 * float64(n) * 0x1p-53
	for j, v := range s.r {
		s.change[j] = s.square[j] + s.slope[j]*v
	}
}

// sum computes r_j anew.
func (s *swapRow) sum(j int) {
	if s.exact[j] {
		return
	}
	h, u := s.Gram.h.Row(j), s.u
	var p [4]float64
	for len(u) >= 4 && len(h) >= 4 {
		p[0] += float64(h[0]) * u[0]
		p[1] += float64(h[1]) * u[1]
		p[2] += float64(h[2]) * u[2]
		p[3] += float64(h[3]) * u[3]
		h, u = h[4:], u[4:]
	}
	for k, v := range u {
		p[0] += float64(h[k]) * v
	}
	s.exact[j] = true
	s.r[j] = (p[0] + p[1]) + (p[2] + p[3])
	s.change[j] = s.square[j] + s.slope[j]*s.r[j]
}

// exchange brings back j and prunes k.
func (s *swapRow) exchange(j, k int) {
	s.at[j], s.at[k] = s.at[k], s.at[j]
	s.kept[s.at[j]], s.pruned[s.at[k]] = int32(j), int32(k)
	s.slope[j], s.slope[k] = -s.slope[j], -s.slope[k]
	s.u[j], s.u[k] = 0, s.w[k]
	s.gone[j], s.gone[k] = false, true
	hj, hk, wj, wk := s.Gram.h.Row(j), s.Gram.h.Row(k), s.w[j], s.w[k]
	r, square, slope, change := s.r[:len(hj)], s.square[:len(hj)], s.slope[:len(hj)], s.change[:len(hj)]
	hk = hk[:len(hj)]
	for c, v := range hj {
		r[c] += wk*float64(hk[c]) - wj*float64(v)
		change[c] = square[c] + slope[c]*r[c]
	}
}

// best returns the exchange of the lowest Δ below 0: j comes back, k goes. j is
// −1 if there is none.
func (s *swapRow) best() (j, k int) {
	if s.groups != nil {
		return s.bestInGroups()
	}
	return s.bestInRow()
}

// bestInRow bounds Δ from below for each pruned j,
//
//	Δ_ji ≥ a_j + f(reach_j),  f(t) = min over kept i of b_i − 2·t·reach_i
//
// and tries the j of the lowest bound with every i. Only those j are left whose
// bound is below the Δ found; for each i the same bound over those j leaves
// some i. What is left is tried from the lowest bound up, each j with the i of
// ascending b_i as far as the lowest Δ so far can be reached.
func (s *swapRow) bestInRow() (int, int) {
	if len(s.pruned) == 0 || len(s.kept) == 0 {
		return -1, -1
	}
	f := s.floor(s.kept, s.pruned)
	first := 0
	for p, j := range s.pruned {
		s.bound[p] = s.change[j] + f.at(s.reach[j])
		if s.bound[p] < s.bound[first] {
			first = p
		}
	}
	b := pair{j: -1, k: -1}
	s.tryAll(int(s.pruned[first]), &b)
	s.back, s.left = s.back[:0], s.left[:0]
	for p, j := range s.pruned {
		if s.bound[p] < b.delta && p != first {
			s.back.add(s.bound[p], int(j))
			s.left = append(s.left, j)
		}
	}
	if len(s.back) == 0 {
		return b.j, b.k
	}
	s.back.order()
	f = s.floor(s.left, s.kept)
	s.away = s.away[:0]
	top := 0.0
	for _, i := range s.kept {
		if s.change[i]+f.at(s.reach[i]) < b.delta {
			s.away.add(s.change[i], int(i))
			top = max(top, s.reach[i])
		}
	}
	slices.SortFunc(s.away, func(a, b candidate) int { return cmp.Compare(a.key, b.key) })
	for len(s.back) > 0 && s.back[0].key < b.delta {
		s.trySome(s.back.pop(), top, &b)
	}
	return b.j, b.k
}

// floorSteps is into how many parts a floor's range is cut.
const floorSteps = 4

// floor bounds min over some columns c of change_c − 2·t·reach_c from below, for
// t from 0 to a top: that is concave in t, so between two values it was
// computed for it is not below the line through those.
type floor struct {
	value [floorSteps + 2]float64 // at t = g/scale; the last is for t at the top
	scale float64
}

// floor returns that of the columns over, for the reach of any of the columns at.
func (s *swapRow) floor(over, at []int32) floor {
	top := 0.0
	for _, c := range at {
		top = max(top, s.reach[c])
	}
	var f floor
	if top > 0 {
		f.scale = floorSteps / top
	}
	step := 2 * top / floorSteps
	v0, v1, v2, v3, v4 := math.Inf(1), math.Inf(1), math.Inf(1), math.Inf(1), math.Inf(1)
	for _, c := range over {
		v, d := s.change[c], step*s.reach[c]
		v0 = min(v0, v)
		v1 = min(v1, v-d)
		v2 = min(v2, v-2*d)
		v3 = min(v3, v-3*d)
		v4 = min(v4, v-4*d)
	}
	f.value = [...]float64{v0, v1, v2, v3, v4, v4}
	return f
}

func (f *floor) at(t float64) float64 {
	t *= f.scale
	g := min(int(t), floorSteps)
	return f.value[g] + (t-float64(g))*(f.value[g+1]-f.value[g])
}

// pair is an exchange; delta is 0 where j is −1.
type pair struct {
	j, k  int
	delta float64
}

// tryAll holds every kept weight against j.
func (s *swapRow) tryAll(j int, b *pair) {
	h, w, change := s.Gram.h.Row(j), s.w, s.change
	double := 2 * w[j]
	limit, at := b.delta-change[j], -1
	for _, i := range s.kept {
		if d := change[i] - double*w[i]*float64(h[i]); d < limit {
			limit, at = d, int(i)
		}
	}
	if at >= 0 {
		*b = pair{j, at, change[j] + limit}
	}
}

// trySome holds those of away against j that can be below b; top is the largest
// reach of them.
func (s *swapRow) trySome(j int, top float64, b *pair) {
	h, double := s.Gram.h.Row(j), 2*s.w[j]
	limit, at := b.delta-s.change[j], -1
	gain := 2 * s.reach[j] * top
	for _, c := range s.away {
		if c.key-gain >= limit {
			break
		}
		if d := c.key - double*s.w[c.j]*float64(h[c.j]); d < limit {
			limit, at = d, c.j
		}
	}
	if at >= 0 {
		*b = pair{j, at, s.change[j] + limit}
	}
}

// bestInGroups looks at every pair of every group.
func (s *swapRow) bestInGroups() (int, int) {
	b := pair{j: -1, k: -1}
	of := s.Pattern.Of
	for lo := 0; lo < len(s.w); lo += of {
		group := s.order[lo : lo+of]
		for p, j := range group {
			if !s.gone[j] {
				continue
			}
			h := s.swaps.groups[(lo+p)*of : (lo+p+1)*of]
			double := 2 * s.w[j]
			for q, i := range group {
				if s.gone[i] {
					continue
				}
				if d := s.change[j] + s.change[i] - double*s.w[i]*float64(h[q]); d < b.delta {
					b = pair{j, i, d}
				}
			}
		}
	}
	return b.j, b.k
}
