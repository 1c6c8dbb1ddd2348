package tokenizer

import (
	"fmt"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// bpe is the byte pair encoding model.
//
// A word starts as one symbol a character (a byte, with a byte-level
// pre-tokenizer); then, as long as two neighbours form a pair that the merges
// list, the pair of lowest rank, and of those the leftmost, becomes one symbol.
//
// Sennrich et al. 2016, arXiv:1508.07909.
type bpe struct {
	// words maps the text of a token to its id; with byteLevel the text's
	// bytes, not their printable stand-ins.
	words     map[string]int32
	merges    mergeTable
	byteLevel bool

	// symbols of each byte with byteLevel, of each ASCII character without.
	symbols [256]initial

	fallback     *[256]int32 // ids of <0x00>…<0xFF>, −1 where absent; nil without byte_fallback
	unk          int32       // −1: none, unknown characters vanish
	fuseUnk      bool
	ignoreMerges bool // a word that is a token is that token, whatever the merges say

}

// initial is what a character begins as: known, one symbol; else its bytes'
// fallback tokens, or the unknown token.
type initial struct {
	id    int32
	bytes []int32
	kind  initialKind
}

type initialKind uint8

const (
	isUnknown initialKind = iota
	isToken
	isBytes
)

// initialOf returns what s begins as. s is one character as the vocabulary
// spells it.
func (m *bpe) initialOf(s string, vocab map[string]int32) initial {
	if id, ok := vocab[s]; ok {
		return initial{id: id, kind: isToken}
	}
	if m.fallback != nil {
		ids := make([]int32, 0, utf8.UTFMax)
		for i := range len(s) {
			if id := m.fallback[s[i]]; id >= 0 {
				ids = append(ids, id)
			}
		}
		if len(ids) == len(s) {
			return initial{bytes: ids, kind: isBytes}
		}
	}
	return initial{kind: isUnknown}
}

// encode appends the ids of word w to dst.
func (m *bpe) encode(dst []int32, w string, s *merger) []int32 {
	if m.ignoreMerges {
		if id, ok := m.words[w]; ok {
			return append(dst, id)
		}
	}
	start := len(dst)
	dst = m.split(dst, w)
	n := s.merge(dst[start:], &m.merges)
	return dst[:start+n]
}

// split appends the symbols that w starts as.
//
// An unknown token is held back until the next known character, so that with
// fuseUnk a run of unknown characters is one token. Characters that fall back
// to bytes do not end such a run and come out before it: so do Hugging Face's.
func (m *bpe) split(dst []int32, w string) []int32 {
	if len(w) > maxCachedWord {
		dst = slices.Grow(dst, len(w)) // at most a symbol a byte
	}
	pending := false
	for i := 0; i < len(w); {
		n := 1
		var in initial
		switch {
		case m.byteLevel || w[i] < utf8.RuneSelf:
			in = m.symbols[w[i]]
		default:
			_, n = utf8.DecodeRuneInString(w[i:])
			in = m.initialOf(w[i:i+n], m.words)
		}
		i += n
		switch in.kind {
		case isToken:
			if pending {
				dst = append(dst, m.unk)
				pending = false
			}
			dst = append(dst, in.id)
		case isBytes:
			dst = append(dst, in.bytes...)
		case isUnknown:
			if m.unk < 0 {
				continue
			}
			if pending && !m.fuseUnk {
				dst = append(dst, m.unk)
			}
			pending = true
		}
	}
	if pending {
		dst = append(dst, m.unk)
	}
	return dst
}

// pair is a merge's result.
type pair struct {
	key  uint64 // left id << 32 | right id; noPair: free slot
	rank uint32
	id   int32
}

const noPair = ^uint64(0) // no id is negative, so no key is this

// mergeTable is a hash table from pairs of ids to merges, open addressing with
// linear probing, at most half full.
type mergeTable struct {
	slots []pair
	shift uint8
}

func newMergeTable(n int) mergeTable {
	b := max(4, bits.Len(uint(n))+1)
	t := mergeTable{slots: make([]pair, 1<<b), shift: uint8(64 - b)}
	for i := range t.slots {
		t.slots[i].key = noPair
	}
	return t
}

func pairKey(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

// slot returns where key is or would be.
func (t *mergeTable) slot(key uint64) *pair {
	// 2⁶⁴ divided by the golden ratio: Knuth's multiplicative hashing.
	for i := key * 0x9E3779B97F4A7C15 >> t.shift; ; i++ {
		p := &t.slots[i&uint64(len(t.slots)-1)]
		if p.key == key || p.key == noPair {
			return p
		}
	}
}

// set enters a merge; a pair listed twice keeps its last rank.
func (t *mergeTable) set(left, right int32, rank uint32, id int32) {
	p := t.slot(pairKey(left, right))
	*p = pair{key: pairKey(left, right), rank: rank, id: id}
}

// get returns the rank and result of a pair, or noRank.
func (t *mergeTable) get(left, right int32) (rank uint32, id int32) {
	p := t.slot(pairKey(left, right))
	if p.key == noPair {
		return noRank, -1
	}
	return p.rank, p.id
}

const noRank = ^uint32(0)

// byteFallback returns the ids of the tokens <0x00> to <0xFF>.
func byteFallback(vocab map[string]int32) *[256]int32 {
	var ids [256]int32
	for b := range ids {
		id, ok := vocab[fmt.Sprintf("<0x%02X>", b)]
		if !ok {
			id = -1
		}
		ids[b] = id
	}
	return &ids
}
