package kernel

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

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
	blockK = 384 // 384 × 384 × 4 B = 576 KiB of packed b: fits 1 MiB caches
	blockN = 384 // a multiple of every tile's cols

	taskRows    = 1024 // rows that share a packed block, unless workers would idle
	minTaskRows = 96   // packing b costs about 5/rows of the product
	minTaskCols = 96
	tasksAWork  = 4 // tasks a worker, to even out their ends

	roundOnce  = 4 * blockN // columns from which rounding x once for all tasks pays
	roundGrain = 1 << 15    // elements below which a goroutine does not pay
)

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
	if b.BF16 == nil && n*k > 0 {
		panic("kernel: MatMulTBF16: b.BF16 is not set")
	}
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
	need("b", b.len(), ldb, n, k)
}

// len returns the number of elements of the field that is set.
func (s Source) len() int { return max(len(s.F32), len(s.BF16), len(s.F16)) }

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

// product is one matrix product; the fields are MatMulT's arguments.
type product struct {
	dst     []float32
	ldd     int
	x       []float32
	ldx     int
	b       Source
	ldb     int
	m, n, k int
	round   bool // x to bfloat16

	// rounded is x in micro-tiles, rows × blockK units each: all along k, then
	// those of the next rows. nil where the tasks copy x.
	rounded []float32
}

// run computes the product with the micro-kernel t.
func (p product) run(t *tile) {
	switch {
	case p.m == 0 || p.n == 0:
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
	if !p.round || p.n < roundOnce {
		p.runTasks(t)
		return
	}
	buf := roundBuffer.Swap(nil)
	if buf == nil {
		buf = new([]float32)
	}
	defer roundBuffer.Store(buf)
	rows := max(maxRounded/4/(p.steps(t)*blockK)/taskRows, 1) * taskRows
	for i := 0; i < p.m; i += rows {
		slab := p
		slab.m = min(rows, p.m-i)
		slab.dst, slab.x = p.dst[i*p.ldd:], p.x[i*p.ldx:]
		*buf = grow(*buf, slab.tiles(t)*p.steps(t)*t.rows*blockK)
		slab.rounded = *buf
		slab.roundRows(t)
		slab.runTasks(t)
	}
}

// steps returns the number of blocks along k, tiles that of micro-tiles along m.
func (p product) steps(t *tile) int { return (p.k + blockK*t.perUnit - 1) / (blockK * t.perUnit) }
func (p product) tiles(t *tile) int { return (p.m + t.rows - 1) / t.rows }

// tileAt returns the index in rounded of the micro-tile of row i and element
// k0, which are multiples of its size.
func (p product) tileAt(t *tile, i, k0 int) int {
	return (i/t.rows*p.steps(t) + k0/(blockK*t.perUnit)) * t.rows * blockK
}

// roundRows fills rounded.
func (p product) roundRows(t *tile) {
	parallel.For(p.tiles(t), max(1, roundGrain/(t.rows*p.k)), func(lo, hi int) {
		for i := lo * t.rows; i < min(hi*t.rows, p.m); i += t.rows {
			for k0 := 0; k0 < p.k; k0 += blockK * t.perUnit {
				t.loadRows(p.rounded[p.tileAt(t, i, k0):], p.x[i*p.ldx+k0:], p.ldx,
					min(t.rows, p.m-i), min(blockK*t.perUnit, p.k-k0), true)
			}
		}
	})
}

// runTasks computes the product in tasks.
func (p product) runTasks(t *tile) {
	rows, cols := p.taskShape(t)
	across := (p.n + cols - 1) / cols
	down := (p.m + rows - 1) / rows
	parallel.For(across*down, 1, func(lo, hi int) {
		for task := lo; task < hi; task++ {
			i, j := task/across*rows, task%across*cols
			p.block(t, i, min(i+rows, p.m), j, min(j+cols, p.n))
		}
	})
}

// taskShape returns the rows and columns of dst that make a task: large enough
// to pay for packing, small enough to keep all workers busy.
func (p product) taskShape(t *tile) (rows, cols int) {
	want := 1
	if w := runtime.GOMAXPROCS(0); w > 1 {
		want = tasksAWork * w
	}
	rows, cols = taskRows, blockN
	for {
		down, across := (p.m+rows-1)/rows, (p.n+cols-1)/cols
		switch {
		case down*across >= want:
		case rows > minTaskRows:
			rows = max(rows/2, minTaskRows)
			continue
		case cols > minTaskCols:
			cols = max(cols/2, minTaskCols)
			continue
		}
		// The same number of tasks, of even size.
		return roundUp((p.m+down-1)/down, t.rows), roundUp((p.n+across-1)/across, t.cols)
	}
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// block computes rows i0 to i1-1, columns j0 to j1-1 of dst, at most blockN columns.
func (p product) block(t *tile, i0, i1, j0, j1 int) {
	buf := packBuffers.Get().(*packBuffer)
	defer packBuffers.Put(buf)
	step := blockK * t.perUnit
	for k0 := 0; k0 < p.k; k0 += step {
		k1 := min(k0+step, p.k)
		depth := t.units(k1 - k0)
		t.packT(buf.b[:], p.b, j0*p.ldb+k0, p.ldb, j1-j0, k1-k0)
		for i := i0; i < i1; i += t.rows {
			rows := min(t.rows, i1-i)
			a, next := p.rowsOf(t, buf, i, rows, k0, k1)
			next.rows = min(t.rows, i1-i-rows)
			t.sweep(p.dst[i*p.ldd+j0:], p.ldd, sweepInput{
				a: a, b: buf.b[:], stride: depth, tmp: buf.tmp[:],
				rows: rows, n: j1 - j0, depth: depth, accumulate: k0 > 0, next: next,
			})
		}
	}
}

// rowsOf returns the micro-tile of rows i and on, and where that of the rows
// after it will be read.
func (p product) rowsOf(t *tile, buf *packBuffer, i, rows, k0, k1 int) (a []float32, next nextRows) {
	if p.rounded != nil {
		at, after := p.tileAt(t, i, k0), p.tileAt(t, i+t.rows, k0)
		return p.rounded[at:], nextRows{x: p.rounded[min(after, len(p.rounded)):], ld: blockK}
	}
	t.loadRows(buf.a[:], p.x[i*p.ldx+k0:], p.ldx, rows, k1-k0, p.round)
	after := min((i+t.rows)*p.ldx+k0, len(p.x))
	return buf.a[:], nextRows{x: p.x[after:], ld: p.ldx}
}

// packBuffer is what one worker packs into.
type packBuffer struct {
	a   [maxTileRows * blockK]float32
	b   [blockN * blockK]float32
	tmp [maxTileRows * maxTileCols]float32
}

var packBuffers = sync.Pool{New: func() any { return new(packBuffer) }}

// roundBuffer keeps the memory of product.rounded, at most maxRounded, from one
// product to the next: fresh pages would cost a part of the product.
var roundBuffer atomic.Pointer[[]float32]

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
