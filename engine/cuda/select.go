package cuda

import (
	"fmt"
	"math"
	"strings"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/engine/cuda/driver"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// The layout that kernels/score.cuh, score.cu and select.cu have.
const (
	sumStrip    = 64  // score::strip
	sumThreads  = 128 // score::sum_threads
	sumRows     = sumThreads / 8
	firstBins   = 1 << 11
	nextBits    = 10
	nextBins    = 1 << nextBits
	together    = 2   // score::together
	nearThreads = 512 // at most, of a block of select_near_TYPE
	farThreads  = 1024
	fewThreads  = 128
	noKey       = 0xffffffff
	staticBytes = 256     // at least what a kernel of select.cu has of static shared memory
	spreadKeys  = 1 << 16 // of a block of select_spread
)

// What select_TYPE does with scores: selection::Mode.
const (
	keepScores int32 = iota
	selectRows
	selectGroups
)

var _ engine.Selector = (*Engine)(nil)

// suffix names the kernels of a type.
func suffix(d tensor.DType) string { return strings.ToLower(d.String()) }

// scores implements engine.Scores: what the scores of w are made of, on the device. They
// are computed by whatever reads them, and kept where it goes through them several times.
// For w of b bytes and k weights the card's memory moves, beside vectors of rows and columns,
//
//	sums          b to 2b: what the sweep over rows reads may still be in the cache for columns
//	rows and N:M  b + k/8, while the scores lie in shared memory; they too read b to
//	              (1 + r)·b from the cache with neighbourhoods of radius r
//	matrix        b + 4k for the scores, thrice 4k for two digits and the mask, k/8 to 5k/8
type scores struct {
	*stream
	m, n    int // rows and columns
	dtype   tensor.DType
	w       driver.Pointer // rows of pitch weights
	pitch   int            // cols, rounded up to a multiple of 4
	a, b, s driver.Pointer // float32: of rows, of columns, norms
	gamma   float32
	radius  int // 0 without γ

	bad  driver.Pointer // uint32: not 0 if a score is not finite
	keys driver.Pointer // the scores, rows of pitch; 0: not kept
	bins driver.Pointer // counts of the first 11 bits of the kept ones
	cuts []float32
}

// Scores implements engine.Selector.
func (e *Engine) Scores(w engine.Op, first, rows int, f engine.Importance) (_ engine.Scores, err error) {
	defer engine.Recover(&err)
	o := w.(*weight)
	cols, size := o.w.Cols, o.w.DType.Size()
	if first < 0 || rows < 1 || first+rows > o.w.Rows || len(f.Norms) != cols {
		panic(fmt.Sprintf("cuda: Scores: %d rows from %d on of %d × %d, and %d norms", rows, first, o.w.Rows, cols, len(f.Norms)))
	}
	s := &scores{
		stream: e.NewStream().(*stream), m: rows, n: cols, pitch: (cols + 3) &^ 3, dtype: o.w.DType,
		w: o.at() + driver.Pointer(first*cols*size), gamma: float32(f.Gamma),
	}
	if f.Gamma != 0 {
		if s.radius = f.Radius; s.radius < 1 || s.radius > 5 {
			panic(fmt.Sprintf("cuda: Scores: radius %d, want 1 to 5", s.radius))
		}
	}
	if s.pitch != cols {
		to := s.take(int64(rows * s.pitch * size))
		s.rows(fmt.Sprintf("score_pad_%d", 8*size), rows, 256, s.w, cols, to, s.pitch)
		s.w = to
	}
	s.a, s.b, s.s = s.take(4*int64(rows)), s.take(4*int64(s.pitch)), s.take(4*int64(s.pitch))
	s.bad = s.zeros(4)
	e.Device.Upload(e.Main, s.s, bytesOf(f.Norms))

	var row, parts driver.Pointer // 0: no sums are needed
	if f.Alpha != 0 || f.Beta != 0 {
		strips, blocks := ceil(rows, sumStrip), ceil(rows, sumRows)
		row, parts = s.take(8*int64(rows)), s.take(8*int64(strips*s.pitch))
		s.rows("score_sums_"+suffix(s.dtype), blocks+strips*ceil(s.pitch, 2*sumThreads), sumThreads,
			s.w, rows, cols, s.pitch, blocks, row, parts)
	}
	const threads = 256
	s.rows("score_terms", ceil(max(rows, cols), threads), threads,
		row, parts, rows, cols, s.pitch, f.Alpha, f.Beta, float32(f.Delta), s.a, s.b, s.bad)
	return s, nil
}

// zeros returns n bytes of zeros.
func (s *scores) zeros(n int64) driver.Pointer {
	p := s.take(n)
	s.engine.Zero(p, n)
	return p
}

// job is what a launch of select_TYPE gets beside the terms of the scores.
type job struct {
	mode         int32
	counts, cuts driver.Pointer
	p            pattern.Pattern
	order, mask  driver.Pointer
}

// words is how many 32-bit words a row of a mask has.
func (s *scores) words() int { return 2 * ceil(s.n, 64) }

// run launches select_TYPE.
func (s *scores) run(j job) {
	kernel, most := "select_", farThreads
	if s.radius > 0 {
		kernel, most = "select_near_", nearThreads
	}
	threads := fewThreads // a power of 2, so that it divides the numbers of bins
	for threads < most && 4*threads < s.n {
		threads *= 2
	}
	shared := 0
	if j.mode != selectGroups {
		shared += 4 * firstBins
	}
	if s.radius > 0 {
		shared += 4 * together * 4 * threads
	}
	if j.order != 0 {
		shared += 4 * ((s.words() + 3) &^ 3)
	}
	const reserved = 1 << 10 // of every block, by the driver
	whole := s.engine.Info.SharedMemory - staticBytes
	half := (s.engine.Info.SharedMemory+reserved)/2 - reserved - staticBytes // so that two blocks run side by side
	keys, row, each := driver.Pointer(0), 4*s.pitch, together
	switch {
	case j.mode == keepScores:
		keys, each = s.keys, 8 // whose counts are added to those of all in one go
	case shared+each*row <= half || s.radius > 0 && shared+each*row <= whole:
		shared += each * row
	case s.radius == 0 && shared+row <= whole:
		each = 1
		shared += row
	default:
		keys = s.take(int64(s.m * row))
	}
	s.engine.Launch(kernel+suffix(s.dtype), [3]int{ceil(s.m, each), 1, 1}, [3]int{threads, 1, 1}, shared,
		s.w, s.m, s.n, s.pitch, s.a, s.b, s.s, s.gamma, s.radius,
		j.mode, each, keys, s.bins, j.counts, j.cuts, j.p.Keep, j.p.Of, j.order, j.mask, s.words(), s.bad)
}

// Select implements engine.Scores.
func (s *scores) Select(t pattern.Target, order []int) (*mask.Mask, error) {
	k, err := t.Pruned(s.m, s.n)
	if err != nil {
		return nil, err
	}
	at, cuts, n := s.post(t, k, order)
	bits, cut := make([]uint64, s.m*s.words()/2), make([]uint32, n)
	download(s.stream, bits, at)
	download(s.stream, cut, cuts)
	s.cuts = nil
	for _, key := range cut {
		if key != noKey {
			s.cuts = append(s.cuts, math.Float32frombits(key))
		}
	}
	if s.isBad() {
		return nil, engine.ErrScores
	}
	return mask.Of(s.m, s.n, bits, order), nil
}

// post posts the work of Select, which prunes k, and returns where the mask will be, and
// the n keys of the cuts.
func (s *scores) post(t pattern.Target, k int, order []int) (bits, cuts driver.Pointer, n int) {
	bits = s.take(int64(4 * s.m * s.words()))
	switch {
	case t.Pattern.Of != 0:
		j := job{mode: selectGroups, p: t.Pattern, mask: bits}
		if order != nil {
			j.order = s.integers(s.n, func(k int) int { return order[k] })
		}
		s.run(j)
		return bits, 0, 0
	case k == 0 || t.Group == pattern.Row:
		counts := s.integers(s.m, func(i int) int { return t.PrunedInRow(i, s.n) })
		cuts = s.take(int64(4 * s.m))
		s.run(job{mode: selectRows, counts: counts, cuts: cuts, mask: bits})
		return bits, cuts, s.m
	}
	return bits, s.matrix(k, bits), 1
}

// isBad reports whether some score is not finite.
func (s *scores) isBad() bool {
	bad := make([]uint32, 1)
	download(s.stream, bad, s.bad)
	return bad[0] != 0
}

// integers returns the address of n int32.
func (s *scores) integers(n int, value func(i int) int) driver.Pointer {
	values := make([]int32, n)
	for i := range values {
		values[i] = int32(value(i))
	}
	return upload(s.stream, values)
}

// keep computes the scores once for all that follow.
func (s *scores) keep() {
	if s.keys != 0 {
		return
	}
	s.keys, s.bins = s.take(int64(4*s.m*s.pitch)), s.zeros(4*firstBins)
	s.run(job{mode: keepScores})
}

// matrix writes to bits the mask that prunes the k lowest of all, and returns where the
// highest of these is.
func (s *scores) matrix(k int, bits driver.Pointer) driver.Pointer {
	s.keep()
	n := uint64(s.m) * uint64(s.pitch)
	if n > math.MaxUint32 {
		panic(fmt.Sprintf("cuda: a matrix of %d × %d, want at most 2³² weights", s.m, s.n))
	}
	const digits, threads = 1024, 256
	state, bins := upload(s.stream, []uint32{0, uint32(k), 0}), s.take(4*nextBins)
	s.rows("select_digit", 1, digits, state, s.bins, firstBins)
	for shift := nextBits; shift >= 0; shift -= nextBits {
		const threads, blocks = 512, 1024
		s.engine.Zero(bins, 4*nextBins)
		s.rows("select_count", min(blocks, ceil(int(n), 4*threads)), threads, s.keys, n, state, shift, bins)
		s.rows("select_digit", 1, digits, state, bins, nextBins)
	}
	ties, equal := s.take(int64(4*s.m*s.words())), s.take(int64(4*s.m))
	s.rows("select_above", s.m, threads, s.keys, s.n, s.pitch, state, bits, ties, equal, s.words())
	s.rows("select_ranks", 1, digits, state, equal, s.m)
	s.rows("select_ties", ceil(s.m, threads/32), threads, state, ties, equal, s.m, s.words(), bits)
	return state
}

// Cuts implements engine.Scores.
func (s *scores) Cuts() []float32 { return s.cuts }

// Read implements engine.Scores.
func (s *scores) Read(dst []float32) error {
	if len(dst) != s.m*s.n {
		panic(fmt.Sprintf("cuda: Read: len(dst) = %d, want %d × %d", len(dst), s.m, s.n))
	}
	s.keep()
	if s.isBad() {
		return engine.ErrScores
	}
	if s.pitch == s.n {
		download(s.stream, dst, s.keys)
		return nil
	}
	for i := range s.m {
		download(s.stream, dst[i*s.n:(i+1)*s.n], s.keys+driver.Pointer(4*i*s.pitch))
	}
	return nil
}

// Spread implements engine.Scores.
func (s *scores) Spread(m *mask.Mask) (n []uint32, low []uint64) {
	if m.Rows != s.m || m.Cols != s.n {
		panic(fmt.Sprintf("cuda: Spread: mask of %d × %d, want %d × %d", m.Rows, m.Cols, s.m, s.n))
	}
	s.keep()
	firsts := make([]uint32, firstBins)
	download(s.stream, firsts, s.bins)
	top := 0
	for digit, count := range firsts {
		if count > 0 {
			top = (digit+1)<<(31-11-16) - 1
		}
	}
	n, low = make([]uint32, 2*engine.SpreadBins), make([]uint64, 2*engine.SpreadBins)
	counts, sums := s.zeros(int64(4*len(n))), s.zeros(int64(8*len(low)))
	each := max(1, spreadKeys/s.n)
	s.engine.Launch("select_spread", [3]int{ceil(s.m, each), ceil(s.n, spreadKeys), 1}, [3]int{512, 1, 1}, 0,
		s.keys, s.m, s.n, s.pitch, upload(s.stream, m.Bits()), s.words(), each, top, counts, sums)
	download(s.stream, n, counts)
	download(s.stream, low, sums)
	return n, low
}

// Release implements engine.Scores.
func (s *scores) Release() {
	s.stream.Release(0)
	s.keys = 0
}

// Apply implements engine.Selector.
func (e *Engine) Apply(w engine.Op, first int, m *mask.Mask) {
	o := w.(*weight)
	if first < 0 || first+m.Rows > o.w.Rows || m.Cols != o.w.Cols {
		panic(fmt.Sprintf("cuda: Apply: mask of %d × %d from row %d on of %d × %d", m.Rows, m.Cols, first, o.w.Rows, o.w.Cols))
	}
	words, size := m.Bits(), o.w.DType.Size()
	n := int64(len(bytesOf(words)))
	at := e.take(n)
	defer e.give(at, n)
	e.Device.Upload(e.Main, at, bytesOf(words))
	e.Launch(fmt.Sprintf("mask_apply_%d", 8*size), [3]int{m.Rows, 1, 1}, [3]int{256, 1, 1}, 0,
		o.at()+driver.Pointer(first*m.Cols*size), m.Cols, at, 2*ceil(m.Cols, 64))
}

// ceil returns the least integer that is at least a/b.
func ceil(a, b int) int { return (a + b - 1) / b }
