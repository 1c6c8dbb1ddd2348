package kernel

import "unsafe"

// The largest micro-tile of any instruction set.
const (
	maxTileRows = 12
	maxTileCols = 32
)

// streamAlign is the number of float32 in a line of the caches.
const streamAlign = 16

// tile is a micro-kernel and the layout of what it reads.
//
// A depth unit is what one lane of a multiplication takes: a float32, or two
// bfloat16. Packed x is rows × blockK units, packed b is panels of
// depth × cols units; a panel's missing columns are zero.
type tile struct {
	rows, cols int
	perUnit    int // elements along k in a depth unit

	// mul computes, for r < rows and c < cols,
	//
	//	dst[r*ldd+c] = from[r*ldf+c] + Σ_u a[r*blockK+u]·b[u*cols+c]    for u < depth
	//
	// where from, which may be dst, is nil for zeros; depth ≥ 1. Meanwhile it
	// prefetches the depth units of x at next.
	mul func(dst *float32, ldd int, from *float32, ldf int, a, b *float32, depth int, next *float32)

	// stream is mul with a dst and ldd of whole streamAlign, which it writes past the
	// caches, without reading the memory there first; nil if none. storeFence must
	// follow.
	stream func(dst *float32, ldd int, from *float32, ldf int, a, b *float32, depth int, next *float32)

	// few is mul for fewRows rows, for what is left at the end; nil if none.
	few     func(dst *float32, ldd int, from *float32, ldf int, a, b *float32, depth int, next *float32)
	fewRows int

	// The transpositions copy lanes rows of b, lds bytes apart, into as many
	// columns of a panel: blocks of lanes elements along k, of 2·lanes if they
	// have 16 bits. For perUnit 2, transposeF32 moves the pairs as they are.
	// lanes is 0 if there are none.
	lanes         int
	transposeF32  func(dst *float32, src *byte, lds, blocks int)
	transposeBF16 func(dst *float32, src *byte, lds, blocks int)
	transposeF16  func(dst *float32, src *byte, lds, blocks int)
}

// units returns the depth units that k elements fill.
func (t *tile) units(k int) int { return ceil(k, t.perUnit) }

// packT packs n rows of k elements of b, from off on, rows ldb apart, as
// columns: panel j holds rows j·cols and on.
func (t *tile) packT(dst []float32, b Source, off, ldb, n, k int) {
	depth := t.units(k)
	for j := 0; j < n; j += t.cols {
		t.packPanel(dst[j*depth:(j+t.cols)*depth], b, off+j*ldb, ldb, min(t.cols, n-j), k)
	}
}

// packPanel packs rows of b as a whole panel.
func (t *tile) packPanel(panel []float32, b Source, off, ldb, rows, k int) {
	t.packRows(panel, 0, b, off, ldb, rows, k)
	for r := rows; r < t.cols; r++ {
		for u := range t.units(k) {
			panel[u*t.cols+r] = 0
		}
	}
}

// packRows packs n rows of k elements of b, from off on, rows ldb apart, as the
// columns of a panel from col on.
func (t *tile) packRows(panel []float32, col int, b Source, off, ldb, n, k int) {
	r := 0
	for ; t.lanes > 0 && r+t.lanes <= n; r += t.lanes {
		t.packLanes(panel, col+r, b, off+r*ldb, ldb, k)
	}
	for ; r < n; r++ {
		t.packColumn(panel, col+r, b, off+r*ldb, 0, k)
	}
}

// packLanes packs columns r to r+lanes-1 of a panel.
func (t *tile) packLanes(panel []float32, r int, b Source, off, ldb, k int) {
	block := 2 * t.lanes
	if b.F32 != nil {
		block = t.lanes
	}
	done := k / block * block
	if done > 0 {
		switch {
		case b.F32 != nil:
			t.transposeF32(&panel[r], (*byte)(unsafe.Pointer(&b.F32[off])), 4*ldb, done/block)
		case b.BF16 != nil && t.perUnit == 2:
			t.transposeF32(&panel[r], (*byte)(unsafe.Pointer(&b.BF16[off])), 2*ldb, done/block)
		case b.BF16 != nil:
			t.transposeBF16(&panel[r], (*byte)(unsafe.Pointer(&b.BF16[off])), 2*ldb, done/block)
		default:
			t.transposeF16(&panel[r], (*byte)(unsafe.Pointer(&b.F16[off])), 2*ldb, done/block)
		}
	}
	if done < k {
		for i := range t.lanes {
			t.packColumn(panel, r+i, b, off+i*ldb, done, k)
		}
	}
}

