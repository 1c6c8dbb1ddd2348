package refine

import (
	"context"
	"math"
	"sync"

	"github.com/crepe-llm/crepe/param"
)

// DSnoT balances what pruning takes from the expected output of each row.
var DSnoT = Method{
	Name:         "dsnot",
	Doc:          "regrows and prunes weights until the expected change of each output is near 0",
	Cite:         "Zhang et al. 2024, arXiv:2310.08915",
	Params:       []param.Spec{layers(Attention), cycles(50)},
	NeedsMoments: true,
	Run:          runDSnoT,
}

// threshold is the |err| that a row is left at. It is absolute, so what it means
// depends on the window's length. The source's default.
const threshold = 0.1

// runDSnoT refines by DSnoT. With M_j = W_ij·ColSum_j, what column j adds to
// the row's output over a sequence, the pruned weights take away
//
//	err = Σ_pruned M_j
//
// and while |err| > 0.1, at most refine_cycles times,
//
//	regrow  the pruned weight of the sign of err with the largest |M_j|/ColVar_j
//	prune   unstructured: the kept weight of the other sign with the lowest
//	        |W_ij|·‖X_j‖, whatever the mask was selected by
//	        N:M: the kept weight of the lowest score in the regrown one's group
//	err    += M_pruned − M_regrown
//
// Each weight changes sides once at most. Under N:M, where the sign of what is
// pruned is not chosen, a row ends before an exchange after which err would not
// have the sign it began with. Result's error is Σ_i |err_i|.
//
// Equal candidates: the lower index first. Where ColVar_j is 0 the quotient is
// infinite and j comes first; a weight with M_j = 0, of a silent channel or 0
// itself, is never regrown: it changes nothing. M, quotients and err are
// float64.
//
// The source's candidate lists also hold what is no candidate, and a row that
// has used up its own goes on into those: here a row ends when it has none. Of
// N:M a candidate whose group has no weight left to give is passed over, so that
// N:M always holds.
//
// Zhang et al. 2024, arXiv:2310.08915, algorithm 1.
func runDSnoT(ctx context.Context, p Problem) (Result, error) {
	p.check()
	norm := make([]float64, p.W.Cols)
	for j, sq := range p.Input.ColSq {
		norm[j] = math.Sqrt(sq)
	}
	at, place := p.order()
	return eachRow(ctx, 0, p.W.Rows, &sync.Pool{New: func() any {
		return &dsnotRow{Problem: &p, norm: norm, at: at, place: place, cycles: p.Params.Whole("refine_cycles"), w: make([]float32, p.W.Cols), regrown: map[int]bool{}}
	}})
}

// dsnotRow refines rows, one after the other. Of pairs the first is for M below
// 0, the second for M above.
type dsnotRow struct {
	*Problem
	norm    []float64 // ‖X_j‖
	at      []int     // N:M: Problem.order
	place   []int
	cycles  int       // exchanges a row at most
	w       []float32 // the row
	regrow  [2]queue
	prune   [2]queue     // unstructured
	regrown map[int]bool // N:M: what was regrown in the row, and must stay
}

// m returns M_j.
func (b *dsnotRow) m(j int) float64 { return float64(b.w[j]) * b.Input.ColSum[j] }

func (b *dsnotRow) refine(i int) Result {
	b.W.Row(b.w, i)
	err := 0.0
	for j := range b.w {
		if !b.Kept.Kept(i, j) {
			err += b.m(j)
		}
	}
	r := Result{Before: math.Abs(err)}
	if r.Before > threshold {
		b.gather(i)
		if b.Pattern.Of != 0 {
			err = b.groups(i, err, &r.Exchanges)
		} else {
			err = b.whole(i, err, &r.Exchanges)
		}
	}
	r.After = math.Abs(err)
	return r
}

// sideOf returns the index of v's sign.
func sideOf(v float64) int {
	if v > 0 {
		return 1
	}
	return 0
}

// gather fills the queues.
func (b *dsnotRow) gather(i int) {
	for side := range 2 {
		b.regrow[side], b.prune[side] = b.regrow[side][:0], b.prune[side][:0]
	}
	for j := range b.w {
		m := b.m(j)
		switch {
		case m == 0:
		case !b.Kept.Kept(i, j):
			b.regrow[sideOf(m)].add(-math.Abs(m)/b.Input.ColVar[j], j)
		case b.Pattern.Of == 0:
			b.prune[sideOf(m)].add(math.Abs(float64(b.w[j]))*b.norm[j], j)
		}
	}
	for side := range 2 {
		b.regrow[side].order()
		b.prune[side].order()
	}
}

// whole exchanges over all of row i and returns err.
func (b *dsnotRow) whole(i int, err float64, n *int) float64 {
	for ; *n < b.cycles && math.Abs(err) > threshold; *n++ {
		side := sideOf(err)
		if len(b.regrow[side]) == 0 || len(b.prune[1-side]) == 0 {
			break
		}
		grown, pruned := b.regrow[side].pop(), b.prune[1-side].pop()
		b.Kept.Exchange(i, pruned, grown)
		err += b.m(pruned) - b.m(grown)
	}
	return err
}

// groups exchanges within groups of row i and returns err.
func (b *dsnotRow) groups(i int, err float64, n *int) float64 {
	clear(b.regrown)
	side := sideOf(err)
	for *n < b.cycles && math.Abs(err) > threshold && len(b.regrow[side]) > 0 {
		grown := b.regrow[side].pop()
		pruned := b.lowest(i, grown)
		if pruned < 0 {
			continue
		}
		after := err + b.m(pruned) - b.m(grown)
		if after == 0 || sideOf(after) != side {
			break
		}
		b.Kept.Exchange(i, pruned, grown)
		b.regrown[grown] = true
		err = after
		*n++
	}
	return err
}

// lowest returns the column of j's group with the lowest score among those that
// were kept from the start and still are, -1 if there is none.
func (b *dsnotRow) lowest(i, j int) int {
	best := -1
	lo := b.place[j] / b.Pattern.Of * b.Pattern.Of
	scores := b.Scores[i*b.W.Cols:]
	for _, k := range b.at[lo : lo+b.Pattern.Of] {
		if b.Kept.Kept(i, k) && !b.regrown[k] && (best < 0 || scores[k] < scores[best]) {
			best = k
		}
	}
	return best
}

// queue gives columns by ascending key, of equal keys the lower column first:
// a binary heap, of which mostly a few are asked for.
type queue []candidate

type candidate struct {
	key float64
	j   int
}

func (a candidate) before(b candidate) bool { return a.key < b.key || a.key == b.key && a.j < b.j }

// add takes in a candidate; order must follow.
func (q *queue) add(key float64, j int) { *q = append(*q, candidate{key, j}) }

func (q queue) order() {
	for at := len(q)/2 - 1; at >= 0; at-- {
		q.sink(at)
	}
}

func (q *queue) pop() int {
	old := *q
	last := len(old) - 1
	first := old[0].j
	old[0] = old[last]
	*q = old[:last]
	if last > 0 {
		q.sink(0)
	}
	return first
}

func (q queue) sink(at int) {
	c := q[at]
	for {
		child := 2*at + 1
		if child >= len(q) {
			break
		}
		if child+1 < len(q) && q[child+1].before(q[child]) {
			child++
		}
		if !q[child].before(c) {
			break
		}
		q[at] = q[child]
		at = child
	}
	q[at] = c
}
