package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/crepe-llm/crepe/internal/parallel"
)

// The matrix product is cut three ways. A task owns a block of dst. Along the
// depth it packs blockK × blockN of b, widened and transposed into panels as
// wide as the micro-kernel, which stay in the second-level cache; then it
// runs the micro-kernel along the panels for one micro-tile of x after another,
// which comes into the first-level cache: by a copy, or, where many tasks would
// round the same x, from micro-tiles that were rounded before.
//
// An element of dst is the same sequence of operations wherever the cuts
// between tasks lie, so the result does not depend on the number of workers.
const (
	blockK = 528 // rows of packed x this far apart lie in different sets of a cache
	blockN = 384 // a multiple of every tile's cols; 528 × 384 × 4 B fit 1 MiB caches

	transposed = 32 // a multiple of the depth units that tile's transpositions take

	taskRows    = 2048 // at most so many rows share a packed block
	minTaskRows = 96   // packing b costs about 5/rows of the product
	minTaskCols = 96

	roundOnce  = 1536    // columns from which rounding x once for all tasks pays
	slabRows   = 1024    // at least so many rows are rounded at once
	roundGrain = 1 << 15 // elements below which a goroutine does not pay
)

// streamBytes is the size of a result from which it is written past the caches,
// which would not keep it until it is read. Tests lower it.
var streamBytes = 24 << 20

// maxRounded is how many bytes of rounded x are in memory, about; more goes in
// slabs of rows. Tests lower it.
var maxRounded = 64 << 20

// MatMulT is
//
//	dst[t*ldd+o] = Σ_i x[t*ldx+i]·b[o*ldb+i]    for t < m, o < n, i < k
//
// x is m × k, b is n × k (a Linear's weight, out × in), dst is m × n; ldx, ldb
// and ldd are the distances of their rows in elements. Nothing of dst but the
// m × n elements is touched. dst must overlap neither operand.
//
// Products and sums are float32, fused where the processor does so; the order
// of additions is unspecified, but it does not depend on GOMAXPROCS:
// |error| ≤ k·2⁻²⁴·Σ|x·b| to first order. Zeros are not skipped: 0·Inf is NaN.
func MatMulT(dst []float32, ldd int, x []float32, ldx int, b Source, ldb int, m, n, k int) {
	checkProduct("MatMulT", dst, ldd, x, ldx, b, ldb, m, n, k)
	product{dst: dst, ldd: ldd, x: x, ldx: ldx, b: b, ldb: ldb, m: m, n: n, k: k}.run(floatTile())
}

// MatMulTBF16 is MatMulT with every x rounded to bfloat16 first, to nearest,
// ties to even; b.BF16 must be set.
//
// Products of two bfloat16 are exact in float32; their sums are float32, in an
// unspecified order that does not depend on GOMAXPROCS. With x̂ the rounded x
// (|x̂−x| ≤ 2⁻⁹·|x|), |dst − Σx̂·b| ≤ k·2⁻²³·Σ|x̂·b| to first order. Subnormal
// operands, products and sums may count as zero (AVX512_BF16 takes them so).
func MatMulTBF16(dst []float32, ldd int, x []float32, ldx int, b Source, ldb int, m, n, k int) {
	checkProduct("MatMulTBF16", dst, ldd, x, ldx, b, ldb, m, n, k)
	checkBF16("MatMulTBF16", b, n, k)
	product{dst: dst, ldd: ldd, x: x, ldx: ldx, b: b, ldb: ldb, m: m, n: n, k: k, round: true}.run(bfloatTile())
}

