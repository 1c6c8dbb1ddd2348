// Package calibration draws the token windows that statistics are gathered on,
// by the protocol of the pruning literature, and cuts a text into the windows
// that perplexity is measured on.
package calibration

import (
	"context"
	"fmt"

	"github.com/crepe-llm/crepe/corpus"
)

// Defaults of the protocol. Published results use them on the first shard of
// C4's training split.
const (
	DefaultSamples = 128
	DefaultSeqLen  = 2048
	DefaultSeed    = 0
)

// Options says what Sample draws.
type Options struct {
	Samples int    // windows; 0 means DefaultSamples
	SeqLen  int    // tokens a window; 0 means DefaultSeqLen
	Seed    uint64 // of Python's random module
}

// Validate reports whether o can be drawn, with its defaults filled in.
func (o *Options) Validate() error {
	if o.Samples == 0 {
		o.Samples = DefaultSamples
	}
	if o.SeqLen == 0 {
		o.SeqLen = DefaultSeqLen
	}
	if o.Samples < 1 {
		return fmt.Errorf("calibration samples %d: want at least 1", o.Samples)
	}
	if o.SeqLen < 2 {
		return fmt.Errorf("calibration window %d tokens: want at least 2", o.SeqLen)
	}
	return nil
}

// cacheIDs bounds the tokenised documents that Sample keeps: 2²⁴ ids, 64 MiB.
const cacheIDs = 1 << 24

// Sample draws o.Samples windows of o.SeqLen token ids. With R = Python's
// random after random.seed(o.Seed), for each window
//
//	do  ids = encode(document R.randint(0, n-1))  until  len(ids) > SeqLen
//	start = R.randint(0, len(ids) - SeqLen - 1)
//	window = ids[start : start+SeqLen]
//
// and no document is drawn where docs is one running text. These are the very
// windows of Wanda's and SparseGPT's data loaders: with C4's first training
// shard and seed 0, those of the published results. encode must add the
// tokenizer's default special tokens. Where those loaders would not end,
// because no document is longer than the window, Sample returns an error.
func Sample(ctx context.Context, docs corpus.Documents, encode func(string) ([]int32, error), o Options) ([][]int32, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if docs.Len() == 0 {
		return nil, fmt.Errorf("calibration text: no documents")
	}
	rng := newPyRandom(o.Seed)
	d := drawer{docs: docs, encode: encode, seqLen: o.SeqLen,
		short: make([]uint64, (docs.Len()+63)/64), cache: map[int][]int32{}}
	windows := make([][]int32, o.Samples)
	for w := range windows {
		ids, err := d.draw(ctx, rng)
		if err != nil {
			return nil, err
		}
		start := rng.randint(0, len(ids)-o.SeqLen-1)
		windows[w] = append([]int32(nil), ids[start:start+o.SeqLen]...)
	}
	return windows, nil
}

// drawer draws documents and remembers what tokenising them has shown.
type drawer struct {
	docs     corpus.Documents
	encode   func(string) ([]int32, error)
	seqLen   int
	short    []uint64        // bit i: document i is not longer than the window
	nShort   int             // bits set in short
	longest  int             // tokens of the longest short document
	cache    map[int][]int32 // tokens of documents that are long enough
	cachedID int             // ids in cache
}

func (d *drawer) draw(ctx context.Context, rng *pyRandom) ([]int32, error) {
	for {
		i := 0
		if !d.docs.Running() {
			i = rng.randint(0, d.docs.Len()-1)
		}
		ids, err := d.tokens(ctx, i)
		if ids != nil || err != nil {
			return ids, err
		}
		if d.nShort == d.docs.Len() {
			return nil, d.tooShort()
		}
	}
}

// tokens returns the ids of document i, nil if they are not more than a window.
func (d *drawer) tokens(ctx context.Context, i int) ([]int32, error) {
	if d.short[i/64]>>(i%64)&1 != 0 {
		return nil, nil
	}
	if ids, ok := d.cache[i]; ok {
		return ids, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	text, err := d.docs.Text(i)
	if err != nil {
		return nil, err
	}
	ids, err := d.encode(text)
	if err != nil {
		return nil, fmt.Errorf("document %d: %w", i, err)
	}
	if len(ids) <= d.seqLen {
		d.short[i/64] |= 1 << (i % 64)
		d.nShort++
		d.longest = max(d.longest, len(ids))
		return nil, nil
	}
	if d.cachedID+len(ids) <= cacheIDs || d.docs.Running() {
		d.cache[i] = ids
		d.cachedID += len(ids)
	}
	return ids, nil
}

func (d *drawer) tooShort() error {
	what := fmt.Sprintf("the longest of %d documents has %d tokens", d.docs.Len(), d.longest)
	if d.docs.Len() == 1 {
		what = fmt.Sprintf("it has %d tokens", d.longest)
	}
	return fmt.Errorf("calibration text too short for a window of %d tokens: %s, want more than %d: give a longer text or a smaller --seqlen",
		d.seqLen, what, d.seqLen)
}

// Windows cuts ids into ⌊len(ids)/seqLen⌋ windows of seqLen tokens, at most
// limit of them if limit > 0, and drops the tail. The windows share ids.
func Windows(ids []int32, seqLen, limit int) [][]int32 {
	if seqLen < 1 {
		panic(fmt.Sprintf("calibration: Windows: seqLen %d, want at least 1", seqLen))
	}
	n := len(ids) / seqLen
	if limit > 0 {
		n = min(n, limit)
	}
	windows := make([][]int32, n)
	for i := range windows {
		windows[i] = ids[i*seqLen : (i+1)*seqLen : (i+1)*seqLen]
	}
	return windows
}

// CheckIDs returns an error that names the first id of windows outside
// [0, vocab).
func CheckIDs(windows [][]int32, vocab int) error {
	for w, ids := range windows {
		for t, id := range ids {
			if id < 0 || int(id) >= vocab {
				return fmt.Errorf("token windows: sample %d, position %d: token id %d outside the model's vocabulary of %d: tokenise with this model's tokenizer", w, t, id, vocab)
			}
		}
	}
	return nil
}
