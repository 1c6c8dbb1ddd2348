package cuda

import (
	"fmt"
	"math"
	"strings"
	"unsafe"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/mask"
	"github.com/crepe-llm/crepe/pattern"
	"github.com/crepe-llm/crepe/tensor"
)

// launcher runs kernels and moves bytes, in order. Addresses are the device's.
type launcher interface {
	// Launch runs a kernel with so many bytes of dynamic shared memory.
	Launch(kernel string, grid, block [3]int, shared int, args ...any)

	// Scratch returns the address of bytes of any content, aligned to 256. They live as long
	// as what asked for them is at work.
	Scratch(bytes int) uintptr

	Zero(dst uintptr, bytes int)
	Upload(dst uintptr, src []byte)
	Download(dst []byte, src uintptr)

	SharedMemory() int // bytes that a block can have
}

// matrix is a weight on the device, row after row.
type matrix struct {
	at         uintptr
	dtype      tensor.DType
	rows, cols int
}

// suffix names the kernels of a type.
func suffix(d tensor.DType) string { return strings.ToLower(d.String()) }

// bits is the size of an element, as kernels are named by it.
func (m matrix) bits() int { return 8 * m.dtype.Size() }

// The layout that kernels/score.cuh, score.cu and select.cu have.
const (
	sumStrip    = 64  // score::strip
	sumThreads  = 128 // score::sum_threads
	sumRows     = sumThreads / 8
	firstBins   = 1 << 11
	nextBits    = 10
	nextBins    = 1 << nextBits
	together    = 2 // score::together
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

// scores implements engine.Scores: what the scores of w are made of, on the device. They
// are computed again by whatever reads them, unless it has to go through them several
// times. Bytes of device memory that are read and written, for n weights of size bytes:
//
//	sums      size·n (both sweeps together, as far as the cache holds what the first read)
//	rows, N:M size·n + n/8, the rows' scores being in shared memory
//	matrix    size·n + 4n, then thrice 4n, + n/8 to 3n/8
type scores struct {
	l       launcher
	w       matrix
	pitch   int     // columns from row to row: a multiple of 4
	from    uintptr // w, with that pitch
	a, b, s uintptr // float32: of rows, of columns, norms
	gamma   float32
	radius  int // 0 without γ

	bad  uintptr // uint32: not 0 if a score is not finite
	keys uintptr // the scores, rows of pitch; 0: not kept
	bins uintptr // counts of the first 11 bits of the kept ones
	cuts []float32
}

// newScores prepares the scores of w by f.
func newScores(l launcher, w matrix, f engine.Importance) *scores {
	if len(f.Norms) != w.cols {
		panic(fmt.Sprintf("cuda: newScores: %d norms, want %d", len(f.Norms), w.cols))
	}
	s := &scores{l: l, w: w, from: w.at, pitch: (w.cols + 3) &^ 3, gamma: float32(f.Gamma)}
	if f.Gamma != 0 {
		if s.radius = f.Radius; s.radius < 1 || s.radius > 5 {
			panic(fmt.Sprintf("cuda: newScores: radius %d, want 1 to 5", s.radius))
		}
	}
	if s.pitch != w.cols {
		s.from = l.Scratch(w.rows * s.pitch * w.dtype.Size())
		l.Launch(fmt.Sprintf("score_pad_%d", w.bits()), [3]int{w.rows, 1, 1}, [3]int{256, 1, 1}, 0,
			w.at, int32(w.cols), s.from, int32(s.pitch))
	}
	s.a, s.b, s.s = l.Scratch(4*w.rows), l.Scratch(4*s.pitch), l.Scratch(4*s.pitch)
	s.bad = l.Scratch(4)
	l.Zero(s.bad, 4)
	l.Upload(s.s, bytesOf(f.Norms))

	var row, parts uintptr // 0: no sums are needed
	if f.Alpha != 0 || f.Beta != 0 {
		strips, blocks := ceil(w.rows, sumStrip), ceil(w.rows, sumRows)
		row, parts = l.Scratch(8*w.rows), l.Scratch(8*strips*s.pitch)
		l.Launch("score_sums_"+suffix(w.dtype), [3]int{blocks + strips*ceil(s.pitch, 2*sumThreads), 1, 1}, [3]int{sumThreads, 1, 1}, 0,
			s.from, int32(w.rows), int32(w.cols), int32(s.pitch), int32(blocks), row, parts)
	}
	const threads = 256
	l.Launch("score_terms", [3]int{ceil(max(w.rows, w.cols), threads), 1, 1}, [3]int{threads, 1, 1}, 0,
		row, parts, int32(w.rows), int32(w.cols), int32(s.pitch), f.Alpha, f.Beta, float32(f.Delta), s.a, s.b, s.bad)
	return s
}

// job is what a launch of select_TYPE gets beside the terms of the scores.
type job struct {
	mode         int32
	counts, cuts uintptr
	p            pattern.Pattern
	order, mask  uintptr
}

// words is how many 32-bit words a row of a mask has.
func (s *scores) words() int { return 2 * ceil(s.w.cols, 64) }

// run launches select_TYPE.
func (s *scores) run(j job) {
	kernel, most := "select_", farThreads
	if s.radius > 0 {
		kernel, most = "select_near_", nearThreads
	}
	threads := fewThreads // a power of 2, so that it divides the numbers of bins
	for threads < most && 4*threads < s.w.cols {
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
	whole := s.l.SharedMemory() - staticBytes
	half := (s.l.SharedMemory()+reserved)/2 - reserved - staticBytes // so that two blocks run side by side
	keys, row, each := s.keys, 4*s.pitch, together
	switch {
	case j.mode == keepScores:
		each = 8 // whose counts are added to those of all in one go
	case shared+each*row <= half || s.radius > 0 && shared+each*row <= whole:
		shared += each * row
	case s.radius == 0 && shared+row <= whole:
		each = 1
		shared += row
	default:
		keys = s.l.Scratch(s.w.rows * row)
	}
	s.l.Launch(kernel+suffix(s.w.dtype), [3]int{ceil(s.w.rows, each), 1, 1}, [3]int{threads, 1, 1}, shared,
		s.from, int32(s.w.rows), int32(s.w.cols), int32(s.pitch), s.a, s.b, s.s, s.gamma, int32(s.radius),
		j.mode, int32(each), keys, s.bins, j.counts, j.cuts, int32(j.p.Keep), int32(j.p.Of), j.order, j.mask, int32(s.words()), s.bad)
}

// Select implements engine.Scores.
func (s *scores) Select(t pattern.Target, order []int) (*mask.Mask, error) {
	rows, cols := s.w.rows, s.w.cols
	k, err := t.Pruned(rows, cols)
	if err != nil {
		return nil, err
	}
	bits := make([]uint64, rows*s.words()/2)
	at := s.l.Scratch(8 * len(bits))
	var cuts uintptr
	cut := make([]uint32, rows)
	switch {
	case t.Pattern.Of != 0:
		j := job{mode: selectGroups, p: t.Pattern, mask: at}
		if order != nil {
			j.order = s.upload32(cols, func(k int) int { return order[k] })
		}
		s.run(j)
		cut = nil
	case k == 0 || t.Group == pattern.Row:
		counts := s.upload32(rows, func(i int) int { return t.PrunedInRow(i, cols) })
		cuts = s.l.Scratch(4 * rows)
		s.run(job{mode: selectRows, counts: counts, cuts: cuts, mask: at})
	default:
		cuts = s.matrix(k, at)
		cut = cut[:1]
	}
	s.cuts = nil
	s.l.Download(bytesOf(bits), at)
	s.l.Download(bytesOf(cut), cuts)
	for _, key := range cut {
		if key != noKey {
			s.cuts = append(s.cuts, math.Float32frombits(key))
		}
	}
	if s.isBad() {
		return nil, engine.ErrScores
	}
	return mask.Of(rows, cols, bits, order), nil
}

// isBad reports whether some score is not finite.
func (s *scores) isBad() bool {
	bad := make([]uint32, 1)
	s.l.Download(bytesOf(bad), s.bad)
	return bad[0] != 0
}

// upload32 returns the address of n int32.
func (s *scores) upload32(n int, value func(i int) int) uintptr {
	values := make([]int32, n)
	for i := range values {
		values[i] = int32(value(i))
	}
	at := s.l.Scratch(4 * n)
	s.l.Upload(at, bytesOf(values))
	return at
}

// keep computes the scores once for all that follow.
func (s *scores) keep() {
	if s.keys != 0 {
		return
	}
	s.keys, s.bins = s.l.Scratch(4*s.w.rows*s.pitch), s.l.Scratch(4*firstBins)
	s.l.Zero(s.bins, 4*firstBins)
	s.run(job{mode: keepScores})
}

// matrix writes to bits the mask that prunes the k lowest of all, and returns where the
// highest of these is.
func (s *scores) matrix(k int, bits uintptr) uintptr {
	s.keep()
	rows, words, n := s.w.rows, s.words(), s.w.rows*s.pitch
	if uint64(n) > math.MaxUint32 {
		panic(fmt.Sprintf("cuda: matrix of %d × %d, want at most 2³² weights", rows, s.w.cols))
	}
	one := [3]int{1, 1, 1}
	state, bins := s.l.Scratch(3*4), s.l.Scratch(4*nextBins)
	s.l.Upload(state, bytesOf([]uint32{0, uint32(k), 0}))
	s.l.Launch("select_digit", one, [3]int{1024, 1, 1}, 0, state, s.bins, int32(firstBins))
	for shift := int32(nextBits); shift >= 0; shift -= nextBits {
		const threads, blocks = 512, 1024
		s.l.Zero(bins, 4*nextBins)
		s.l.Launch("select_count", [3]int{min(blocks, ceil(n, 4*threads)), 1, 1}, [3]int{threads, 1, 1}, 0, s.keys, uint64(n), state, shift, bins)
		s.l.Launch("select_digit", one, [3]int{1024, 1, 1}, 0, state, bins, int32(nextBins))
	}
	const threads = 256
	ties, equal := s.l.Scratch(4*rows*words), s.l.Scratch(4*rows)
	s.l.Launch("select_above", [3]int{rows, 1, 1}, [3]int{threads, 1, 1}, 0, s.keys, int32(s.w.cols), int32(s.pitch), state, bits, ties, equal, int32(words))
	s.l.Launch("select_ranks", one, [3]int{1024, 1, 1}, 0, state, equal, int32(rows))
	s.l.Launch("select_ties", [3]int{ceil(rows, threads/32), 1, 1}, [3]int{threads, 1, 1}, 0, state, ties, equal, int32(rows), int32(words), bits)
	return state
}

// Cuts implements engine.Scores.
func (s *scores) Cuts() []float32 { return s.cuts }

// Read implements engine.Scores.
func (s *scores) Read(dst []float32) {
	if len(dst) != s.w.rows*s.w.cols {
		panic(fmt.Sprintf("cuda: Read: len(dst) = %d, want %d × %d", len(dst), s.w.rows, s.w.cols))
	}
	s.keep()
	if s.pitch == s.w.cols {
		s.l.Download(bytesOf(dst), s.keys)
		return
	}
	for i := range s.w.rows {
		s.l.Download(bytesOf(dst[i*s.w.cols:(i+1)*s.w.cols]), s.keys+uintptr(4*i*s.pitch))
	}
}

// Spread implements engine.Scores.
func (s *scores) Spread(m *mask.Mask) (n []uint32, low []uint64) {
	s.keep()
	firsts := make([]uint32, firstBins)
	s.l.Download(bytesOf(firsts), s.bins)
	top := 0
	for digit, count := range firsts {
		if count > 0 {
			top = (digit+1)<<(31-11-16) - 1
		}
	}
	n, low = make([]uint32, 2*engine.SpreadBins), make([]uint64, 2*engine.SpreadBins)
	counts, sums := s.l.Scratch(4*len(n)), s.l.Scratch(8*len(low))
	s.l.Zero(counts, 4*len(n))
	s.l.Zero(sums, 8*len(low))
	each := max(1, spreadKeys/s.w.cols)
	s.l.Launch("select_spread", [3]int{ceil(s.w.rows, each), ceil(s.w.cols, spreadKeys), 1}, [3]int{512, 1, 1}, 0,
		s.keys, int32(s.w.rows), int32(s.w.cols), int32(s.pitch), uploadMask(s.l, m), int32(s.words()), int32(each), int32(top), counts, sums)
	s.l.Download(bytesOf(n), counts)
	s.l.Download(bytesOf(low), sums)
	return n, low
}

// uploadMask returns the address of m's words.
func uploadMask(l launcher, m *mask.Mask) uintptr {
	words := m.Bits()
	at := l.Scratch(8 * len(words))
	l.Upload(at, bytesOf(words))
	return at
}

// apply sets to +0 what m prunes of w, in place.
func apply(l launcher, w matrix, m *mask.Mask) {
	l.Launch(fmt.Sprintf("mask_apply_%d", w.bits()), [3]int{w.rows, 1, 1}, [3]int{256, 1, 1}, 0,
		w.at, int32(w.cols), uploadMask(l, m), int32(2*ceil(w.cols, 64)))
}

// ceil returns the least integer that is at least a/b.
func ceil(a, b int) int { return (a + b - 1) / b }

// bytesOf returns the memory of x.
func bytesOf[T any](x []T) []byte {
	if len(x) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), len(x)*int(unsafe.Sizeof(x[0])))
}
