package kernel

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/crepe-llm/crepe/internal/parallel"
)

// The matrix product is cut three ways. A task owns a block of dst. Along the
// depth it packs blockK × blockN of b, widened and transposed into panels as
// wide as the micro-kernel, which stay in the second-level cache; then it
// copies the x of one micro-tile after another (first-level cache) and runs
// the micro-kernel along the panels.
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

	// Up to here a dot product for each element costs less than packing b.
	dotRows = 3
)

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
	case p.m <= dotRows:
		p.runDots()
		return
	}
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
			rows, then := min(t.rows, i1-i), min(t.rows, i1-i-t.rows)
			var next nextRows
			if then > 0 {
				next = nextRows{x: p.x[(i+t.rows)*p.ldx+k0:], ld: p.ldx, rows: then}
			}
			t.loadRows(buf.a[:], p.x[i*p.ldx+k0:], p.ldx, rows, k1-k0, p.round)
			t.sweep(p.dst[i*p.ldd+j0:], p.ldd, sweepInput{
				a: buf.a[:], b: buf.b[:], stride: depth, tmp: buf.tmp[:],
				rows: rows, n: j1 - j0, depth: depth, accumulate: k0 > 0, next: next,
			})
		}
	}
}

// packBuffer is what one worker packs into.
type packBuffer struct {
	a   [maxTileRows * blockK]float32
	b   [blockN * blockK]float32
	tmp [maxTileRows * maxTileCols]float32
}

var packBuffers = sync.Pool{New: func() any { return new(packBuffer) }}

// runDots computes the product element by element, each row of b widened once.
func (p product) runDots() {
	x, ldx := p.x, p.ldx
	if p.round {
		x, ldx = make([]float32, p.m*p.k), p.k
		for i := range p.m {
			roundBF16(x[i*ldx:][:p.k], p.x[i*p.ldx:][:p.k])
		}
	}
	grain := max(1, dotGrain/p.k)
	parallel.For(p.n, grain, func(lo, hi int) {
		var wide [blockK]float32
		for o := lo; o < hi; o++ {
			for k0 := 0; k0 < p.k; k0 += blockK {
				row := wide[:min(blockK, p.k-k0)]
				p.b.widen(row, o*p.ldb+k0)
				for i := range p.m {
					sum := dot(x[i*ldx+k0:][:len(row)], row)
					if k0 > 0 {
						sum += p.dst[i*p.ldd+o]
					}
					p.dst[i*p.ldd+o] = sum
				}
			}
		}
	})
}

// dotGrain is the number of elements of b below which a goroutine does not pay.
const dotGrain = 1 << 15

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