// packColumn packs elements k0 to k1-1 of the row of b at off as column c.
func (t *tile) packColumn(panel []float32, c int, b Source, off, k0, k1 int) {
	var wide [blockK]float32
	row := wide[:t.units(k1-k0)]
	if t.perUnit == 2 {
		copy(halves(row), b.BF16[off+k0:off+k1])
	} else {
		b.widen(row, off+k0)
	}
	for i, v := range row {
		panel[(k0/t.perUnit+i)*t.cols+c] = v
	}
}

// halves returns the memory of s as 16-bit elements.
func halves(s []float32) []uint16 {
	return unsafe.Slice((*uint16)(unsafe.Pointer(unsafe.SliceData(s))), 2*len(s))
}

// loadRows copies rows of k elements of x; the rows missing to a full tile are zeroed.
func (t *tile) loadRows(dst []float32, x []float32, ldx, rows, k int, round bool) {
	units := t.units(k)
	for r := range t.rows {
		row := dst[r*blockK:][:units]
		switch {
		case r >= rows:
			clear(row)
		case round:
			row[units-1] = 0 // of an odd k, half a unit stays
			t.round(row, 0, x[r*ldx:][:k])
		default:
			copy(row, x[r*ldx:][:k])
		}
	}
}

// round rounds v to elements i and on of a packed row of x.
func (t *tile) round(row []float32, i int, v []float32) {
	if t.perUnit == 2 {
		NarrowBF16(halves(row)[i:][:len(v)], v)
		return
	}
	roundBF16(row[i:][:len(v)], v)
}

// sweepInput is what one micro-tile's rows are multiplied with.
type sweepInput struct {
	a, b    []float32 // packed rows and panels
	sums    []float32 // the rows' sums between blocks, one micro-tile after another
	tmp     []float32 // maxTileRows · maxTileCols
	rows, n int       // of the result
	depth   int       // units to sum over, and between panels
	begun   bool      // sums holds those of the blocks before
	last    bool      // the results go to dst, else to sums
	stream  bool      // dst by tile.stream, where a whole micro-tile goes there
	next    nextRows  // what loadRows reads after this
}

// nextRows are rows of x that the panels prefetch, one each: no hardware
// prefetcher follows them from one page into another.
type nextRows struct {
	x        []float32
	ld, rows int
}

// sweep multiplies the rows in p.a with all panels in p.b.
func (t *tile) sweep(dst []float32, ldd int, p *sweepInput) {
	mul, height := t.mul, t.rows
	if p.rows <= t.fewRows {
		mul, height = t.few, t.fewRows
	}
	for j := 0; j < p.n; j += t.cols {
		next := &p.a[0]
		if i := j / t.cols; i < p.next.rows {
			next = &p.next.x[i*p.next.ld]
		}
		b := &p.b[j*p.depth]
		var from *float32
		if p.begun {
			from = &p.sums[j*t.rows]
		}
		cols := min(t.cols, p.n-j)
		switch {
		case !p.last:
			mul(&p.sums[j*t.rows], t.cols, from, t.cols, &p.a[0], b, p.depth, next)
		case p.stream && p.rows == t.rows && cols == t.cols:
			t.stream(&dst[j], ldd, from, t.cols, &p.a[0], b, p.depth, next)
		case p.rows == height && cols == t.cols:
			mul(&dst[j], ldd, from, t.cols, &p.a[0], b, p.depth, next)
		default:
			mul(&p.tmp[0], t.cols, from, t.cols, &p.a[0], b, p.depth, next)
			for r := range p.rows {
				copy(dst[r*ldd+j:][:cols], p.tmp[r*t.cols:])
			}
		}
	}
}