// checkProduct panics unless the operands hold what m, n and k say.
func checkProduct(name string, dst []float32, ldd int, x []float32, ldx int, b Source, ldb int, m, n, k int) {
	need := func(what string, got, ld, rows, cols int) {
		if rows > 0 && cols > 0 && (ld < cols || got < (rows-1)*ld+cols) {
			panic(fmt.Sprintf("kernel: %s: len(%s) = %d with rows %d apart, want %d rows of %d",
				name, what, got, ld, rows, cols))
		}
	}
	if m < 0 || n < 0 || k < 0 {
		panic(fmt.Sprintf("kernel: %s: m, n, k = %d, %d, %d, want none negative", name, m, n, k))
	}
	need("dst", len(dst), ldd, m, n)
	need("x", len(x), ldx, m, k)
	if b.Packed != nil {
		b.Packed.check(name, n, k, ldb)
		return
	}
	need("b", b.len(), ldb, n, k)
}

// checkBF16 panics unless b, n × k, is bfloat16.
func checkBF16(name string, b Source, n, k int) {
	if b.elements().BF16 == nil && n*k > 0 {
		panic(fmt.Sprintf("kernel: %s: a weight's BF16 is not set", name))
	}
}

// len returns the number of elements of the field that is set.
func (s Source) len() int { return max(len(s.F32), len(s.BF16), len(s.F16)) }

// elements returns what holds the elements that are stored.
func (s Source) elements() Source {
	if s.Packed != nil {
		return s.Packed.Values
	}
	return s
}

// widen writes len(dst) elements of s, from off on, as float32.
func (s Source) widen(dst []float32, off int) {
	switch {
	case s.F32 != nil:
		copy(dst, s.F32[off:off+len(dst)])
	case s.BF16 != nil:
		WidenBF16(dst, s.BF16[off:off+len(dst)])
	default:
		WidenF16(dst, s.F16[off:off+len(dst)])
	}
}

// product is one matrix product; the first fields are MatMulT's arguments.
type product struct {
	dst     []float32
	ldd     int
	x       []float32
	ldx     int
	b       Source
	ldb     int
	m, n, k int
	round   bool // x to bfloat16

	c    Source   // of a pair: see MatMulTPair
	pair PairFunc // nil: results go to dst

	kBlock, kBlocks int // elements of a block along k, and how many there are

	// rounded is x in micro-tiles, rows × blockK units each: all along k, then
	// those of the next rows. nil where the tasks copy x.
	rounded []float32
}

// run computes the product with the micro-kernel t.
func (p product) run(t *tile) {
	switch {
	case p.m == 0 || p.n == 0:
		return
	case p.pair != nil && (p.k == 0 || p.m <= dotsTokens):
		p.runWhole(t)
		return
	case p.k == 0:
		for i := range p.m {
			clear(p.dst[i*p.ldd : i*p.ldd+p.n])
		}
		return
	case p.m <= dotsTokens:
		p.runDots()
		return
	}
	p.cutDepth(t)
	if !p.round || p.n < roundOnce {
		p.runTasks(t)
		return
	}
	rows := roundUp(max(maxRounded/4/(p.kBlocks*blockK), slabRows), t.rows)
	buf := takeRoundBuffer()
	defer roundBuffer.Store(buf)
	for i := 0; i < p.m; i += rows {
		slab := p
		slab.m, slab.x = min(rows, p.m-i), p.x[i*p.ldx:]
		if p.pair == nil {
			slab.dst = p.dst[i*p.ldd:]
		} else {
			slab.pair = func(t, o int, u, v []float32) { p.pair(i+t, o, u, v) }
		}
		slab.roundRows(t, buf)
		slab.runTasks(t)
	}
}

// cutDepth sets kBlock and kBlocks: blocks of even size, since a short last one
// would read and write dst for little.
func (p *product) cutDepth(t *tile) {
	units := t.units(p.k)
	units = min(roundUp(ceil(units, ceil(units, blockK)), transposed), blockK)
	p.kBlock = units * t.perUnit
	p.kBlocks = ceil(p.k, p.kBlock)
}

// roundedSize returns the length of rounded.
func (p *product) roundedSize(t *tile) int { return roundUp(p.m, t.rows) * p.kBlocks * blockK }

