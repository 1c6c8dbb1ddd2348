package kernel

// Rounded is the x of several products, rounded to bfloat16 once for all.
type Rounded struct {
	product
	tile *tile
	buf  *[]float32 // of rounded; nil if each product rounds by itself
}

// RoundBF16 rounds x, m rows of k elements, ldx apart. x must not change until
// Release. What is large, more than 64 MiB, is left to the products.
func RoundBF16(x []float32, ldx, m, k int) *Rounded {
	checkProduct("RoundBF16", nil, 0, x, ldx, Source{}, 0, m, 0, k)
	r := &Rounded{product: product{x: x, ldx: ldx, m: m, k: k, round: true}, tile: bfloatTile()}
	if m <= dotsTokens || k == 0 {
		return r
	}
	r.cutDepth(r.tile)
	if 4*r.roundedSize(r.tile) <= maxRounded {
		r.buf = takeRoundBuffer()
		r.roundRows(r.tile, r.buf)
	}
	return r
}

// MatMulT is MatMulTBF16 with r's x, to the same bits.
func (r *Rounded) MatMulT(dst []float32, ldd int, b Source, ldb, n int) {
	if r.buf == nil {
		MatMulTBF16(dst, ldd, r.x, r.ldx, b, ldb, r.m, n, r.k)
		return
	}
	checkProduct("MatMulT", dst, ldd, r.x, r.ldx, b, ldb, r.m, n, r.k)
	p := r.product
	p.dst, p.ldd, p.b, p.ldb, p.n = dst, ldd, b, ldb, n
	if n > 0 {
		p.runTasks(r.tile)
	}
}

// Release gives r's memory back; r must not be used after.
func (r *Rounded) Release() {
	if r.buf != nil {
		roundBuffer.Store(r.buf)
	}
	*r = Rounded{}
}
