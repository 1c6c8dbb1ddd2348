package model

import (
	"math"
	"strings"

	"github.com/crepe-llm/crepe/engine"
	"github.com/crepe-llm/crepe/tensor"
)

// LinearSpec describes a prunable Linear by its header.
type LinearSpec struct {
	Name       string // of the checkpoint, without ".weight"
	Rows, Cols int    // out, in
	DType      tensor.DType
	Gate       bool   // as in Linear
	Attention  bool   // as in Linear
	Expert     bool   // as in Linear
	Output     bool   // as in Linear
	Parts      []Part // as in Linear
	Input      int    // Linears of a block with the same number share their input

	// Share is that of the tokens that enter it: below 1 for an expert's.
	Share float64
}

// Linears returns the prunable Linears of block i in execution order. It reads
// no weights.
func (m *Model) Linears(i int) []LinearSpec {
	var infos []LinearSpec
	for k, in := range m.bind(m.binder(), i).Inputs() {
		for _, l := range in.Linears {
			infos = append(infos, LinearSpec{
				Name: l.Name, Rows: l.Rows, Cols: l.Cols, DType: l.stored.tensor.DType,
				Gate: l.Gate, Attention: l.Attention, Expert: l.Expert, Output: l.Output, Parts: l.Parts, Input: k, Share: 1,
			})
			if e := m.Config.experts; l.Expert {
				infos[len(infos)-1].Share = float64(e.used) / float64(e.count)
			}
		}
	}
	return infos
}

// FitBlocks returns the ExpertBytes with which the weights of no block take
// more than room bytes, and what those of the largest then take. 0 is no limit;
// where even one expert at a time is too much, the block is above room.
func (m *Model) FitBlocks(room int64) (expertBytes, block int64) {
	m = m.WithExpertBytes(0)
	var always, experts []int64 // by block
	limit, least := int64(math.MaxInt64), int64(0)
	for i := range m.Blocks() {
		all, largest, others := m.bind(m.binder(), i).bytes()
		always, experts = append(always, others), append(experts, all)
		block = max(block, others+all)
		if all > 0 {
			limit, least = min(limit, room-others), max(least, largest)
		}
	}
	if block <= room || least == 0 {
		return 0, block
	}
	expertBytes, block = max(limit, least), 0
	for i := range always {
		block = max(block, always[i]+min(experts[i], expertBytes))
	}
	return expertBytes, block
}

// Within returns the model with the weights of blocks, or of the head after them, held to
// room bytes: with as many experts in memory as fit, or, where two whole blocks fit,
// reading ahead.
func (m *Model) Within(room int64) *Model {
	opt, block := m.opt, int64(0)
	opt.ExpertBytes, block = m.FitBlocks(room)
	opt.Ahead = opt.ExpertBytes == 0 && block <= room/2
	opt.KeepHead = m.HeadBytes() <= room
	return m.With(opt)
}

// BlockBytes returns what the weights of block i take in memory, its experts included.
func (m *Model) BlockBytes(i int) int64 {
	experts, _, others := m.bind(m.binder(), i).bytes()
	return experts + others
}

// ScratchBytes returns about what a pass of so many tokens through a block takes
// beside weights: up to six activations as wide as the hidden states live at once,
// and a chunk of tokens of the widest product.
func (m *Model) ScratchBytes(tokens int) int64 {
	widest := 0
	for i := range m.Blocks() {
		for _, l := range m.Linears(i) {
			widest = max(widest, l.Rows, l.Cols)
		}
	}
	return 4 * int64(tokens) * int64(6*m.Width()+2*widest)
}

// OwnBytes returns about what passes of so many tokens, with a head behind them, take of
// the memory of an engine that has its own, beside the weights of blocks.
func (m *Model) OwnBytes(tokens int) int64 {
	wide := int64(0) // the largest weight, where it is widened for products
	for i := range m.Blocks() {
		for _, l := range m.Linears(i) {
			if l.DType != tensor.F32 && !m.opt.Engine.Rounds(l.DType) {
				wide = max(wide, 4*int64(l.Rows)*int64(l.Cols))
			}
		}
	}
	const (
		logits = 256 << 20 // a part of them that log-sums are taken of
		others = 64 << 20  // vectors, tables, sizes that are rounded up
	)
	part, batch := min(m.head.Size, headChunkBytes), int64(max(tokens, chunkTokens))
	head := part + min(logits, 4*batch*part/int64(m.Config.Width*m.head.DType.Size())) + 2*4*batch*int64(m.Config.Width)
	if m.head.DType != tensor.F32 && !m.opt.Engine.Rounds(m.head.DType) {
		head += 2 * part
	}
	return max(m.ScratchBytes(tokens)+wide, head) + others
}

// OwnLeft returns what an engine with memory of its own has left there for hidden states
// beside the blocks that are in memory at a time and OwnBytes; below 0 if it has not as much. false: it has no
// memory of its own.
func (m *Model) OwnLeft(tokens int) (bytes int64, separate bool) {
	own, separate := engine.OwnMemory(m.opt.Engine)
	if !separate {
		return 0, false
	}
	return own - m.OwnBytes(tokens) - m.weightBytes(), true
}

// weightBytes returns what the weights of blocks take that are in memory at a time.
func (m *Model) weightBytes() int64 {
	most := int64(0)
	for i := range m.Blocks() {
		experts, _, others := m.bind(m.binder(), i).bytes()
		if n := m.opt.ExpertBytes; n > 0 {
			experts = min(experts, n)
		}
		most = max(most, others+experts)
	}
	if m.opt.Ahead {
		most *= 2
	}
	return most
}

// bytes returns the sizes of b's experts, of the largest of them, and of the
// other prunable Linears.
func (b *Block) bytes() (experts, largest, others int64) {
	sizes := map[string]int64{} // by expert
	for _, l := range b.Linears() {
		n := l.bytes()
		if !l.Expert {
			others += n
			continue
		}
		expert := l.Name[:strings.LastIndexByte(l.Name, '.')]
		sizes[expert] += n
		experts, largest = experts+n, max(largest, sizes[expert])
	}
	return experts, largest, others
}