// roundRows makes rounded, in buf.
func (p *product) roundRows(t *tile, buf *[]float32) {
	*buf = grow(*buf, p.roundedSize(t))
	p.rounded = *buf
	p.clearMissing(t)
	parallel.For(p.m, max(t.rows, roundGrain/p.k), func(lo, hi int) {
		for i := lo; i < hi; i++ {
			p.store(t, i, 0, p.x[i*p.ldx:][:p.k])
		}
	})
}

// store rounds v to elements k0 and on of row i of rounded.
func (p *product) store(t *tile, i, k0 int, v []float32) {
	for len(v) > 0 {
		at := k0 % p.kBlock
		n := min(p.kBlock-at, len(v))
		row := p.rounded[(i/t.rows*p.kBlocks+k0/p.kBlock)*t.rows*blockK+i%t.rows*blockK:][:blockK]
		if k0+n == p.k && (at+n)%t.perUnit != 0 {
			row[t.units(at+n)-1] = 0 // half of it stays
		}
		t.round(row, at, v[:n])
		k0, v = k0+n, v[n:]
	}
}

// clearMissing clears the rows of rounded that the last micro-tile lacks.
func (p *product) clearMissing(t *tile) {
	size := t.rows * blockK
	if have := p.m % t.rows; have > 0 {
		for at := p.m / t.rows * p.kBlocks * size; at < len(p.rounded); at += size {
			clear(p.rounded[at+have*blockK : at+size])
		}
	}
}

// runTasks computes the product in tasks.
func (p *product) runTasks(t *tile) {
	tasks := p.tasks(t)
	parallel.For(len(tasks), 1, func(lo, hi int) {
		for _, a := range tasks[lo:hi] {
			p.block(t, a)
		}
	})
}

// task is a block of dst: rows i0 to i1-1, columns j0 to j1-1, at most blockN.
type task struct{ i0, i1, j0, j1 int }

// tasks cuts dst: into blocks large enough to pay for packing, the last ones with
// fewer rows, so that no worker waits long for another at the end.
func (p *product) tasks(t *tile) []task {
	workers := runtime.GOMAXPROCS(0)
	tiles, panels := ceil(p.m, t.rows), ceil(p.n, t.cols)
	left := tiles * panels
	share := func() int { return left / workers }
	var tasks []task
	bands := ceil(p.m, taskRows) // whose x stays in the last cache
	for band := range bands {
		first, end := tiles*band/bands, tiles*(band+1)/bands
		least := min(minTaskRows/t.rows, end-first)
		for j := 0; j < panels; {
			width := min(max(share()/least, minTaskCols/t.cols), blockN/t.cols, panels-j)
			for i := first; i < end; {
				high := max(share()/width, least)
				if end-i < high+least {
					high = end - i
				}
				tasks = append(tasks, task{
					i * t.rows, min((i+high)*t.rows, p.m),
					j * t.cols, min((j+width)*t.cols, p.n),
				})
				i, left = i+high, left-high*width
			}
			j += width
		}
	}
	return tasks
}

func ceil(n, by int) int    { return (n + by - 1) / by }
func roundUp(n, to int) int { return ceil(n, to) * to }

// block computes what a says of dst, or of a pair.
func (p *product) block(t *tile, a task) {
	buf := packBuffers.Get().(*packBuffer)
	defer packBuffers.Put(buf)
	if p.pair != nil {
		p.blockPair(t, a, buf)
		return
	}
	p.sweeps(t, a, buf, p.b, p.dst[a.i0*p.ldd+a.j0:], p.ldd, nil)
}

// streams reports whether results go past the caches.
func (p *product) streams(t *tile) bool {
	return t.stream != nil && p.pair == nil && 4*p.m*p.n >= streamBytes &&
		p.ldd%streamAlign == 0 && uintptr(unsafe.Pointer(&p.dst[0]))%(4*streamAlign) == 0
}

