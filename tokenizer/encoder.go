package tokenizer

import (
	"cmp"
	"fmt"
	"strings"
)

// encoder is what one Encode call works with. It is kept for later calls for
// the sake of its cache.
type encoder struct {
	t      *Tokenizer
	ids    []int32 // the result so far
	err    error   // the first that occurred; what remains of the text is skipped
	budget budget
	cache  wordCache
	merge  merger
}

func (e *encoder) fail(err error) { e.err = cmp.Or(e.err, err) }

// grow takes from the budget what a stage adds to the text.
func (e *encoder) grow(n int) {
	if err := e.budget.grow(n); err != nil {
		e.fail(fmt.Errorf("pre_tokenizer: %w", err))
	}
}

// text appends the ids of a text: added tokens that match the text as it is
// are cut out, the rest is normalized, the other added tokens are cut out of
// that, and what then remains goes through the pre-tokenizer.
func (e *encoder) text(text string) {
	e.t.added.raw.cut(e, text, func(id int32, part string, at int) {
		if id >= 0 {
			e.ids = append(e.ids, id)
			return
		}
		e.normalized(part, at == 0)
	})
}

func (e *encoder) normalized(text string, first bool) {
	if e.t.norm != nil {
		var err error
		if text, first, err = e.t.norm(&e.budget, text, first); err != nil {
			e.fail(fmt.Errorf("normalizer: %w", err))
			return
		}
	}
	e.t.added.normalized.cut(e, text, func(id int32, part string, at int) {
		if id >= 0 {
			e.ids = append(e.ids, id)
			return
		}
		e.run(0, part, first && at == 0)
	})
}

// run passes text through the pre-tokenizer's stages from the i-th on and then
// to the model. first says whether text begins where the input does.
func (e *encoder) run(i int, text string, first bool) {
	if text == "" || e.err != nil {
		return
	}
	if i < len(e.t.stages) {
		e.t.stages[i].apply(e, i+1, text, first)
		return
	}
	e.word(text)
}

// maxCachedWord is the length up to which words are cached: longer ones hardly
// return. Bytes.
const maxCachedWord = 64

// word appends the ids of one word.
func (e *encoder) word(w string) {
	if len(w) > maxCachedWord {
		e.ids = e.t.model.encode(e.ids, w, &e.merge)
		return
	}
	if ids, ok := e.cache.get(w); ok {
		e.ids = append(e.ids, ids...)
		return
	}
	n := len(e.ids)
	e.ids = e.t.model.encode(e.ids, w, &e.merge)
	e.cache.put(w, e.ids[n:])
}

// wordCache remembers the ids of words. It starts over when full, so that its
// memory is bounded and a change of language does not leave it useless.
type wordCache struct {
	spans map[string]bounds
	ids   []int32
}

// bounds of a word's ids.
type bounds struct{ lo, hi int }

// Limits of the cache: about 8 MB with words of maxCachedWord bytes.
const (
	cacheWords = 1 << 16
	cacheIDs   = 1 << 19
)

func (c *wordCache) get(w string) ([]int32, bool) {
	s, ok := c.spans[w]
	return c.ids[s.lo:s.hi], ok
}

func (c *wordCache) put(w string, ids []int32) {
	if c.spans == nil || len(c.spans) >= cacheWords || len(c.ids)+len(ids) > cacheIDs {
		c.spans = make(map[string]bounds)
		c.ids = c.ids[:0]
	}
	lo := len(c.ids)
	c.ids = append(c.ids, ids...)
	// w is a part of the caller's text, which the cache must not keep alive.
	c.spans[strings.Clone(w)] = bounds{lo, len(c.ids)}
}
