package kernel

import (
	"fmt"

	"github.com/crepe-llm/crepe/internal/cpu"
	"github.com/crepe-llm/crepe/internal/parallel"
)

// keyTile is the number of keys in a chunk: some 128 KiB of keys and values of
// one head, which stay in the second-level cache. At most blockK: the scores of
// a micro-tile are the next product's x. A multiple of every tile's cols.
const keyTile = 256

// KeyValues holds the keys and values of a sequence as Attention's products
// read them, so that a token costs what it adds, however many are before it.
// Its memory grows by chunks of 256 tokens. The zero value serves as the target
// of CopyFrom only.
//
// Keys are packed like the b of a product that has a token as row; values, the
// rows of whose b are tokens, in pairs of tokens where a depth unit is two.
type KeyValues struct {
	heads, dim int
	tile       *tile
	tokens     int
	chunks     [][]float32 // keyTile tokens each, head by head: keys, then values
	lent       int         // the first chunks that another KeyValues may read, too
	free       [][]float32
}

// NewKeyValues returns an empty KeyValues of heads key and value heads of width
// dim. With bfloat set, and a processor that multiplies bfloat16, all is rounded
// to it, to nearest, ties to even, subnormal numbers to 0; else it is float32.
func NewKeyValues(heads, dim int, bfloat bool) *KeyValues {
	if heads < 1 || dim < 1 {
		panic(fmt.Sprintf("kernel: NewKeyValues: %d heads of %d, want positive sizes", heads, dim))
	}
	return &KeyValues{heads: heads, dim: dim, tile: keyTileOf(bfloat)}
}

func keyTileOf(bfloat bool) *tile {
	if bfloat && cpu.AVX512BF16 {
		return bfloatTile()
	}
	return floatTile()
}

// Holds reports whether s is what NewKeyValues returns for these arguments.
func (s *KeyValues) Holds(heads, dim int, bfloat bool) bool {
	return s.heads == heads && s.dim == dim && s.tile == keyTileOf(bfloat)
}

// Len returns the number of tokens.
func (s *KeyValues) Len() int { return s.tokens }

// Bytes returns the memory that s holds, but for what it shares.
func (s *KeyValues) Bytes() int {
	return (len(s.chunks) - s.lent + len(s.free)) * s.heads * s.headSize() * 4
}

// Reset forgets all tokens and keeps the memory.
func (s *KeyValues) Reset() {
	s.free = append(s.free, s.chunks[s.lent:]...)
	s.chunks, s.lent, s.tokens = s.chunks[:0], 0, 0
}

// CopyFrom makes s hold what from holds, in its memory if that is of the same
// kind. Full chunks are shared: neither writes them again.
func (s *KeyValues) CopyFrom(from *KeyValues) {
	if s.heads != from.heads || s.dim != from.dim || s.tile != from.tile {
		*s = KeyValues{heads: from.heads, dim: from.dim, tile: from.tile}
	}
	s.Reset()
	full := from.tokens / keyTile
	from.lent = max(from.lent, full)
	s.chunks = append(s.chunks, from.chunks[:full]...)
	s.lent, s.tokens = full, from.tokens
	if full*keyTile < s.tokens {
		s.chunks = append(s.chunks, s.take())
		copy(s.chunks[full], from.chunks[full])
	}
}

// take returns the memory of a chunk; what its values hold beyond the widths of
// heads is 0.
func (s *KeyValues) take() []float32 {
	n := len(s.free)
	if n == 0 {
		return make([]float32, s.heads*s.headSize())
	}
	chunk := s.free[n-1]
	s.free = s.free[:n-1]
	return chunk
}

func (s *KeyValues) keySize() int   { return keyTile * s.tile.units(s.dim) }
func (s *KeyValues) valueSize() int { return s.tile.units(keyTile) * roundUp(s.dim, s.tile.cols) }
func (s *KeyValues) headSize() int  { return s.keySize() + s.valueSize() }

// head returns one head's keys and values in a chunk.
func (s *KeyValues) head(chunk, head int) (keys, values []float32) {
	all := s.chunks[chunk][head*s.headSize():][:s.headSize()]
	return all[:s.keySize()], all[s.keySize():]
}

// packGrain is the number of elements below which a goroutine does not pay.
const packGrain = 1 << 14