// sweeps writes what a says of the product with b into dst, rows ldd apart. With
// done it writes each micro-tile's rows into the same place, and calls done with
// the first of them and their number.
func (p *product) sweeps(t *tile, a task, buf *packBuffer, b Source, dst []float32, ldd int, done func(i, rows int)) {
	in := sweepInput{b: buf.b[:], tmp: buf.tmp[:], n: a.j1 - a.j0, stream: p.streams(t)}
	width := roundUp(in.n, t.cols) * t.rows // of the sums of a micro-tile's rows
	if p.kBlocks > 1 {
		buf.sums = grow(buf.sums, ceil(a.i1-a.i0, t.rows)*width)
	}
	for k0 := 0; k0 < p.k; k0 += p.kBlock {
		k := min(p.kBlock, p.k-k0)
		in.depth, in.begun, in.last = t.units(k), k0 > 0, k0+k == p.k
		if b.Packed != nil {
			t.packExpanded(buf, b.Packed, a.j0, a.j1, k0, k)
		} else {
			t.packT(buf.b[:], b, a.j0*p.ldb+k0, p.ldb, a.j1-a.j0, k)
		}
		at, along := 0, 0 // of rounded
		if p.rounded != nil {
			along = p.kBlocks * t.rows * blockK
			at = (a.i0/t.rows*p.kBlocks + k0/p.kBlock) * t.rows * blockK
		}
		for i := a.i0; i < a.i1; i += t.rows {
			in.rows = min(t.rows, a.i1-i)
			in.next = nextRows{rows: min(t.rows, a.i1-i-in.rows)}
			if p.rounded != nil {
				in.a = p.rounded[at:]
				at += along
				in.next.x, in.next.ld = p.rounded[min(at, len(p.rounded)):], blockK
			} else {
				t.loadRows(buf.a[:], p.x[i*p.ldx+k0:], p.ldx, in.rows, k, p.round)
				in.a = buf.a[:]
				in.next.x, in.next.ld = p.x[min((i+t.rows)*p.ldx+k0, len(p.x)):], p.ldx
			}
			if p.kBlocks > 1 {
				in.sums = buf.sums[(i-a.i0)/t.rows*width:]
			}
			if done == nil {
				t.sweep(dst[(i-a.i0)*ldd:], ldd, &in)
				continue
			}
			t.sweep(dst, ldd, &in)
			if in.last {
				done(i, in.rows)
			}
		}
	}
	if in.stream {
		storeFence()
	}
}

// packBuffer is what one worker packs into.
type packBuffer struct {
	a   [maxTileRows * blockK]float32
	b   [blockN * blockK]float32
	tmp [maxTileRows * maxTileCols]float32

	// sums are a task's between blocks along the depth: micro-tiles in one piece,
	// since rows of dst lie mostly a power of two apart, in one set of a cache.
	sums []float32

	expanded expandedRows    // of a packed b
	firstOf  [dotsRows]int64 // where the values of a packed row begin, that row alone

	first, second []float32 // results of a pair, blockN apart: a task's, a micro-tile's rows'
}

var packBuffers = sync.Pool{New: func() any { return new(packBuffer) }}

// roundBuffer keeps the memory of product.rounded, at most maxRounded, from one
// product to the next: fresh pages would cost a part of the product.
var roundBuffer atomic.Pointer[[]float32]

func takeRoundBuffer() *[]float32 {
	if buf := roundBuffer.Swap(nil); buf != nil {
		return buf
	}
	return new([]float32)
}

// roundBF16 rounds to bfloat16, to nearest even, and widens again.
func roundBF16(dst, src []float32) {
	var narrow [blockK]uint16
	for len(src) > 0 {
		n := min(len(src), len(narrow))
		NarrowBF16(narrow[:n], src[:n])
		WidenBF16(dst[:n], narrow[:n])
		dst, src = dst[n:], src[n:]
	}
}
