package permute

import (
	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/linalg"
)

// assignSlots improves the order slot by slot: each slot's columns are
// assigned to the groups anew, so that the retained score is the greatest that
// any exchange within the slot gives. With t_g[r] the N-th largest score of row r
// among the other M−1 columns of group g, the N largest of these and a candidate
// x sum to what the N largest of the others do, and Σ_r max(x[r] − t_g[r], 0)
// more. So the groups' own sums play no part, and the gain
//
//	D[g, x] = Σ_r max(x[r] − t_g[r], 0)
//
// is what is assigned: (in/M)² sums over the rows for each slot. Inside a run of
// rows they are float32, 16 partial sums each, added in float64.
//
// Groups are cut into blocks, and columns stay in theirs.
//
// Zhang et al. 2024, "Plug-and-Play: An Efficient Post-training Pruning Method
// for Large Language Models", ICLR. Their code builds the same sums by sorting
// every group with every candidate.
func assignSlots(l *layout, blocks int) {
	for c := range l.slots {
		l.thresholds(c)
		parts := make([][]int, blocks)
		for b := range parts {
			lo, hi := b*l.groups/blocks, (b+1)*l.groups/blocks
			loss := l.gains(c, lo, hi)
			for i, v := range loss {
				loss[i] = -v
			}
			parts[b] = linalg.Assign(loss, hi-lo)
		}
		for b, to := range parts {
			l.move(c, b*l.groups/blocks, to)
		}
	}
}

// thresholds writes t_g of every group, without slot c, to scratch.
func (l *layout) thresholds(c int) {
	parallel.For(l.groups, 4, func(lo, hi int) {
		best := newTop(l.pattern.Keep)
		for g := lo; g < hi; g++ {
			to := l.scratch[g*l.stride : g*l.stride+l.rows]
			for r := range to {
				best.clear()
				for o := range l.slots {
					if o != c {
						best.add(l.slots[o][g*l.stride+r])
					}
				}
				to[r] = best[0]
			}
		}
	})
}

const (
	gainGroups  = 16   // of a task: their thresholds of a run, 64 KiB, stay in the second cache
	gainColumns = 32   // met by them before the next run of rows: 128 KiB
	gainRows    = 1024 // of a run
)

// gains returns D of the groups lo to hi-1 and their columns in slot c, row by row.
func (l *layout) gains(c, lo, hi int) []float64 {
	n := hi - lo
	d := make([]float64, n*n)
	x := l.slots[c]
	parallel.For((n+gainGroups-1)/gainGroups, 1, func(task, _ int) {
		g0, g1 := task*gainGroups, min((task+1)*gainGroups, n)
		for x0 := 0; x0 < n; x0 += gainColumns {
			x1 := min(x0+gainColumns, n)
			for r := 0; r < l.stride; r += gainRows {
				rows := min(gainRows, l.stride-r)
				for g := g0; g < g1; g += kernel.ExcessT {
					for j := x0; j < x1; j += kernel.ExcessX {
						var lanes [kernel.ExcessT][kernel.ExcessX][kernel.ExcessLanes]float32
						kernel.Excess(&lanes, l.scratch[(lo+g)*l.stride+r:], x[(lo+j)*l.stride+r:], l.stride, rows)
						for a := range min(kernel.ExcessT, g1-g) {
							for b := range min(kernel.ExcessX, x1-j) {
								d[(g+a)*n+j+b] += sum(&lanes[a][b])
							}
						}
					}
				}
			}
		}
	})
	return d
}

func sum(lanes *[kernel.ExcessLanes]float32) float64 {
	s := 0.0
	for _, v := range lanes {
		s += float64(v)
	}
	return s
}

// move gives group lo+i of slot c the column of group lo+to[i].
func (l *layout) move(c, lo int, to []int) {
	m := l.pattern.Of
	columns := make([]int, len(to))
	for i, from := range to {
		columns[i] = l.order[(lo+from)*m+c]
		copy(l.scratch[(lo+i)*l.stride:], l.column(c, lo+from))
	}
	copy(l.slots[c][lo*l.stride:(lo+len(to))*l.stride], l.scratch[lo*l.stride:])
	for i, j := range columns {
		l.order[(lo+i)*m+c] = j
	}
}
