package model

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/internal/parallel"
	"github.com/crepe-llm/crepe/tensor"
)

// Head turns hidden states into logits, final norm first. It reads its matrix
// in chunks of vocabulary rows, of which the last one read is in memory, or, with
// Options.KeepHead, all are. What is in memory serves many calls. Results depend on
// the chunks' size, not on how many are kept. One goroutine uses it at a time.
type Head struct {
	m      *Model
	norm   *engine.Norm
	stream engine.Stream
	rows   int               // of a chunk
	chunk  *tensor.Weight    // memory of one, unless all are kept
	ops    map[int]engine.Op // chunks in memory, by their first row
}

// headChunkBytes bounds the rows of the head's matrix in memory.
const headChunkBytes = 64 << 20

// LoadHead reads the final norm; the matrix is read when it is used.
func (m *Model) LoadHead() (*Head, error) {
	return m.loadHead(headChunkBytes / (m.Config.Width * m.head.DType.Size()))
}

// LoadWholeHead is LoadHead for a head that is used token by token: its matrix,
// of WholeHeadBytes, stays in memory from its first use.
func (m *Model) LoadWholeHead() (*Head, error) { return m.loadHead(m.Config.Vocab) }

// HeadBytes returns the size of the head's matrix.
func (m *Model) HeadBytes() int64 { return m.head.Size }

// WholeHeadBytes returns what the head's matrix takes if all of it is read at once: less
// than HeadBytes if it stays packed.
func (m *Model) WholeHeadBytes() int64 { return m.storedHead().bytes(m.opt.Engine) }

func (m *Model) storedHead() *stored { return &stored{inv: m.inv, tensor: m.head, plain: m.plain} }

// loadHead returns a head that reads that many vocabulary rows at once.
func (m *Model) loadHead(rows int) (*Head, error) {
	b := m.binder()
	b.read = true
	norm := b.norm(m.Config.prefix+"norm.weight", m.Config.Width)
	if err := b.err(); err != nil {
		return nil, err
	}
	h := &Head{m: m, norm: norm, stream: m.opt.Engine.NewStream(), ops: map[int]engine.Op{}}
	h.cut(min(m.Config.Vocab, max(1, rows)))
	return h, nil
}

// cut makes h read that many vocabulary rows at once.
func (h *Head) cut(rows int) {
	if h.rows != rows {
		h.rows, h.chunk = rows, nil
		h.free()
	}
}

// NLL writes the negative log-likelihood of targets[t] after x's row t, nats:
//
//	dst[t] = ln Σ_v exp(logit_v) − logit_targets[t]
//
// x is tokens × width, the last block's output; rows of several windows may
// follow each other, which saves reading the matrix again. A negative target
// has no likelihood and dst 0. Logits are float32, the sum is float64 with a
// running maximum, and no row of logits exists as a whole.
func (h *Head) NLL(x engine.Mat, targets []int32, dst []float64) error {
	if len(targets) != x.Rows || len(dst) != x.Rows {
		panic(fmt.Sprintf("model: NLL: %d targets and %d results, want %d", len(targets), len(dst), x.Rows))
	}
	for t, id := range targets {
		if int(id) >= h.m.Config.Vocab {
			return fmt.Errorf("target %d has id %d, want one below %d", t, id, h.m.Config.Vocab)
		}
	}
	sums := make([]engine.LogSum, x.Rows)
	err := h.eachChunk(x, func(lo int, x engine.Mat, part engine.Proj, first int) {
		hi := lo + x.Rows
		h.stream.LogSums(sums[lo:hi], x, part, first, h.m.Config.logitCap, targets[lo:hi])
	})
	for t := range dst {
		dst[t] = 0
		if targets[t] >= 0 {
			dst[t] = sums[t].NLL()
		}
	}
	return err
}

// Logits writes the tokens × vocabulary logits after each row of x.
func (h *Head) Logits(dst, x engine.Mat) error {
	if dst.Rows != x.Rows || dst.Cols != h.m.Config.Vocab {
		panic(fmt.Sprintf("model: Logits: dst is %d × %d, want %d × %d", dst.Rows, dst.Cols, x.Rows, h.m.Config.Vocab))
	}
	return h.eachChunk(x, func(lo int, x engine.Mat, part engine.Proj, first int) {
		h.stream.Logits(dst.Slice(lo, lo+x.Rows), x, part, first, h.m.Config.logitCap)
	})
}

