package mask

import (
	"math"
	"slices"

	"github.com/crepe-llm/crepe/internal/kernel"
)

// Finding the k-th smallest of many scores without sorting them: count how
// many lie below a guess, which is a pass of vector compares, and narrow a
// bracket around the answer. The scores are not negative, so the bits of a
// float32 order as the numbers do.

// bracket holds the k-th smallest score t: lo ≤ t < hi. below(x) being how
// many scores are below x, nlo = below(lo) < k ≤ below(hi) = nhi.
type bracket struct {
	lo, hi   float32
	nlo, nhi int
}

// all is the bracket of n scores, of which nothing is known.
func all(n int) bracket {
	return bracket{lo: 0, hi: float32(math.Inf(1)), nlo: 0, nhi: n}
}

// inside returns how many scores the bracket holds.
func (b bracket) inside() int { return b.nhi - b.nlo }

// single reports whether the bracket holds one value, lo.
func (b bracket) single() bool {
	return math.Float32bits(b.lo)+1 >= math.Float32bits(b.hi)
}

// middle returns the value halfway in the order of float32.
func (b bracket) middle() float32 {
	lo, hi := math.Float32bits(b.lo), math.Float32bits(b.hi)
	return math.Float32frombits(lo + (hi-lo)/2)
}

// after returns the next larger float32.
func after(v float32) float32 {
	return math.Float32frombits(math.Float32bits(v) + 1)
}

// bisectEvery makes every so many guesses halve the bracket, so that 31 times
// as many guesses always do; the others assume that scores are spread evenly.
const bisectEvery = 4

// narrow returns a bracket within b that holds at most limit scores or a
// single value. guess is tried first if it is in b; below counts.
func (b bracket) narrow(k, limit int, guess float32, below func(t float32) int) bracket {
	for step := 0; b.inside() > limit && !b.single(); step++ {
		t := b.guess(k, limit)
		if step == 0 && guess > b.lo && guess < b.hi {
			t = guess
		}
		if step%bisectEvery == bisectEvery-1 || !(t > b.lo && t < b.hi) {
			t = b.middle()
		}
		if n := below(t); n < k {
			b.lo, b.nlo = t, n
		} else {
			b.hi, b.nhi = t, n
		}
	}
	return b
}

// guess returns where limit/4 scores more than asked for should lie on the
// farther side of k, to move that side up to k.
func (b bracket) guess(k, limit int) float32 {
	target := k + limit/4
	if b.nhi-k < k-b.nlo {
		target = k - limit/4
	}
	if math.IsInf(float64(b.hi), 1) { // along the line from 0 through lo
		return b.lo * float32(float64(target)/float64(b.nlo))
	}
	share := float64(target-b.nlo) / float64(b.inside())
	return b.lo + (b.hi-b.lo)*float32(share)
}

// smallSort is how many scores kth sorts.
const smallSort = 24

// kth returns the k-th smallest of x, 1 ≤ k ≤ len(x), which lies in b; guess
// is tried first if it is in b.
func (b bracket) kth(x []float32, k int, guess float32) float32 {
	b.nlo, b.nhi = 0, len(x)
	b = b.narrow(k, smallSort, guess, func(t float32) int { return kernel.CountBelow(x, t) })
	if b.single() {
		return b.lo
	}
	var few [smallSort]float32
	n := 0
	for _, v := range x {
		if v >= b.lo && v < b.hi {
			few[n] = v
			n++
		}
	}
	slices.Sort(few[:n])
	return few[k-b.nlo-1]
}
