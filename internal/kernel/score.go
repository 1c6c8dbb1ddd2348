package kernel

import "fmt"

// AbsSumLanes is the number of partial sums AbsSums keeps of a row, so that
// every vector width adds in the same order.
const AbsSumLanes = 16

// AbsSums adds a part of a row of a weight to the sums of its columns and row:
//
//	for j, v := range x { col[j] += |v|; lanes[j%AbsSumLanes] += |v| }
//
// in float64, the same bits on every processor. No finite x overflows; NaN and
// Inf stay in both sums. Meanwhile the memory ahead elements after x is fetched
// into the cache, where there is some. len(col) == len(x).
func AbsSums(col []float64, lanes *[AbsSumLanes]float64, x []float32, ahead int) {
	checkLen("AbsSums", "col", len(col), len(x))
	n := absSumsBlocks(col, lanes, x, ahead)
	absSumsGeneric(col[n:], lanes, x[n:])
}

// AbsSumsBF16 is AbsSums of bfloat16.
func AbsSumsBF16(col []float64, lanes *[AbsSumLanes]float64, x []uint16, ahead int) {
	checkLen("AbsSumsBF16", "col", len(col), len(x))
	n := absSumsBF16Blocks(col, lanes, x, ahead)
	absSumsBF16Generic(col[n:], lanes, x[n:])
}

// Abs is
//
//	for j, v := range x { dst[j] = |v| }
//
// and fetches ahead as AbsSums does. len(dst) == len(x); dst may be x.
func Abs(dst, x []float32, ahead int) {
	checkLen("Abs", "dst", len(dst), len(x))
	n := absBlocks(dst, x, ahead)
	absGeneric(dst[n:], x[n:])
}

// AbsBF16 is Abs of bfloat16:
//
//	for j, v := range x { dst[j] = |float32frombits(v << 16)| }
//
// len(dst) == len(x).
func AbsBF16(dst []float32, x []uint16, ahead int) {
	checkLen("AbsBF16", "dst", len(dst), len(x))
	n := absBF16Blocks(dst, x, ahead)
	absBF16Generic(dst[n:], x[n:])
}

// ScaleAbs is
//
//	for j, v := range x { dst[j] = |v| · s[j] }
//
// and returns the greatest bit pattern among the |v|, which is above
// InfBits−1 if one was NaN or infinite. All have one length.
func ScaleAbs(dst, x, s []float32) (top uint32) {
	checkLen("ScaleAbs", "dst", len(dst), len(x))
	checkLen("ScaleAbs", "s", len(s), len(x))
	top, n := scaleAbsBlocks(dst, x, s)
	return max(top, scaleAbsGeneric(dst[n:], x[n:], s[n:]))
}

// InfBits are the bits of +Inf; those of finite non-negative float32 are below.
const InfBits = 0x7f800000

// RelativeImportance is
//
//	for j, v := range x { dst[j] = |v|·(a + b[j]) · s[j] }
//
// each operation rounded to float32, the same bits on every processor. All
// have one length.
func RelativeImportance(dst, x, b, s []float32, a float32) {
	checkLen("RelativeImportance", "dst", len(dst), len(x))
	checkLen("RelativeImportance", "b", len(b), len(x))
	checkLen("RelativeImportance", "s", len(s), len(x))
	n := relativeImportanceBlocks(dst, x, b, s, a)
	relativeImportanceGeneric(dst[n:], x[n:], b[n:], s[n:], a)
}

// RelativeImportanceBF16 is RelativeImportance of bfloat16.
func RelativeImportanceBF16(dst []float32, x []uint16, b, s []float32, a float32) {
	checkLen("RelativeImportanceBF16", "dst", len(dst), len(x))
	checkLen("RelativeImportanceBF16", "b", len(b), len(x))
	checkLen("RelativeImportanceBF16", "s", len(s), len(x))
	n := relativeImportanceBF16Blocks(dst, x, b, s, a)
	relativeImportanceBF16Generic(dst[n:], x[n:], b[n:], s[n:], a)
}

// Halo is the number of elements that lie before and after a panel in each
// buffer of CrossImportance: columns of neighbouring panels, 0 outside the
// matrix.
const Halo = 16

// MaxRadius is the largest radius of CrossImportance.
const MaxRadius = 5

// PanelStep divides the width of a panel of CrossImportance.
const PanelStep = 64

// Cross is one row i of a panel for CrossImportance, n columns wide. Magnitudes
// are |W|. B, S and Sides are n long, the other slices n + 2·Halo.
type Cross struct {
	Row   []float32            // magnitudes of row i
	Below [MaxRadius][]float32 // of rows i+1 … i+r; those after are not read
	Above []float32            // sums of the magnitudes of rows i−r … i−1
	Under []float32            // is set to the sums of Below, in the panel and r columns beside
	Sides []float32            // is set to N less the weight itself
	B, S  []float32            // as in RelativeImportance
	A     float32
	Gamma float32
	Ahead int // the scores that far after dst are fetched into the cache meanwhile
}

// CrossImportance is RelativeImportance with a third term, the weight over
// the neighbourhood of radius r that leaves its own row and column out:
//
//	Under[j] = Σ_{1≤p≤r} |W[i+p,j]|
//	N[j]     = |W[i,j]| + Σ_{1≤q≤r} (U[j−q] + U[j+q]),   U = Under + Above
//	dst[j]   = (|W[i,j]|·(A + B[j]) + Gamma·(|W[i,j]|/N[j])) · S[j]
//
// with 0/0 = 0. dst has n elements. N is a sum of at most 4r² + 1 numbers
// that are not negative, added in a tree of depth at most 9, never a
// difference: its relative error is at most 9·2⁻²⁴. Additions have a fixed
// order, so the bits are the same on every processor. Under is the Above of
// row i+r+1. 1 ≤ r ≤ MaxRadius.
func CrossImportance(dst []float32, c *Cross, r int) {
	if r < 1 || r > MaxRadius {
		panic(fmt.Sprintf("kernel: CrossImportance: r = %d, want 1 to %d", r, MaxRadius))
	}
	c.check(len(dst), r)
	if len(dst) > 0 && !crossBlocks(dst, c, r) {
		crossGeneric(dst, c, r)
	}
}

// check panics unless the lengths are those of a panel of n columns. It looks
// at them one by one only if one is wrong: a call has many, and little to do.
func (c *Cross) check(n, r int) {
	m := n + 2*Halo
	wrong := n%PanelStep | len(c.B) ^ n | len(c.S) ^ n | len(c.Sides) ^ n | len(c.Row) ^ m | len(c.Above) ^ m | len(c.Under) ^ m
	for _, b := range c.Below[:r] {
		wrong |= len(b) ^ m
	}
	if wrong == 0 {
		return
	}
	if n%PanelStep != 0 {
		panic(fmt.Sprintf("kernel: CrossImportance: len(dst) = %d, want a multiple of %d", n, PanelStep))
	}
	checkLen("CrossImportance", "B", len(c.B), n)
	checkLen("CrossImportance", "S", len(c.S), n)
	checkLen("CrossImportance", "Sides", len(c.Sides), n)
	checkLen("CrossImportance", "Row", len(c.Row), m)
	checkLen("CrossImportance", "Above", len(c.Above), m)
	checkLen("CrossImportance", "Under", len(c.Under), m)
	for _, b := range c.Below[:r] {
		checkLen("CrossImportance", "Below", len(b), m)
	}
}
