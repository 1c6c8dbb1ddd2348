package tokenizer

import (
	"errors"
	"unicode"
	"unicode/utf8"
)

// addedToken is an entry of added_tokens: a string that is one token wherever
// it stands, whatever the model would make of it.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // only between non-word characters
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // takes the white space after it
	Normalized bool   `json:"normalized"`  // is looked for in normalized text
	Special    bool   `json:"special"`     // left out when decoding without special tokens
}

// addedTokens finds added tokens: those of raw in the text as it is, those of
// normalized in what the normalizer makes of the rest.
type addedTokens struct {
	tokens          []addedToken
	byID            map[int32]int   // id → index in tokens
	special         map[string]bool // contents
	raw, normalized trie
}

// trie is a set of strings, searched for the leftmost and of those the longest
// match. Node 0 is the root.
type trie struct {
	ids   []int32          // of the tokens that end at the nodes, −1: none
	next  map[uint64]int32 // node << 8 | byte → node
	first [256]bool        // bytes that a string begins with
}

func (t *trie) insert(s string, id int32) {
	if s == "" {
		return
	}
	if t.ids == nil {
		t.ids, t.next = []int32{-1}, make(map[uint64]int32)
	}
	t.first[s[0]] = true
	at := int32(0)
	for i := range len(s) {
		edge := uint64(at)<<8 | uint64(s[i])
		to, ok := t.next[edge]
		if !ok {
			to = int32(len(t.ids))
			t.ids = append(t.ids, -1)
			t.next[edge] = to
		}
		at = to
	}
	t.ids[at] = id
}

// find returns the first match at or after from: its id and bounds, id −1 if
// there is none. It takes from the budget for each byte of a string.
func (t *trie) find(s string, from int, b *budget) (id int32, lo, hi int) {
	if t.ids == nil {
		return -1, len(s), len(s)
	}
	for lo = from; lo < len(s) && b.steps >= 0; lo++ {
		if !t.first[s[lo]] {
			continue
		}
		id = -1
		at, ok := int32(0), true
		for i := lo; i < len(s); i++ {
			if at, ok = t.next[uint64(at)<<8|uint64(s[i])]; !ok {
				break
			}
			b.steps -= stepsPerLookup
			if t.ids[at] >= 0 {
				id, hi = t.ids[at], i+1
			}
		}
		if id >= 0 {
			return id, lo, hi
		}
	}
	return -1, len(s), len(s)
}

// cut calls f with the tokens found in s (id ≥ 0) and the text between them
// (id −1), in order; at is the text's offset in s.
//
// The search goes on where a match ends, not where the white space that rstrip
// takes ends, and a match that single_word rejects is skipped whole, as in
// Hugging Face's.
func (t *trie) cut(e *encoder, s string, f func(id int32, part string, at int)) {
	a := &e.t.added
	done := 0 // what of s has been passed on
	for from := 0; ; {
		id, lo, hi := t.find(s, from, &e.budget)
		if e.budget.steps < 0 {
			e.fail(errors.New("added tokens: finding them takes too many steps"))
			return
		}
		if id < 0 {
			break
		}
		from = hi
		tok := &a.tokens[a.byID[id]]
		if tok.SingleWord && (endsWord(s[:lo]) || beginsWord(s[hi:])) {
			continue
		}
		if tok.LStrip {
			lo = max(lo-trailingSpace(s[:lo]), done)
		}
		if tok.RStrip {
			hi += leadingSpace(s[hi:])
		}
		if done < lo {
			f(-1, s[done:lo], done)
		}
		if lo < hi { // else what rstrip took before has it all
			f(id, "", lo)
		}
		done = hi
	}
	if done < len(s) {
		f(-1, s[done:], done)
	}
}

func beginsWord(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return s != "" && classes()[r]&word != 0
}

func endsWord(s string) bool {
	r, _ := utf8.DecodeLastRuneInString(s)
	return s != "" && classes()[r]&word != 0
}

func leadingSpace(s string) int {
	for i, r := range s {
		if !unicode.IsSpace(r) {
			return i
		}
	}
	return len(s)
}

func trailingSpace(s string) int {
	n := len(s)
	for n > 0 {
		r, w := utf8.DecodeLastRuneInString(s[:n])
		if !unicode.IsSpace(r) {
			break
		}
		n -= w
	}
	return len(s) - n
}