// Compare holds h's predictions after x against those of dense after y, the
// same tokens' hidden states (engine.LogPair). x and y are tokens × width; both
// models have one vocabulary, or it is an error. Logits are float32, sums float64
// and streamed over the vocabulary as in NLL.
func (h *Head) Compare(dense *Head, x, y engine.Mat, targets []int32, dst []engine.Divergence) error {
	if x.Rows != y.Rows || len(targets) != x.Rows || len(dst) != x.Rows {
		panic(fmt.Sprintf("model: Compare: %d and %d rows, %d targets, %d results, want as many", x.Rows, y.Rows, len(targets), len(dst)))
	}
	vocab := h.m.Config.Vocab
	if other := dense.m.Config.Vocab; vocab != other {
		return fmt.Errorf("vocabularies of %d and %d tokens, want the same", vocab, other)
	}
	// The parts of the vocabulary must be the same; the larger head is cut.
	rows := min(h.rows, dense.rows)
	h.cut(rows)
	dense.cut(rows)
	pairs := make([]engine.LogPair, x.Rows)
	for first := 0; first < vocab; first += rows {
		for lo := 0; lo < x.Rows; lo += pairTokens {
			hi := min(lo+pairTokens, x.Rows)
			q, err := h.part(x.Slice(lo, hi), first)
			if err != nil {
				return err
			}
			p, err := dense.part(y.Slice(lo, hi), first)
			if err != nil {
				return err
			}
			parallel.For(hi-lo, 1, func(t0, t1 int) {
				for t := t0; t < t1; t++ {
					pairs[lo+t].Add(first, p.Row(t), q.Row(t), int(targets[lo+t]))
				}
			})
		}
	}
	for t := range dst {
		dst[t] = pairs[t].Divergence()
	}
	return nil
}

// pairTokens is how many tokens' logits over a part of the vocabulary Compare
// holds.
const pairTokens = 512

// part returns the logits of x's tokens over the vocabulary from first on, as far
// as one chunk reaches.
func (h *Head) part(x engine.Mat, first int) (tensor.Matrix, error) {
	head, err := h.load(first)
	if err != nil {
		return tensor.Matrix{}, err
	}
	defer h.stream.Release(h.stream.Mark())
	y := h.stream.Alloc(x.Rows, head.N)
	h.stream.Logits(y, h.stream.Operand(x, h.norm, head), head, 0, h.m.Config.logitCap)
	logits := tensor.NewMatrix(x.Rows, head.N)
	h.m.opt.Engine.Download(logits, y)
	return logits, nil
}

// eachChunk calls f with every chunk of x's tokens, of which the first is token
// lo, and every part of the vocabulary, of which the first is token first. The
// norm is computed again for each part: it costs a thousandth of the product.
func (h *Head) eachChunk(x engine.Mat, f func(lo int, x engine.Mat, part engine.Proj, first int)) error {
	if x.Cols != h.m.Config.Width {
		panic(fmt.Sprintf("model: Head: hidden states have %d columns, want %d", x.Cols, h.m.Config.Width))
	}
	for first := 0; first < h.m.Config.Vocab; first += h.rows {
		part, err := h.load(first)
		if err != nil {
			return err
		}
		for lo := 0; lo < x.Rows; lo += chunkTokens {
			mark := h.stream.Mark()
			f(lo, h.stream.Operand(x.Slice(lo, min(lo+chunkTokens, x.Rows)), h.norm, part), part, first)
			h.stream.Release(mark)
		}
	}
	return nil
}

// free gives up the chunks in memory.
func (h *Head) free() {
	for _, op := range h.ops {
		engine.Free(op)
	}
	clear(h.ops)
}

// load returns the vocabulary rows from first on, reading them unless they are
// there. The last chunk begins early, so that all are of one size and share
// one memory.
func (h *Head) load(first int) (engine.Proj, error) {
	start := min(first, h.m.Config.Vocab-h.rows)
	if h.ops[start] == nil {
		op, err := h.read(start)
		if err != nil {
			return engine.Proj{}, err
		}
		h.ops[start] = op
	}
	return engine.Proj{W: h.ops[start], Lo: first - start, N: h.rows - (first - start)}, nil
}

// read reads the chunk that begins with that row.
func (h *Head) read(start int) (engine.Op, error) {
	t, w := h.m.head, h.chunk
	if p, ok := h.m.storedHead().packer(h.m.opt.Engine); ok && h.rows == h.m.Config.Vocab {
		return h.m.storedHead().loadPacked(p)
	}
	if w == nil {
		w = tensor.NewWeight(t.DType, h.rows, h.m.Config.Width)
	}
	if !h.m.opt.KeepHead {
		h.chunk = w
		h.free()
	}
	if err := h.m.inv.ReadAt(t, w.Bytes(), int64(start)*int64(w.Cols*w.DType.Size())); err != nil {
		return nil, err
	}
	if err := checkFinite(t, w, start); err != nil {
		return nil, err
	}
	return h.m.opt.Engine.Load(w)
}
