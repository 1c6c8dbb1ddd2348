package model

import (
	"fmt"

	"github.com/crepe-llm/crepe/engine"
)

// State is what running blocks needs beside their weights: a Stream with its
// scratch memory, which is kept for the next sequence, and rotary tables. One
// goroutine uses it at a time.
type State struct {
	stream engine.Stream
	tables map[ropeKey]*engine.Rotary
	spare  engine.Cache // of a whole sequence that has passed: memory for the next
}

// ropeKey names a table: sequences of a length may have one of their own.
type ropeKey struct {
	rope   *rope
	regime int
}

// NewState returns a State without memory.
func (m *Model) NewState() *State {
	return &State{stream: m.opt.Engine.NewStream(), tables: map[ropeKey]*engine.Rotary{}}
}

// Cache is what the blocks keep of the tokens of one sequence, which comes in
// pieces: keys and values, or the state of a recurrence.
type Cache struct {
	tokens int            // of the whole sequence, or the most that it may reach
	blocks []engine.Cache // nil where nothing has passed yet
	spare  engine.Cache   // memory for the next block's, or nil
}

// NewCache returns the Cache of a sequence. tokens is the length of the whole
// sequence, or the most that it may reach: rotary embeddings that depend on the
// length (longrope) take this one from the start.
func (m *Model) NewCache(tokens int) *Cache {
	return &Cache{tokens: tokens, blocks: make([]engine.Cache, m.Config.Blocks)}
}

// Begin makes c forget its sequence for one of tokens tokens. The memory of one
// block stays for the next.
func (c *Cache) Begin(tokens int) {
	for i := range c.blocks {
		c.forget(i)
	}
	c.tokens = tokens
}

func (c *Cache) forget(i int) {
	if c.blocks[i] != nil {
		c.spare = c.blocks[i]
	}
	c.blocks[i] = nil
}

// Fork makes to go on from where c is, so that several sequences share the
// computation of their beginning. What to held before is lost, c stays as it
// is; both are Caches of one Model.
func (c *Cache) Fork(to *Cache) {
	to.tokens = c.tokens
	c.fork(to, func(b engine.Cache) int { return b.Len() })
}

// ForkAt makes to go on from the first n tokens of c as a sequence of at most
// tokens tokens. The Model Rewinds, or n is all that c holds; it turns a sequence
// of that length as it does c's (SameRotation). Else it is as Fork.
func (c *Cache) ForkAt(n, tokens int, to *Cache) {
	to.tokens = tokens
	c.fork(to, func(engine.Cache) int { return n })
}

// fork makes to hold as many tokens of each block of c as n says.
func (c *Cache) fork(to *Cache, n func(b engine.Cache) int) {
	if len(c.blocks) != len(to.blocks) {
		panic("model: Fork: want two Caches of one Model")
	}
	for i, b := range c.blocks {
		to.forget(i)
		if b != nil {
			to.blocks[i], to.spare = b.Fork(n(b), to.spare), nil
		}
	}
}

// Bytes returns the memory that c holds, without what it shares.
func (c *Cache) Bytes() int64 {
	n := int64(0)
	for _, b := range c.blocks {
		if b != nil {
			n += b.Bytes()
		}
	}
	return n
}

// Rewinds reports whether a Cache can be forked at any of its tokens: not where
// a recurrence takes attention's place, which keeps its last state only.
func (m *Model) Rewinds() bool { return m.Config.linear == nil }

// CacheBytes returns what the Cache of a sequence of so many tokens takes: keys and
// values, and the states of recurrences.
func (m *Model) CacheBytes(tokens int) int64 {
	c := m.Config
	keyValues := m.opt.Engine.AttentionBytes(&engine.Attention{Heads: c.Heads, KVHeads: c.KVHeads, HeadDim: c.HeadDim}, m.Linears(0)[0].DType, tokens)
	n := int64(0)
	for i := range c.Blocks {
		if c.linear != nil && c.linear[i] {
			d := c.delta
			n += 4 * int64((d.Taps-1)*d.Channels()+d.ValueWidth()*d.KeyDim)
			continue
		}
		n += keyValues
	}
	return n
}

// LongestAlike returns the largest length up to total whose sequences turn their
// tokens as those of n tokens do (SameRotation).
func (m *Model) LongestAlike(n, total int) int {
	if m.SameRotation(n, total) {
		return total
	}
	for total-n > 1 {
		if mid := n + (total-n)/2; m.SameRotation(n, mid) {
			n = mid
		} else {
			total = mid
		}
	}
	return n
}

// SameRotation says whether sequences of a and of b tokens turn a token at the
// same position alike. With longrope it is not so where one is long only, with dynamic
// scaling where one is longer than the model was made for.
func (m *Model) SameRotation(a, b int) bool {
	for _, r := range []*rope{m.Config.rope, m.Config.localRope} {
		if r != nil && r.regime(a) != r.regime(b) {
			return false
		}
	}
	return true
}

// sequences returns the pieces as operations take them. empty makes the Cache of
// a sequence that begins, in the memory of another.
func (p *pass) sequences(block int, r *rope, empty func(old engine.Cache) engine.Cache) []engine.Sequence {
	seqs := make([]engine.Sequence, len(p.pieces))
	for i, piece := range p.pieces {
		s := engine.Sequence{Tokens: piece.Tokens}
		limit := piece.Tokens
		if c := piece.Cache; c == nil {
			p.st.spare = empty(p.st.spare)
			s.Cache = p.st.spare
		} else {
			if c.blocks[block] == nil {
				c.blocks[block], c.spare = empty(c.spare), nil
			}
			s.Cache, limit = c.blocks[block], c.tokens
			if end := s.Cache.Len() + s.Tokens; end > limit {
				panic(fmt.Sprintf("model: Run: token %d of a Cache for %d", end, limit))
			}
		}
		if r != nil {
			s.Rotary = p.st.rotary(r, limit)
		}
		seqs[i] = s
	}
	return seqs
}

// rotary returns the table of r for sequences of that length.
func (st *State) rotary(r *rope, tokens int) *engine.Rotary {
	key := ropeKey{r, r.regime(tokens)}
	t := st.tables[key]
	if t == nil {
		if r.kind == "dynamic" { // a table for each length: one at a time
			clear(st.tables)
		}
		t = &engine.Rotary{Inv: r.frequencies(key.regime), Scale: float32(r.scale)}
		st.tables[key] = t
	}
	return t
}
