package model

import (
	"fmt"
	"math"

	"github.com/crepe-llm/crepe/internal/kernel"
	"github.com/crepe-llm/crepe/tensor"
)

// Head turns hidden states into logits, final norm first. It reads its matrix
// in chunks of vocabulary rows, of which one is in memory; a head of one chunk
// is read once and serves many calls. One goroutine uses it at a time.
type Head struct {
	m     *Model
	norm  []float32
	chunk *Linear // vocabulary rows first to first+chunk.Rows-1
	first int     // nowhere before the first read
	st    *State
}

const nowhere = -1

const (
	headChunkBytes = 64 << 20 // bounds the rows of the head's matrix in memory
	headRun        = 4096     // logits of a token at a time; 32 MiB for chunkTokens
)

// LoadHead reads the final norm; the matrix is read when it is used.
func (m *Model) LoadHead() (*Head, error) {
	return m.loadHead(headChunkBytes / (m.Config.Width * m.head.DType.Size()))
}

// LoadWholeHead is LoadHead for a head that is used token by token: its matrix,
// of HeadBytes, stays in memory from its first use.
func (m *Model) LoadWholeHead() (*Head, error) { return m.loadHead(m.Config.Vocab) }

// HeadBytes returns the size of the head's matrix.
func (m *Model) HeadBytes() int64 { return m.head.Size }

// loadHead returns a head that reads that many vocabulary rows at once.
func (m *Model) loadHead(rows int) (*Head, error) {
	b := m.binder()
	b.read = true
	norm := b.norm(m.Config.prefix+"norm.weight", m.Config.Width)
	if err := b.err(); err != nil {
		return nil, err
	}
	rows = min(m.Config.Vocab, max(1, rows))
	chunk := &Linear{
		Name: m.head.Name, Rows: rows, Cols: m.Config.Width, compute: &m.Compute,
		W: tensor.NewWeight(m.head.DType, rows, m.Config.Width),
	}
	return &Head{m: m, norm: norm, chunk: chunk, first: nowhere, st: m.NewState()}, nil
}

// NLL writes the negative log-likelihood of targets[t] after x's row t, nats:
//
//	dst[t] = ln Σ_v exp(logit_v) − logit_targets[t]
//
// x is tokens × width, the last block's output; rows of several windows may
// follow each other, which saves reading the matrix again. A negative target
// has no likelihood and dst 0. Logits are float32, the sum is float64 with a
// running maximum, and no row of logits exists as a whole.
func (h *Head) NLL(x tensor.Matrix, targets []int32, dst []float64) error {
	if len(targets) != x.Rows || len(dst) != x.Rows {
		panic(fmt.Sprintf("model: NLL: %d targets and %d results, want %d", len(targets), len(dst), x.Rows))
	}
	for t, id := range targets {
		if int(id) >= h.m.Config.Vocab {
			return fmt.Errorf("target %d has id %d, want one below %d", t, id, h.m.Config.Vocab)
		}
	}
	logits := make([]logSum, x.Rows)
	err := h.stream(x, func(t, first int, part []float32) {
		s := &logits[t]
		s.add(part)
		if i := int(targets[t]) - first; i >= 0 && i < len(part) {
			s.target = float64(part[i])
		}
	})
	for t := range dst {
		dst[t] = 0
		if targets[t] >= 0 {
			dst[t] = logits[t].log() - logits[t].target
		}
	}
	return err
}

// logSum is ln Σ exp over logits that come in parts.
type logSum struct {
	max, sum float64 // sum = Σ exp(logit − max)
	target   float64
	any      bool
}

func (s *logSum) add(part []float32) {
	top, sum := kernel.MaxSumExp(part)
	m := float64(top)
	switch {
	case !s.any:
		s.max, s.sum, s.any = m, sum, true
	case m > s.max:
		s.max, s.sum = m, s.sum*math.Exp(s.max-m)+sum
	default:
		s.sum += sum * math.Exp(m-s.max)
	}
}

func (s *logSum) log() float64 { return s.max + math.Log(s.sum) }

// Logits writes the tokens × vocabulary logits after each row of x.
func (h *Head) Logits(dst, x tensor.Matrix) error {
	if dst.Rows != x.Rows || dst.Cols != h.m.Config.Vocab {
		panic(fmt.Sprintf("model: Logits: dst is %d × %d, want %d × %d", dst.Rows, dst.Cols, x.Rows, h.m.Config.Vocab))
	}
	return h.stream(x, func(t, first int, part []float32) { copy(dst.Row(t)[first:], part) })
}

// stream calls f, for different tokens at a time, with the logits of each
// token, one run of the vocabulary after another.
func (h *Head) stream(x tensor.Matrix, f func(t, first int, part []float32)) error {
	if x.Cols != h.m.Config.Width {
		panic(fmt.Sprintf("model: Head: hidden states have %d columns, want %d", x.Cols, h.m.Config.Width))
	}
	for first := 0; first < h.m.Config.Vocab; first += h.chunk.Rows {
		part, err := h.load(first)
		if err != nil {
			return err
		}
		for lo := 0; lo < x.Rows; lo += chunkTokens {
			h.logits(part, x.Slice(lo, min(lo+chunkTokens, x.Rows)), func(t, i int, y []float32) { f(lo+t, first+i, y) })
		}
	}
	return nil
}

// logits calls f with the logits of x's tokens over part, one run of the
// vocabulary after another, the first of which is part's i-th. The norm is
// computed again for each part: it costs a thousandth of the product.
func (h *Head) logits(part rows, x tensor.Matrix, f func(t, i int, y []float32)) {
	defer h.st.release(h.st.mark())
	shared := normed{x, h.norm, h.m.Config.NormEps}.share(h.st, part)
	run := headRun
	if x.Rows == 1 {
		run = part.n // decoding: memory is read best in one go
	}
	part.eachRun(h.st, shared, run, func(i int, y tensor.Matrix) {
		eachToken(x.Rows, func(t int) {
			if limit := h.m.Config.logitCap; limit > 0 {
				kernel.SoftCap(y.Row(t), limit)
			}
			f(t, i, y.Row(t))
		})
	})
}

// load returns the vocabulary rows from first on, reading them unless they are
// there. The last chunk begins early, so that all are of one size and share
// one memory.
func (h *Head) load(first int) (rows, error) {
	start := min(first, h.m.Config.Vocab-h.chunk.Rows)
	part := rows{Linear: h.chunk, lo: first - start, n: h.chunk.Rows - (first - start)}
	if h.first == start {
		return part, nil
	}
	t, w := h.m.head, h.chunk.W
	h.first = nowhere
	if err := h.m.inv.ReadAt(t, w.Bytes(), int64(start)*int64(w.Cols*w.DType.Size())); err != nil {
		return rows{}, err
	}
	if err := checkFinite(t, w, start); err != nil {
		return rows{}, err
	}
	h.first = start
	return part, nil
}
