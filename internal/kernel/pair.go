package kernel

// PairFunc takes the elements from o on of row t of two products. It may
// overwrite u and v, which are valid during the call only.
type PairFunc func(t, o int, u, v []float32)

// MatMulTPair computes two products of one x, of which no more than a block is in
// memory at a time:
//
//	u[t][o] = Σ_i x[t*ldx+i]·b[o*ldb+i]    for t < m, o < n, i < k
//	v[t][o] = Σ_i x[t*ldx+i]·c[o*ldb+i]
//
// f gets each element of u and v once, in runs of a row, from several goroutines at
// a time. Sums are those of MatMulT to the same bits.
func MatMulTPair(x []float32, ldx int, b, c Source, ldb, m, n, k int, f PairFunc) {
	checkPair("MatMulTPair", x, ldx, b, c, ldb, m, n, k)
	product{x: x, ldx: ldx, b: b, c: c, ldb: ldb, m: m, n: n, k: k, pair: f}.run(floatTile())
}

// MatMulTPairBF16 is MatMulTPair with the sums of MatMulTBF16.
func MatMulTPairBF16(x []float32, ldx int, b, c Source, ldb, m, n, k int, f PairFunc) {
	checkPair("MatMulTPairBF16", x, ldx, b, c, ldb, m, n, k)
	checkBF16("MatMulTPairBF16", b, n, k)
	checkBF16("MatMulTPairBF16", c, n, k)
	product{x: x, ldx: ldx, b: b, c: c, ldb: ldb, m: m, n: n, k: k, round: true, pair: f}.run(bfloatTile())
}

// checkPair is checkProduct for a pair.
func checkPair(name string, x []float32, ldx int, b, c Source, ldb, m, n, k int) {
	checkProduct(name, nil, 0, x, ldx, Source{}, 0, m, 0, k)
	checkProduct(name, nil, 0, nil, 0, b, ldb, 0, n, k)
	checkProduct(name, nil, 0, nil, 0, c, ldb, 0, n, k)
}

// runWhole hands a pair over that is computed as two whole products: of the few
// rows of decoding.
func (p product) runWhole(t *tile) {
	buf := packBuffers.Get().(*packBuffer)
	defer packBuffers.Put(buf)
	buf.first, buf.second = grow(buf.first, p.m*p.n), grow(buf.second, p.m*p.n)
	u, v := buf.first, buf.second
	one := p
	one.pair, one.ldd = nil, p.n
	one.dst = u
	one.run(t)
	one.dst, one.b = v, p.c
	one.run(t)
	for i := range p.m {
		p.pair(i, 0, u[i*p.n:][:p.n], v[i*p.n:][:p.n])
	}
}

// blockPair hands over what a says of both products.
func (p *product) blockPair(t *tile, a task, buf *packBuffer) {
	const ld = blockN
	n := a.j1 - a.j0
	buf.first = grow(buf.first, (a.i1-a.i0)*ld)
	buf.second = grow(buf.second, t.rows*ld)
	p.sweeps(t, a, buf, p.b, buf.first, ld, nil)
	p.sweeps(t, a, buf, p.c, buf.second, ld, func(i, rows int) {
		for r := range rows {
			p.pair(i+r, a.j0, buf.first[(i+r-a.i0)*ld:][:n], buf.second[r*ld:][:n])
		}
	})
}
