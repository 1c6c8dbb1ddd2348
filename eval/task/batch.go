package task

import "github.com/crepe-llm/crepe/model"

// batchTokens is how many tokens pass a block's products together: enough for
// the products to be at their full speed, few enough for their activations to
// be small.
const batchTokens = 1024

// batch is documents whose tokens pass a block together. Its hidden states lie
// in rows lo to hi-1 of the group's: first the beginnings, from rests on what
// follows them. Each part has model.PiecesRows rows at least, so that the
// others in it do not change a document's bits.
type batch struct {
	docs          []*placed
	lo, rests, hi int
}

// prefixes returns how many rows of the first part are tokens', and after how many
// of the second.
func (b *batch) prefixes() (rows int) {
	for _, d := range b.docs {
		rows += len(d.prefix)
	}
	return rows
}

func (b *batch) after() (rows int) {
	for _, d := range b.docs {
		rows += d.tokens() - len(d.prefix)
	}
	return rows
}

// placed is a document with where its hidden states are.
type placed struct {
	*sequences
	doc      int // its number
	prefixAt int
	restAt   []int
}

// row returns the hidden state at position p of the input with that rest.
func (d *placed) row(rest, p int) int {
	if p < len(d.prefix) {
		return d.prefixAt + p
	}
	return d.restAt[rest] + p - len(d.prefix)
}

// batchesOf cuts documents into batches, in order, and returns how many rows
// their hidden states have. There is no padding, so lengths need not be alike.
// A batch of more than one document has most states of sequences at most.
func batchesOf(all []*sequences, which []int, most int) (batches []batch, rows int) {
	for len(which) > 0 {
		b := batch{lo: rows}
		tokens, states := 0, 0
		for ; len(which) > 0; which = which[1:] {
			d := all[which[0]]
			tokens += d.tokens()
			states += 1 + len(d.rests)
			if len(b.docs) > 0 && (tokens > batchTokens || states > most) {
				break
			}
			b.docs = append(b.docs, &placed{sequences: d, doc: which[0]})
		}
		for _, d := range b.docs {
			d.prefixAt = rows
			rows += len(d.prefix)
		}
		rows = max(rows, b.lo+model.PiecesRows)
		b.rests = rows
		for _, d := range b.docs {
			for _, r := range d.rests {
				d.restAt = append(d.restAt, rows)
				rows += len(r)
			}
		}
		rows = max(rows, b.rests+model.PiecesRows)
		b.hi = rows
		batches = append(batches, b)
	}
	return batches, rows
}

// stateBytes is what a sequence's keys and values take in a block, about: they
// grow by so many tokens.
func stateBytes(m *model.Model, longest int) int64 {
	const step = 256
	tokens := (longest + step - 1) / step * step
	return int64(tokens) * int64(m.Config.KVHeads*m.Config.HeadDim) * 2 * 4
}
