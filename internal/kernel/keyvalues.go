package kernel

import (
	"fmt"
	"sync"

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

// BytesOf returns the memory that so many tokens take in s, whole chunks.
func (s *KeyValues) BytesOf(tokens int) int {
	return (tokens + keyTile - 1) / keyTile * s.heads * s.headSize() * 4
}

// Reset forgets all tokens and keeps the memory.
func (s *KeyValues) Reset() {
	s.free = append(s.free, s.chunks[s.lent:]...)
	s.chunks, s.lent, s.tokens = s.chunks[:0], 0, 0
}

// CopyFrom makes s hold the first n tokens that from holds, in its memory if that
// is of the same kind. Full chunks are shared: neither writes them again.
func (s *KeyValues) CopyFrom(from *KeyValues, n int) {
	if n < 0 || n > from.tokens {
		panic(fmt.Sprintf("kernel: CopyFrom: %d tokens of %d", n, from.tokens))
	}
	if s.heads != from.heads || s.dim != from.dim || s.tile != from.tile {
		*s = KeyValues{heads: from.heads, dim: from.dim, tile: from.tile}
	}
	s.Reset()
	full := n / keyTile
	from.lent = max(from.lent, full)
	s.chunks = append(s.chunks, from.chunks[:full]...)
	s.lent, s.tokens = full, n
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

// headsWidth is how many elements of a row a task packs, about: several heads', so
// that the processor sees long pieces of memory to read ahead.
const headsWidth = 1024

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
	cols := s.tile.cols
	first, last := from/cols, (s.tokens-1)/cols // panels
	groups := ceil(width, headsWidth)
	grain := max(1, packGrain*groups/(width*min(n, cols)))
	parallel.For((last-first+1)*groups, grain, func(lo, hi int) {
		p := keyPackers.Get().(*keyPacker)
		defer keyPackers.Put(p)
		for i := lo; i < hi; i++ {
			panel, group := first+i/groups, i%groups
			p.pack(s, keyPiece{
				k: k, v: v, from: from,
				t0: max(from, panel*cols), t1: min(s.tokens, (panel+1)*cols),
				h0: s.heads * group / groups, h1: s.heads * (group + 1) / groups,
			})
		}
	})
}

// keyPiece is the keys and values of tokens t0 to t1-1, in one panel, of heads h0
// to h1-1. The first rows of k and v are token from's.
type keyPiece struct {
	k, v           []float32
	from           int
	t0, t1, h0, h1 int
}

// keyPacker holds one worker's buffers.
type keyPacker struct {
	pairs
	narrow []uint16 // keys in bfloat16
}

var keyPackers = sync.Pool{New: func() any { return new(keyPacker) }}

// pack packs a into s.
func (p *keyPacker) pack(s *KeyValues, a keyPiece) {
	t, ld, n := s.tile, s.heads*s.dim, a.t1-a.t0
	off := (a.t0-a.from)*ld + a.h0*s.dim
	keys, step := Source{F32: a.k[off:]}, ld
	if t.perUnit == 2 {
		step = (a.h1 - a.h0) * s.dim
		if len(p.narrow) < n*step {
			p.narrow = make([]uint16, n*step)
		}
		for r := range n {
			NarrowBF16(p.narrow[r*step:][:step], a.k[off+r*ld:][:step])
		}
		keys = Source{BF16: p.narrow}
	}
	for h := a.h0; h < a.h1; h++ {
		packedKeys, packedValues := s.head(a.t0/keyTile, h)
		at := (h - a.h0) * s.dim
		s.packKeys(packedKeys, keys, at, step, a.t0%keyTile, n)
		s.packValues(&p.pairs, packedValues, a.v[off+at:], a.t0%keyTile, n)
	}
}

// packKeys packs n rows of k, from off on, rows ldk apart, as the columns of keys
// from at on, of one panel.
func (s *KeyValues) packKeys(keys []float32, k Source, off, ldk, at, n int) {
	t, depth := s.tile, s.tile.units(s.dim)
	col := at % t.cols
	panel := keys[(at-col)*depth:][:t.cols*depth]
	for k0 := 0; k0 < s.dim; k0 += blockK * t.perUnit {
		part := min(blockK*t.perUnit, s.dim-k0)
		t.packRows(panel[k0/t.perUnit*t.cols:], col, k, off+k0, ldk, n, part)
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