// Append adds n tokens, whose keys and values are n × heads·dim.
func (s *KeyValues) Append(k, v []float32, n int) {
	width := s.heads * s.dim
	if n < 0 || len(k) < n*width || len(v) < n*width {
		panic(fmt.Sprintf("kernel: Append: %d and %d values for %d tokens of %d", len(k), len(v), n, width))
	}
	if n == 0 {
		return
	}
	from := s.tokens
	s.tokens += n
	for len(s.chunks)*keyTile < s.tokens {
		s.chunks = append(s.chunks, s.take())
	}
	first, last := from/keyTile, (s.tokens-1)/keyTile
	grain := max(1, packGrain/(s.dim*min(n, keyTile)))
	parallel.For((last-first+1)*s.heads, grain, func(lo, hi int) {
		var p pairs
		for i := lo; i < hi; i++ {
			chunk, head := first+i/s.heads, i%s.heads
			a, b := max(from, chunk*keyTile), min(s.tokens, (chunk+1)*keyTile)
			off := (a-from)*width + head*s.dim
			keys, values := s.head(chunk, head)
			s.packKeys(keys, k[off:], a-chunk*keyTile, b-a)
			s.packValues(&p, values, v[off:], a-chunk*keyTile, b-a)
		}
	})
}

// packKeys packs n rows of k as the columns of keys from at on.
func (s *KeyValues) packKeys(keys, k []float32, at, n int) {
	t, ld := s.tile, s.heads*s.dim
	depth := t.units(s.dim)
	var narrow []uint16
	if t.perUnit == 2 {
		narrow = make([]uint16, min(n, t.cols)*s.dim)
	}
	for i := 0; i < n; {
		col := (at + i) % t.cols
		rows := min(t.cols-col, n-i)
		src, off, step := Source{F32: k}, i*ld, ld
		if t.perUnit == 2 {
			for r := range rows {
				NarrowBF16(narrow[r*s.dim:][:s.dim], k[(i+r)*ld:][:s.dim])
			}
			src, off, step = Source{BF16: narrow}, 0, s.dim
		}
		panel := keys[(at+i-col)*depth:][:t.cols*depth]
		for k0 := 0; k0 < s.dim; k0 += blockK * t.perUnit {
			part := min(blockK*t.perUnit, s.dim-k0)
			t.packRows(panel[k0/t.perUnit*t.cols:], col, src, off+k0, step, rows, part)
		}
		i += rows
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

// packValues packs n rows of v as the rows of values from at on.
func (s *KeyValues) packValues(p *pairs, values, v []float32, at, n int) {
	t, ld := s.tile, s.heads*s.dim
	stride := t.units(keyTile) * t.cols
	for i := 0; i < n; {
		unit, rows := (at+i)/t.perUnit, 1
		if t.perUnit == 2 && (at+i)%2 == 0 && i+1 < n {
			rows = 2
		}
		for j := 0; j < s.dim; j += t.cols {
			cols := min(t.cols, s.dim-j)
			to := values[j/t.cols*stride+unit*t.cols:][:cols]
			row := v[i*ld+j:][:cols]
			switch {
			case t.perUnit == 1:
				copy(to, row)
			case rows == 2:
				p.both(to, row, v[(i+1)*ld+j:][:cols])
			case (at+i)%2 == 0:
				p.first(to, row)
			default:
				p.second(to, row)
			}
		}
		i += rows
	}
}

// pairs joins rows of at most maxTileCols to units of two bfloat16.
type pairs struct {
	even, odd [maxTileCols]uint16
}

// both writes units of an even and an odd row.
func (p *pairs) both(dst, even, odd []float32) {
	n := pairBF16(dst, even, odd)
	if n < len(dst) {
		p.first(dst[n:], even[n:])
		p.second(dst[n:], odd[n:])
	}
}

// first writes units of an even row, whose other half is 0.
func (p *pairs) first(dst, even []float32) {
	narrow, to := p.even[:len(dst)], halves(dst)
	NarrowBF16(narrow, even)
	for i, h := range narrow {
		to[2*i], to[2*i+1] = h, 0
	}
}

// second writes the other half of units.
func (p *pairs) second(dst, odd []float32) {
	narrow, to := p.odd[:len(dst)], halves(dst)
	NarrowBF16(narrow, odd)
	for i, h := range narrow {
		to[2*i+1] = h
	}
}
