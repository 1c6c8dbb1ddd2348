package linalg

import (
	"fmt"
	"math"
)

// Assign returns the assignment of columns to rows of the n × n matrix cost
// that costs least in all: row i gets column to[i], each column once,
//
//	Σ_i cost[i·n + to[i]]    is least
//
// Exact but for the rounding of float64, O(n³), in one thread: shortest
// augmenting paths with potentials u, v that keep every reduced cost
// cost_ij − u_i − v_j at least 0 and those of the assignment 0. Potentials begin
// as the columns' least, then the rows'; rows that have a reduced cost of 0 in
// a free column take it. Of several best assignments the result is always the
// same one. Costs must be finite.
//
// Jonker & Volgenant 1987, Computing 38:325; Crouse 2016, IEEE Transactions on
// Aerospace and Electronic Systems 52:1679.
func Assign(cost []float64, n int) (to []int) {
	if len(cost) != n*n {
		panic(fmt.Sprintf("linalg: Assign: %d costs, want %d × %d", len(cost), n, n))
	}
	a := assignment{
		cost: cost, n: n, u: make([]float64, n), v: make([]float64, n),
		to: make([]int, n), from: make([]int, n), path: make([]int, n), dist: make([]float64, n), left: make([]int, n),
	}
	a.begin()
	for i, j := range a.to {
		if j < 0 {
			a.augment(i)
		}
	}
	return a.to
}

type assignment struct {
	cost     []float64
	n        int
	u, v     []float64 // potentials of rows and columns
	to, from []int     // column of each row, row of each column; -1: none

	path []int     // of each column: the row before it on the shortest path
	dist []float64 // to each column
	left []int     // columns that the search has not reached
}

// begin reduces the costs and assigns what costs nothing then.
func (a *assignment) begin() {
	for j := range a.v {
		a.v[j], a.from[j] = math.Inf(1), -1
	}
	for i := range a.n {
		for j, c := range a.cost[i*a.n : (i+1)*a.n] {
			if !(math.Abs(c) <= math.MaxFloat64) {
				panic(fmt.Sprintf("linalg: Assign: cost [%d, %d] is %v", i, j, c))
			}
			a.v[j] = min(a.v[j], c)
		}
	}
	for i := range a.n {
		least, at := math.Inf(1), -1
		for j, c := range a.cost[i*a.n : (i+1)*a.n] {
			if d := c - a.v[j]; d < least || d == least && a.from[at] >= 0 && a.from[j] < 0 {
				least, at = d, j
			}
		}
		a.u[i], a.to[i] = least, -1
		if a.from[at] < 0 {
			a.to[i], a.from[at] = at, i
		}
	}
}

// augment assigns row i by the shortest path of reduced costs from it to a free
// column.
func (a *assignment) augment(i int) {
	for j := range a.dist {
		a.dist[j], a.left[j] = math.Inf(1), j
	}
	reached, far, end := 0, 0.0, -1
	for row := i; end < 0; {
		base := far - a.u[row]
		c := a.cost[row*a.n : (row+1)*a.n]
		least, at := math.Inf(1), -1
		for k, j := range a.left[reached:] {
			if d := base + c[j] - a.v[j]; d < a.dist[j] {
				a.dist[j], a.path[j] = d, row
			}
			if d := a.dist[j]; d < least || d == least && a.from[j] < 0 && a.from[a.left[reached+at]] >= 0 {
				least, at = d, k
			}
		}
		far = least
		j := a.left[reached+at]
		a.left[reached+at], a.left[reached] = a.left[reached], j
		reached++
		if a.from[j] < 0 {
			end = j
		} else {
			row = a.from[j]
		}
	}
	// Columns that were reached before the end, and the rows they belong to.
	a.u[i] += far
	for _, j := range a.left[:reached-1] {
		a.u[a.from[j]] += far - a.dist[j]
		a.v[j] -= far - a.dist[j]
	}
	for j := end; ; {
		row := a.path[j]
		a.from[j] = row
		j, a.to[row] = a.to[row], j
		if row == i {
			return
		}
	}
}
