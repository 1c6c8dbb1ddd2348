package kernel

import "fmt"

// Rounded is the x of several products in bfloat16, in the places where they
// read it.
type Rounded struct {
	product
	tile *tile
}

// RoundedSize returns how many float32 of memory a Rounded of m rows of k
// elements takes: about half as many as they are, or as many where the processor
// multiplies no bfloat16. It is 0 where there is none, since products of so few
// rows, in decoding, do not read x in that way.
func RoundedSize(m, k int) int {
	if m <= dotsTokens || k == 0 {
		return 0
	}
	p, t := product{m: m, k: k}, bfloatTile()
	p.cutDepth(t)
	return p.roundedSize(t)
}

// NewRounded returns a Rounded in mem, which is RoundedSize(m, k) long, not 0.
// It may be used once Store has written every row.
func NewRounded(mem []float32, m, k int) *Rounded {
	if want := RoundedSize(m, k); want == 0 || len(mem) != want {
		panic(fmt.Sprintf("kernel: NewRounded: %d float32 for %d rows of %d, want %d, and not 0", len(mem), m, k, want))
	}
	r := &Rounded{product: product{m: m, k: k, round: true}, tile: bfloatTile()}
	r.cutDepth(r.tile)
	r.rounded = mem
	r.clearMissing(r.tile)
	return r
}

// Store rounds v to the elements of row t from i on, to nearest, ties to even.
// Different elements may be stored at the same time, but for two neighbours
// that make up a whole unit of 4 bytes.
func (r *Rounded) Store(t, i int, v []float32) {
	if t < 0 || t >= r.m || i < 0 || i+len(v) > r.k {
		panic(fmt.Sprintf("kernel: Store: %d elements from [%d %d] on, want them within %d × %d", len(v), t, i, r.m, r.k))
	}
	r.store(r.tile, t, i, v)
}

// StoreNorm stores RMSNorm of x, with weights w, as row t.
func (r *Rounded) StoreNorm(t int, x, w []float32, eps float32) {
	checkLen("StoreNorm", "x", len(x), r.k)
	checkLen("StoreNorm", "w", len(w), r.k)
	var part [1024]float32
	scale := inverseRMS(x, eps)
	for i := 0; i < r.k; i += len(part) {
		n := min(len(part), r.k-i)
		scaleMul(part[:n], x[i:i+n], w[i:i+n], scale)
		r.Store(t, i, part[:n])
	}
}

// MatMulT is MatMulTBF16 with r's x, to the same bits.
func (r *Rounded) MatMulT(dst []float32, ldd int, b Source, ldb, n int) {
	checkProduct("MatMulT", dst, ldd, nil, 0, Source{}, 0, r.m, n, 0)
	checkProduct("MatMulT", nil, 0, nil, 0, b, ldb, 0, n, r.k)
	checkBF16("MatMulT", b, n, r.k)
	p := r.product
	p.dst, p.ldd, p.b, p.ldb, p.n = dst, ldd, b, ldb, n
	if n > 0 {
		p.runTasks(r.tile)
	}
}

// MatMulTPair is MatMulTPairBF16 with r's x, to the same bits.
func (r *Rounded) MatMulTPair(b, c Source, ldb, n int, f PairFunc) {
	checkPair("MatMulTPair", nil, 0, b, c, ldb, 0, n, r.k)
	checkBF16("MatMulTPair", b, n, r.k)
	checkBF16("MatMulTPair", c, n, r.k)
	p := r.product
	p.b, p.c, p.ldb, p.n, p.pair = b, c, ldb, n, f
	if n > 0 {
		p.runTasks(r.tile)
	}
}
